"""A clock for tests: time passes only in a sleep, or when a test sets it."""

import itertools
from collections.abc import Callable

from chalicelib.clock import Clock


class FakeClock(Clock):
    """A clock that starts at a fixed moment. `sleep` adds the seconds and calls `on_sleep`, in which others work."""

    _ids = itertools.count()
    """One counter for all clocks, because the emulator remembers the tokens of transactions after their tables."""

    def __init__(self, moment: float = 1_800_000_000.0) -> None:
        self.moment = moment
        self.on_sleep: list[Callable[[], None]] = []

    def now(self) -> float:
        return self.moment

    def now_ns(self) -> int:
        return int(self.moment * 1e9)

    def monotonic(self) -> float:
        return self.moment

    def sleep(self, seconds: float) -> None:
        self.moment += seconds
        for action in self.on_sleep:
            action()

    def jitter(self) -> float:
        return 0.5

    def new_id(self) -> str:
        """Return an ID that sorts by time like a real one. It ends in a count, and a real one in random letters."""
        number, letters = next(self._ids), []
        for _ in range(6):
            number, digit = divmod(number, 26)
            letters.append(chr(97 + digit))
        return super().new_id()[:16] + "".join(reversed(letters))
