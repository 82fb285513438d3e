"""Operations: the durable unit of work on a provider, and its state machine.

A record is in one of five states; `TRANSITIONS` holds every legal move, and docs/operations.md draws it. Beside the
state a record has a `step` of its kind. Fencing protects the record, not the provider: whoever writes a result names
the attempt it acquired, and an older attempt is refused. What may still land at the provider is counted apart, by
`unanswered` and `calls_until`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final


class Kind(StrEnum):
    CREATE_VOLUME = "create"
    DELETE_VOLUME = "delete"
    EXPAND_VOLUME = "expand"
    CREATE_SNAPSHOT = "create snapshot"
    DELETE_SNAPSHOT = "delete snapshot"
    PUBLISH_VOLUME = "publish"
    UNPUBLISH_VOLUME = "unpublish"


JsonObject = Mapping[str, Any]
"""A JSON object as it is stored. Each kind of operation has types of its own for its parameters and its result."""


class Status(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Over, with nothing left at the provider that the records do not name."""
    IN_DOUBT = "in doubt"
    """Given up for now: it may have left something at the provider. Never removed, can be resumed."""


class Event(StrEnum):
    ACQUIRE = "acquire"
    POSTPONE = "postpone"
    SUCCEED = "succeed"
    FAIL = "fail"
    EXHAUST = "exhaust"
    RESUME = "resume"


TRANSITIONS: Final[Mapping[tuple[Status, Event], Status]] = {
    (Status.PENDING, Event.ACQUIRE): Status.RUNNING,
    (Status.RUNNING, Event.ACQUIRE): Status.RUNNING,  # by another worker, once the lease is over
    (Status.RUNNING, Event.POSTPONE): Status.PENDING,
    (Status.RUNNING, Event.SUCCEED): Status.SUCCEEDED,
    (Status.RUNNING, Event.FAIL): Status.FAILED,
    (Status.RUNNING, Event.EXHAUST): Status.IN_DOUBT,
    (Status.PENDING, Event.EXHAUST): Status.IN_DOUBT,  # every try died before it could write its end
    (Status.PENDING, Event.FAIL): Status.FAILED,  # cancelled before any worker touched it
    (Status.IN_DOUBT, Event.RESUME): Status.PENDING,
}
CLOSED: Final = frozenset({Status.SUCCEEDED, Status.FAILED})

TRY_LIMIT: Final = 30
FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 600.0
MESSAGE_GRACE: Final = 10.0
"""How long a message may take to a worker before the sweeper sends another."""
KEEP_FINISHED: Final = 7 * 24 * 3600
"""How long a finished record can be read, in seconds."""


class IllegalTransition(Exception):
    """An event that the state does not allow; nothing was changed."""


def advance(status: Status, event: Event) -> Status:
    """The state after `event`; raises IllegalTransition and changes nothing when there is none."""
    try:
        return TRANSITIONS[status, event]
    except KeyError as exc:
        raise IllegalTransition(f"an operation that is {status} cannot {event}") from exc


@dataclass(frozen=True, slots=True)
class Operation:
    """One record; times in seconds since the epoch."""

    id: str
    kind: Kind
    namespace: str
    volume_id: str
    plugin_id: str
    digest: str
    step: str
    status: Status = Status.PENDING
    storage_name: str = ""
    """The name given to the provider: unique per operation, the same over its repeats."""
    external_id: str = ""
    subject: str = ""
    """What it locks when no volume's record holds it: a snapshot by source and name, say."""
    definition: str = ""
    """The volume's, as it is stored, while the operation is open: with it a record is as large as an item can be."""
    params: JsonObject = field(default_factory=dict)
    result: JsonObject = field(default_factory=dict)
    sealed_secrets: bytes = field(default=b"", repr=False)
    attempt: int = 0
    tries: int = 0
    unanswered: int = 0
    calls_until: float = 0.0
    lease_until: float = 0.0
    not_before: float = 0.0
    due_at: float = 0.0
    error: str = ""
    """What the client is told, once an answer is known; kept over an undo."""
    last_error: str = ""
    create_time: float = 0.0
    update_time: float = 0.0

    @property
    def open(self) -> bool:
        return self.status not in CLOSED

    @property
    def answered(self) -> bool:
        """Whether a waiting request can be answered, though an undo may still go on."""
        return not self.open or bool(self.error) or self.status is Status.IN_DOUBT

    def backs_off(self, now: float) -> bool:
        """Whether it waits only because tries failed, not because a call may still land: it may be tried earlier."""
        return self.status is Status.PENDING and self.tries > 0 and self.not_before > now and not self.in_flight(now)

    def in_flight(self, now: float) -> int:
        """How many earlier calls may still land at the provider."""
        return self.unanswered if now < self.calls_until else 0


def retry_delay(tries: int, jitter: float) -> float:
    """Seconds until the next try: doubling, capped, spread by up to a quarter."""
    return float(min(FIRST_DELAY * 2.0 ** min(tries, 20), LONGEST_DELAY)) * (1 + jitter / 4)
