"""How many blocking queries wait at once: a bounded number of places, each an item with a lease.

One container serves one request, so the waits in flight can only be counted in the table. The places are items of
their own, so no item is hot: who wants to wait looks at a few that are spread over all, without taking any, and takes
one that is free under a condition. What it saw also says how crowded it is (docs/decisions/010).
"""

from dataclasses import dataclass
from typing import Final

from pynamodb.expressions.condition import Condition

from chalicelib.store import dynamo, tables
from chalicelib.store.dynamo import ConditionFailed, Dynamo
from chalicelib.store.tables import WaitRow

SAMPLE: Final = 8
"""Places looked at: four read units of eventually consistent reads."""
CROWDED: Final = 0.5
"""Share of taken places above which a wait gets shorter."""
TAKE_TRIES: Final = 2
LEASE_MARGIN: Final = 5.0
"""Seconds for the rest of the request; after that a place whose holder died is free again."""
_SK: Final = "-"


@dataclass(frozen=True, slots=True)
class Place:
    """A place that was taken, and the share of the wanted wait that may be waited in it."""

    number: int
    holder: str
    share: float


class WaitStore:
    """The places of one stage; `limit` is how many there are."""

    def __init__(self, store: Dynamo, *, limit: int) -> None:
        self._dynamo, self._limit = store, limit

    def take(self, holder: str, *, seconds: float, at: float, now: float) -> Place | None:
        """A place for a wait of at most `seconds`, None when there is none to be had; `at` in [0, 1) spreads the
        places looked at.
        """
        if self._limit <= 0:
            return None
        count = min(SAMPLE, self._limit)
        first = int(at * self._limit)
        numbers = [(first + step * self._limit // count) % self._limit for step in range(count)]
        rows = self._dynamo.batch_get(WaitRow, [(tables.wait_pk(n), _SK) for n in numbers], consistent=False)
        taken = {pk for (pk, _), row in rows.items() if row.until > now}
        free = [n for n in numbers if tables.wait_pk(n) not in taken]
        share = min(1.0, len(free) / count / (1 - CROWDED))
        for number in free[:TAKE_TRIES]:
            if self._put(number, holder, until=now + seconds + LEASE_MARGIN, now=now):
                return Place(number, holder, share)
        return None

    def leave(self, place: Place) -> None:
        """Free the place, if its lease was not over and somebody else has it."""
        row = WaitRow(tables.wait_pk(place.number), _SK)
        arguments = row.get_delete_kwargs_from_instance(condition=WaitRow.holder == place.holder)
        try:
            with dynamo.translated():
                self._dynamo.client.delete_item(**arguments)
        except ConditionFailed:
            return

    def _put(self, number: int, holder: str, *, until: float, now: float) -> bool:
        row = WaitRow(tables.wait_pk(number), _SK, holder=holder, until=until, expires_at=int(until) + 3600)
        free: Condition = WaitRow.pk.does_not_exist() | (WaitRow.until <= now)
        try:
            self._dynamo.put(row, free)
        except ConditionFailed:
            return False
        return True
