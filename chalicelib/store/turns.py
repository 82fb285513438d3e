"""Turns: at most one CSI call in flight per volume (CSI spec, Concurrency), and per node or plugin where a plugin asks.

A turn belongs to one attempt until the attempt leaves it or its lease ends. An operation that finds it taken is added
to the turn's waiting list, and its worker stops. The attempt that leaves wakes the first operation on the list. The
list only saves time: an operation that is never woken is due when the lease of the turn must be over.
"""

from dataclasses import dataclass
from typing import Final

from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from chalicelib.store import tables
from chalicelib.store.dynamo import ConditionFailed, Dynamo, load
from chalicelib.store.tables import TurnRow

WAITING_LIMIT: Final = 500
"""Operations on one waiting list. Those beyond it are found when they are due."""
KEEP_SECONDS: Final = 24 * 3600
"""How long the item of an unused turn is kept."""
_SK: Final = "-"
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Turn:
    """One attempt's turn at a subject. `until` is the end of its lease, in seconds since the epoch."""

    subject: str
    operation_id: str
    attempt: int
    until: float

    @property
    def holder(self) -> str:
        return f"{self.operation_id} {self.attempt}"


def of_storage(plugin_id: str, external_id: str) -> str:
    """Return the subject of a volume or snapshot at its provider."""
    return f"volume\n{plugin_id}\n{external_id}"


class TurnStore:
    """The turns of one stage."""

    def __init__(self, store: Dynamo) -> None:
        self._dynamo = store

    def take(self, turn: Turn, *, now: float) -> float | None:
        """Return None if the attempt got the turn.

        Otherwise put its operation on the waiting list, and return the latest time (epoch seconds) to try again.
        """
        actions: list[Action] = [
            TurnRow.holder.set(turn.holder),
            TurnRow.until.set(turn.until),
            TurnRow.schema.set(tables.SCHEMA),
            TurnRow.expires_at.set(int(turn.until) + KEEP_SECONDS),
            TurnRow.waiting.delete({turn.operation_id}),
        ]
        # An operation may repeat its own call while an older one is unanswered: that is how it learns the outcome.
        again = TurnRow.holder.startswith(f"{turn.operation_id} ")
        free: Condition = TurnRow.pk.does_not_exist() | (TurnRow.until <= now) | again
        pk = tables.turn_pk(turn.subject)
        for _ in range(_TRIES):
            try:
                self._dynamo.update(TurnRow, pk, _SK, actions, free)
            except ConditionFailed as exc:
                row = load(TurnRow, exc.old)
            else:
                return None
            if row is None:
                continue  # the item was deleted in this moment, so the turn is free
            if self._wait(pk, row, turn.operation_id):
                return float(row.until)
        return now + 1.0

    def is_free(self, turn: Turn, *, now: float) -> bool:
        """Return whether the turn is free.

        An operation asks once more when it is on the waiting list: the holder may have left before it was added.
        """
        row = self._dynamo.get(TurnRow, tables.turn_pk(turn.subject), _SK)
        return row is None or row.until <= now

    def leave(self, turn: Turn, *, until: float) -> list[str]:
        """Free the turn at `until` (epoch seconds), or now if that is 0, if the attempt still has it.

        Returns the operations that wait, the oldest first, if the turn is free now.
        """
        pk = tables.turn_pk(turn.subject)
        try:
            row = self._dynamo.update(TurnRow, pk, _SK, [TurnRow.until.set(until)], TurnRow.holder == turn.holder)
        except ConditionFailed:
            return []
        return [] if until else sorted(row.waiting or ())  # IDs sort by time

    def strike(self, subject: str, operation_ids: set[str]) -> None:
        """Remove operations that are over from the waiting list."""
        pk = tables.turn_pk(subject)
        self._dynamo.update(TurnRow, pk, _SK, [TurnRow.waiting.delete(operation_ids)], TurnRow.pk.exists())

    def _wait(self, pk: str, row: TurnRow, operation_id: str) -> bool:
        """Add the operation to the waiting list, and return False if the turn changed hands meanwhile."""
        if len(row.waiting or ()) >= WAITING_LIMIT:
            return True
        same: Condition = (TurnRow.holder == row.holder) & (TurnRow.until == row.until)
        try:
            self._dynamo.update(TurnRow, pk, _SK, [TurnRow.waiting.add({operation_id})], same)
        except ConditionFailed:
            return False
        return True
