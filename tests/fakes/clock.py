"""A clock that tests own: time passes only when somebody sleeps or a test moves it."""

import itertools
from collections.abc import Callable

from chalicelib.clock import Clock


class FakeClock(Clock):
    """Starts at a fixed moment; `sleep` moves it on and calls `on_sleep`, where a test lets others work."""

    _ids = itertools.count()
    """One for all clocks: the emulator remembers the tokens of transactions, whatever became of their tables."""

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
        """Sorts by time like the real one; counts where the real one is random."""
        number, letters = next(self._ids), []
        for _ in range(6):
            number, digit = divmod(number, 26)
            letters.append(chr(97 + digit))
        return super().new_id()[:16] + "".join(reversed(letters))
