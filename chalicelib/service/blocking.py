"""Blocking queries: wait until what was read may have changed (docs/lists-and-blocking.md).

Polls are eventually consistent (half a read unit each), and their interval grows from 50 ms to 1 s. The read that
follows the wait is strongly consistent, so a wait that ends too early costs that read and nothing else. A wait needs
one of a bounded number of places (store/waits.py). When few are free, waits are shorter, down to none. A wait for an
operation or an audit that another request began needs a place, too.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from chalicelib.domain.deadlines import WAIT_LIMIT
from chalicelib.errors import StoreError
from chalicelib.service.deps import Deps
from chalicelib.store.waits import WaitPlace

FIRST_POLL: Final = 0.05
LONGEST_POLL: Final = 1.0
POLL_GROWTH: Final = 1.3


def until_changed(deps: Deps, *, index: int, wait: float, current: Callable[[], int]) -> None:
    """Return when `current()` is above `index`, or after `wait` seconds (negative: the default).

    The wait is capped below the gateway's limit, and shorter when many requests wait. Without an index, or when
    `current()` is above it already, this returns at once.
    """
    seconds = min(wait if wait >= 0 else deps.wait_seconds, deps.wait_seconds, WAIT_LIMIT)
    if index <= 0 or seconds <= 0 or current() > index:
        return
    with reserve_wait(deps, seconds) as allowed:
        _poll(deps, index=index, seconds=allowed, current=current)


@contextmanager
def reserve_wait(deps: Deps, seconds: float) -> Iterator[float]:
    """Hold a place to wait in for this block, and yield how many seconds may be waited: 0 if no place is free."""
    place = _take(deps, seconds) if seconds > 0 else None
    if place is None:
        yield 0.0
        return
    try:
        yield seconds * place.share
    finally:
        _leave(deps, place)


def _poll(deps: Deps, *, index: int, seconds: float, current: Callable[[], int]) -> None:
    if seconds <= 0:
        return
    end, pause = deps.clock.monotonic() + seconds, FIRST_POLL
    while current() <= index:
        remaining = end - deps.clock.monotonic()
        if remaining <= 0:
            return
        deps.clock.sleep(min(pause, remaining))
        pause = min(pause * POLL_GROWTH, LONGEST_POLL)


def _take(deps: Deps, seconds: float) -> WaitPlace | None:
    try:
        return deps.waits.take(deps.clock.new_id(), seconds=seconds, at=deps.clock.jitter(), now=deps.clock.now())
    except StoreError:
        return None  # a busy store needs no waiting readers, and the read that follows reports its error


def _leave(deps: Deps, place: WaitPlace) -> None:
    try:
        deps.waits.leave(place)
    except StoreError:
        return  # the lease frees the place, and the answer must not fail for it
