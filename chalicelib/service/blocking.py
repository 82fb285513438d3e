"""Blocking queries: wait until what was read may have changed, then read again (docs/lists-and-blocking.md).

Polls are eventually consistent (half a read unit each) and grow from 50 ms to 1 s. The read that follows is a fresh
one, strongly consistent: a wake-up that comes too early costs nothing but that read. A wait needs one of a bounded
number of places (store/waits.py); when they get few, waits get shorter, down to none. Who waits for the outcome of an
operation or an audit that somebody else began needs one, too.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from chalicelib.domain.deadlines import WAIT_LIMIT
from chalicelib.errors import StoreError
from chalicelib.service.deps import Deps
from chalicelib.store.waits import Place

FIRST_POLL: Final = 0.05
LONGEST_POLL: Final = 1.0
POLL_GROWTH: Final = 1.3


def until_changed(deps: Deps, *, index: int, wait: float, current: Callable[[], int]) -> None:
    """Return when `current()` is above `index`, or after `wait` seconds (negative: the default), capped below the
    gateway's limit, or earlier when too many wait.

    Without an index, or with one that is already passed, it returns at once.
    """
    seconds = min(wait if wait >= 0 else deps.wait_seconds, deps.wait_seconds, WAIT_LIMIT)
    if index <= 0 or seconds <= 0 or current() > index:
        return
    with placed(deps, seconds) as allowed:
        _poll(deps, index=index, seconds=allowed, current=current)


@contextmanager
def placed(deps: Deps, seconds: float) -> Iterator[float]:
    """A place to wait in for this block: for so long as there is room for, 0 when there is none."""
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
        left = end - deps.clock.monotonic()
        if left <= 0:
            return
        deps.clock.sleep(min(pause, left))
        pause = min(pause * POLL_GROWTH, LONGEST_POLL)


def _take(deps: Deps, seconds: float) -> Place | None:
    try:
        return deps.waits.take(deps.clock.new_id(), seconds=seconds, at=deps.clock.jitter(), now=deps.clock.now())
    except StoreError:
        return None  # a store that is busy needs no waiting readers: the read that follows says how it is


def _leave(deps: Deps, place: Place) -> None:
    try:
        deps.waits.leave(place)
    except StoreError:
        return  # the lease frees it; the answer must not fail for that
