"""Operations: the durable unit of work on a provider, and its state machine.

A record is in one of five states; `TRANSITIONS` holds every legal move, and docs/operations.md draws it. Beside the
state a record has a `step` of its kind. A worker that writes a result names the attempt that it acquired, and an older
attempt is refused. This fences the record, not the provider. `unanswered` and `calls_until` count the calls that may
still land there.
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
    """Finished without effect: the provider holds nothing that our records do not name."""
    IN_DOUBT = "in doubt"
    """Out of tries: it may have left something at the provider. It is kept, and can be resumed."""


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
"""Seconds that a message may take to a worker before the sweeper sends another."""
KEEP_FINISHED: Final = 7 * 24 * 3600
"""Seconds that a finished record is kept."""


class IllegalTransition(Exception):
    """An event that the state does not allow. Nothing was changed."""


def advance(status: Status, event: Event) -> Status:
    """Return the state after `event`. Raises IllegalTransition when there is none."""
    try:
        return TRANSITIONS[status, event]
    except KeyError as exc:
        raise IllegalTransition(f"an operation that is {status} cannot {event}") from exc


@dataclass(frozen=True, slots=True)
class Operation:
    """One record. Times are in epoch seconds."""

    id: str
    kind: Kind
    namespace: str
    volume_id: str
    plugin_id: str
    digest: str
    step: str
    status: Status = Status.PENDING
    storage_name: str = ""
    """The name that the provider is told. Each operation has its own, which its repeats keep."""
    external_id: str = ""
    subject: str = ""
    """What the operation locks when no volume or claim names it: a snapshot by source and name, for example."""
    definition: str = ""
    """The volume's definition, as it is stored. It is dropped when the operation ends, since it can be very large."""
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
    """What the client is told. An undo keeps it."""
    last_error: str = ""
    create_time: float = 0.0
    update_time: float = 0.0

    @property
    def open(self) -> bool:
        return self.status not in CLOSED

    @property
    def answered(self) -> bool:
        """Return whether a waiting request can be answered, though an undo may still go on."""
        return not self.open or bool(self.error) or self.status is Status.IN_DOUBT

    def backs_off(self, now: float) -> bool:
        """Return whether it waits only because tries failed, and may be tried earlier: no call may still land."""
        return self.status is Status.PENDING and self.tries > 0 and self.not_before > now and not self.in_flight(now)

    def in_flight(self, now: float) -> int:
        """Return how many earlier calls may still land at the provider."""
        return self.unanswered if now < self.calls_until else 0

    def older_calls_until(self, now: float) -> float:
        """Return until when a call before the one that was just answered may land, or 0 if none may."""
        return self.calls_until if self.in_flight(now) > 1 else 0.0


def retry_delay(tries: int, jitter: float) -> float:
    """Return the seconds until the next try. They double with each try, up to a limit, and vary by up to a quarter."""
    return float(min(FIRST_DELAY * 2.0 ** min(tries, 20), LONGEST_DELAY)) * (1 + jitter / 4)
