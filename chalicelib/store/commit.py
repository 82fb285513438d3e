"""Commit a change that clients see: allocate an index, write under it, publish it (store/index.py).

No other module allocates or publishes, apart from the index's own repair. So the rules for every change are kept here.
A write that was refused is built anew from what is stored now. If the stored item has the index that was allocated for
this very try, the write was made and only its answer was lost. An index that was allocated for nothing is given back.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from chalicelib.clock import Clock
from chalicelib.errors import StoreError, Throttled, WriteConflict
from chalicelib.store.dynamo import Dynamo, Raw, TransactionRefused, Write
from chalicelib.store.index import IndexStore

T = TypeVar("T")

log = logging.getLogger(__name__)

TRIES: Final = 60
"""Tries of one change. Each lost try means that another change of the same items was made, so sixty tries are enough
for a hundred clients that claim one volume at once.
"""
PAUSE: Final = 0.01
"""Seconds. Two tries are one to twelve pauses apart."""

RefusedWrites = Mapping[str, Raw | None]
"""The writes whose conditions were false in the try before: their labels, and their items as they stood then."""
Writes = Callable[[int], Sequence[Write]]
"""Builds the writes of one try, under the index that it is given."""


class Change(NamedTuple, Generic[T]):
    """One try: the result for the caller, and what is written. Without `writes` nothing is left to do."""

    result: T
    writes: Writes | None = None
    visible: bool = True
    """False for a mark or a reservation, which no client sees: its index is 0, and no reader is woken."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A change that was made, with which listeners are called."""

    index: int
    scopes: tuple[str, ...]
    writes: Sequence[Write]
    tries: int

    def items(self, label: str) -> list[tuple[str, str]]:
        """Return the partition and sort keys that were written under `label` (a volume's: `ns#<namespace>`, its ID)."""
        return [write.key for write in self.writes if write.label == label]


class Committer:
    """The commits of one stage.

    `listeners` are called after each commit, in the process that made it, when the write stands. They must be quick. A
    listener that raises is logged, since the change must not look as if it had failed. A change whose writer dies
    before it is published reaches no listener.
    """

    def __init__(
        self, dynamo: Dynamo, index: IndexStore, clock: Clock, *, listeners: Iterable[Callable[[Commit], None]] = ()
    ) -> None:
        self._dynamo, self._index, self._clock = dynamo, index, clock
        self._listeners = tuple(listeners)

    def commit(
        self, *scopes: str, build: Callable[[RefusedWrites], Change[T]], what: str, tries: int = TRIES
    ) -> tuple[int, T]:
        """Make one change and wake the readers of `scopes`. Return its index and the result that `build` gave.

        `build` is called before each try, with the refused writes of the try before, and reads anew what it needs. It
        raises to give up. When it gives nothing to write, the index is 0. `what` names the changed thing in an error.

        Raises WriteConflict after `tries`.
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
        """Make one try under a new index. Return the index and the refused writes, none if all were made."""
        if not scopes:
            raise ValueError("a change that clients see must name the scopes of its readers")
        name = self._clock.new_id()
        ticket = self._index.allocate(*scopes, name=name, now=self._clock.now())
        writes = build(ticket.index)
        try:
            refused = self._write(writes, token=name)
        # These two errors are answers: nothing was written. After any other error the write may stand, so its index
        # stays allocated until the repair publishes it.
        except (Throttled, WriteConflict):
            with suppress(StoreError):  # the caller must get the first error
                self._index.abandon(ticket)
            raise
        if refused and not _is_mine(refused, ticket.index, writes):
            self._index.abandon(ticket)
            return ticket.index, refused
        self._index.publish(ticket)
        commit = Commit(ticket.index, scopes, writes, number)
        for listener in self._listeners:
            try:
                listener(commit)
            except Exception:
                log.exception("a listener of commits failed: index %d", commit.index)
        return ticket.index, {}

    def _write(self, writes: Sequence[Write], *, token: str) -> RefusedWrites:
        try:
            self._dynamo.write(writes, token=token)
        except TransactionRefused as exc:
            return exc.old
        return {}


def _is_mine(refused: RefusedWrites, index: int, writes: Sequence[Write]) -> bool:
    """Return whether a refusal shows our own write, whose answer was lost.

    No other write has this index. A delete leaves no index to compare: if it is the only write, it was made when the
    item is not there.
    """
    if any(old is not None and old.get("modify_index") == {"N": str(index)} for old in refused.values()):
        return True
    return len(writes) == 1 and writes[0].action == "Delete" and None in refused.values()
