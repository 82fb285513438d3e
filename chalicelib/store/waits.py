"""Places for blocking queries, which bound how many wait at once. Each place is an item with a lease.

One container serves one request, so waits in flight can only be counted in a table. Each place is an item of its own,
so no item is hot. A request that wants to wait reads a sample of the places and takes a free one under a condition. The
sample also measures how crowded the places are (docs/decisions/010).
"""

from dataclasses import dataclass
from typing import Final

from pynamodb.expressions.condition import Condition

from chalicelib.store import dynamo, tables
from chalicelib.store.dynamo import ConditionFailed, Dynamo
from chalicelib.store.tables import WaitRow

SAMPLE: Final = 8
"""Places in a sample: four read units of eventually consistent reads."""
CROWDED: Final = 0.5
"""Share of taken places above which a wait gets shorter."""
TAKE_TRIES: Final = 2
LEASE_MARGIN: Final = 5.0
"""Seconds for the rest of the request. After them the place of a request that died is free again."""
_SK: Final = "-"


@dataclass(frozen=True, slots=True)
class WaitPlace:
    """A place that was taken, and the share of the requested time that may be waited in it."""

    number: int
    holder: str
    share: float


class WaitStore:
    """The places of one stage. `limit` is how many there are."""

    def __init__(self, store: Dynamo, *, limit: int) -> None:
        self._dynamo, self._limit = store, limit

    def take(self, holder: str, *, seconds: float, at: float, now: float) -> WaitPlace | None:
        """Take a place for a wait of at most `seconds`, and return None if there is none in the sample.

        `at`, in [0, 1), is where the sample begins.
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
                return WaitPlace(number, holder, share)
        return None

    def leave(self, place: WaitPlace) -> None:
        """Free the place, unless its lease ended and another request has taken it."""
        row = WaitRow(tables.wait_pk(place.number), _SK)
        arguments = row.get_delete_kwargs_from_instance(condition=WaitRow.holder == place.holder)
        try:
            with dynamo.translate_errors():
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
