"""Blocking queries: wait until what was read may have changed, then read again (protocols, section 1).

Polls are eventually consistent (half a read unit each) and grow from 50 ms to 1 s, so an idle wait of 25 s costs
about 30 polls, 15 read units. The read that follows is a fresh one, strongly consistent: a wake-up that comes too
early costs nothing but that read.
"""

from collections.abc import Callable
from typing import Final

from chalicelib.domain.deadlines import WAIT_LIMIT
from chalicelib.service.deps import Deps

FIRST_POLL: Final = 0.05
LONGEST_POLL: Final = 1.0
POLL_GROWTH: Final = 1.3


def until_changed(deps: Deps, *, index: int, wait: float, current: Callable[[], int]) -> None:
    """Return when `current()` is above `index`, or after `wait` seconds (negative: the default), capped below the
    gateway's limit.

    Without an index, or with one that is already passed, it returns at once.
    """
    if index <= 0:
        return
    seconds = min(wait if wait >= 0 else deps.wait_seconds, deps.wait_seconds, WAIT_LIMIT)
    end, pause = deps.clock.monotonic() + seconds, FIRST_POLL
    while current() <= index:
        left = end - deps.clock.monotonic()
        if left <= 0:
            return
        deps.clock.sleep(min(pause, left))
        pause = min(pause * POLL_GROWTH, LONGEST_POLL)
