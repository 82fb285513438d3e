"""The local system's only clock."""

import time


def now() -> float:
    """Return the time in seconds since the epoch."""
    return time.time()


def monotonic() -> float:
    """Return seconds of a clock that never goes back."""
    return time.monotonic()


def sleep(seconds: float) -> None:
    """Pause this thread for `seconds`."""
    time.sleep(seconds)
