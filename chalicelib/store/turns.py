"""Turns: at most one CSI call in flight per volume (CSI spec, Concurrency), and per node or plugin where a plugin asks.

A turn belongs to one attempt until it leaves or its lease is over. Who finds it taken puts itself on the list of those
who wait and goes; who leaves names the first of them. The list only saves time: an operation that is never named is due
when the turn it waited for must be over.
"""

from dataclasses import dataclass
from typing import Final

from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from chalicelib.store import tables
from chalicelib.store.dynamo import ConditionFailed, Dynamo, load
from chalicelib.store.tables import TurnRow

WAITING_LIMIT: Final = 500
"""Operations that one item names; those beyond it are found when they are due."""
KEEP_SECONDS: Final = 24 * 3600
"""How long the item of a turn is kept that nobody takes any more."""
_SK: Final = "-"
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Turn:
    """One attempt's turn at a subject; `until` is the end of its lease in seconds since the epoch."""

    subject: str
    operation_id: str
    attempt: int
    until: float

    @property
    def holder(self) -> str:
        return f"{self.operation_id} {self.attempt}"


def of_storage(plugin_id: str, external_id: str) -> str:
    """The subject of a volume or snapshot at its provider."""
    return f"volume\n{plugin_id}\n{external_id}"


class TurnStore:
    """The turns of one stage."""

    def __init__(self, store: Dynamo) -> None:
        self._dynamo = store

    def take(self, turn: Turn, *, now: float) -> float | None:
        """None when it is ours; otherwise we are on the list, and the answer is when to look again at the latest."""
        actions: list[Action] = [
            TurnRow.holder.set(turn.holder),
            TurnRow.until.set(turn.until),
            TurnRow.schema.set(tables.SCHEMA),
            TurnRow.expires_at.set(int(turn.until) + KEEP_SECONDS),
            TurnRow.waiting.delete({turn.operation_id}),
        ]
        # The same call may be repeated while an older one is unanswered: that is how CSI learns what became of it.
        again = TurnRow.holder.startswith(f"{turn.operation_id} ")
        free: Condition = TurnRow.pk.does_not_exist() | (TurnRow.until <= now) | again
        pk = tables.turn_pk(turn.subject)
        for _ in range(_TRIES):
            try:
                self._dynamo.update(TurnRow, pk, _SK, actions, free)
            except ConditionFailed as exc:
                held = load(TurnRow, exc.old)
            else:
                return None
            if held is None:
                continue
            if self._wait(pk, held, turn.operation_id):
                return float(held.until)
        return now + 1.0

    def is_free(self, turn: Turn, *, now: float) -> bool:
        """Whether nobody has it any more; who found it taken a moment ago asks again when it is down as waiting."""
        row = self._dynamo.get(TurnRow, tables.turn_pk(turn.subject), _SK)
        return row is None or row.until <= now

    def leave(self, turn: Turn, *, until: float) -> list[str]:
        """Free it from `until` on (0: now), if it is still ours; if now, the operations that wait, the oldest first."""
        pk = tables.turn_pk(turn.subject)
        try:
            left = self._dynamo.update(TurnRow, pk, _SK, [TurnRow.until.set(until)], TurnRow.holder == turn.holder)
        except ConditionFailed:
            return []
        return [] if until else sorted(left.waiting or ())

    def strike(self, subject: str, operation_ids: set[str]) -> None:
        """Take operations off the list that will not come any more."""
        pk = tables.turn_pk(subject)
        self._dynamo.update(TurnRow, pk, _SK, [TurnRow.waiting.delete(operation_ids)], TurnRow.pk.exists())

    def _wait(self, pk: str, held: TurnRow, operation_id: str) -> bool:
        """Onto the list of those who wait; False when the turn changed hands meanwhile."""
        if len(held.waiting or ()) >= WAITING_LIMIT:
            return True
        same: Condition = (TurnRow.holder == held.holder) & (TurnRow.until == held.until)
        try:
            self._dynamo.update(TurnRow, pk, _SK, [TurnRow.waiting.add({operation_id})], same)
        except ConditionFailed:
            return False
        return True
