"""The one way to a change that clients see: allocate an index, write under it, publish it (store/index.py).

Nothing else allocates or publishes, apart from the index's own repair. So what must be true of every change is true
here: a write that was refused is built anew from what is stored now, a refusal that shows our own index is our own
write whose answer was lost, and no index that was allocated for nothing stays behind.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from chalicelib.clock import Clock
from chalicelib.errors import StoreError, Throttled, WriteConflict
from chalicelib.store.dynamo import Dynamo, Raw, TransactionRefused, Write
from chalicelib.store.index import IndexStore

T = TypeVar("T")

TRIES: Final = 60
"""Tries of one change. Each that loses has lost against another change of the same items: so a hundred clients that
claim one volume at once are all answered.
"""
PAUSE: Final = 0.01
"""Seconds; two tries are one to twelve pauses apart."""

RefusedWrites = Mapping[str, Raw | None]
"""Labels of the writes whose conditions were false in the try before, and their items as they stood then."""
Writes = Callable[[int], Sequence[Write]]
"""What a try writes under the index that it is given."""


class Change(NamedTuple, Generic[T]):
    """One try: what the caller wants back of it, and what it writes; without `writes` nothing is left to do."""

    result: T
    writes: Writes | None = None
    visible: bool = True
    """False for what no client sees, a mark or a reservation: it gets index 0, and no reader is woken."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A change that was made: what it wrote, under which index, for the readers of which scopes."""

    index: int
    scopes: tuple[str, ...]
    writes: Sequence[Write]
    tries: int

    def items(self, label: str) -> list[tuple[str, str]]:
        """Partition and sort keys of what was written under a label: a volume's is `ns#<namespace>` and its ID."""
        return [write.key for write in self.writes if write.label == label]


class Committer:
    """Commits the changes of one stage; `listeners` are called after each one, in the process that made it."""

    def __init__(
        self, dynamo: Dynamo, index: IndexStore, clock: Clock, *, listeners: Iterable[Callable[[Committed], None]] = ()
    ) -> None:
        self._dynamo, self._index, self._clock = dynamo, index, clock
        self._listeners = tuple(listeners)

    def commit(
        self, *scopes: str, build: Callable[[RefusedWrites], Change[T]], what: str, tries: int = TRIES
    ) -> tuple[int, T]:
        """Make one change and wake the readers of `scopes`; returns its index and the result that `build` gave with it.

        `build` is called before each try, with the refused writes of the last one, so it reads what it needs anew. To
        give up, it raises; when it gives nothing to write, the index is 0. Raises WriteConflict, which names `what`
        was to be changed, after `tries`.
        """
        refused: RefusedWrites = {}
        for attempt in range(tries):
            if attempt:
                self._clock.sleep(PAUSE * (min(attempt, 10) + 2 * self._clock.jitter()))
            change = build(refused)
            if change.writes is None:
                return 0, change.result
            if change.visible:
                index, refused = self._publish(scopes, change.writes, attempt + 1)
            else:
                index, refused = 0, self._write(change.writes(0), token=self._clock.new_id())
            if not refused:
                return index, change.result
        raise WriteConflict(f"{what} is being changed by others: try again in a moment")

    def _publish(self, scopes: tuple[str, ...], build: Writes, number: int) -> tuple[int, RefusedWrites]:
        """Write once under an index of its own; returns it, and what was refused: nothing, if all stands."""
        if not scopes:
            raise ValueError("a change that clients see must name the scopes of its readers")
        name = self._clock.new_id()
        ticket = self._index.allocate(*scopes, name=name, now=self._clock.now())
        writes = build(ticket.index)
        try:
            refused = self._write(writes, token=name)
        except (Throttled, WriteConflict):  # answers: nothing was written
            with suppress(StoreError):  # that the store is busy is what the caller must hear
                self._index.abandon(ticket)
            raise
        if refused and not _is_mine(refused, ticket.index, writes):
            self._index.abandon(ticket)
            return ticket.index, refused
        self._index.publish(ticket)
        committed = Committed(ticket.index, scopes, writes, number)
        for listener in self._listeners:
            listener(committed)
        return ticket.index, {}

    def _write(self, writes: Sequence[Write], *, token: str) -> RefusedWrites:
        try:
            self._dynamo.write(writes, token=token)
        except TransactionRefused as exc:
            return exc.old
        return {}


def _is_mine(refused: RefusedWrites, index: int, writes: Sequence[Write]) -> bool:
    """Whether a refusal shows our own write, whose answer was lost: no other bears this index. And a single delete has
    had its effect when nothing is there.
    """
    if any(old is not None and old.get("modify_index") == {"N": str(index)} for old in refused.values()):
        return True
    return len(writes) == 1 and writes[0].action == "Delete" and None in refused.values()
