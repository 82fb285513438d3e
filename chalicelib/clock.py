"""Time and identifiers. They are injected, so that tests control them."""

import secrets
import time
from typing import Final

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_TIME_DIGITS: Final = 9  # 26**9 milliseconds reach to the year 2142
_RANDOM_DIGITS: Final = 13  # 61 bits


class Clock:
    """The control plane's clock: it measures every lease, deadline and grace period (docs/protocols.md, section 5)."""

    def now(self) -> float:
        """Return the seconds since the epoch."""
        return time.time()

    def now_ns(self) -> int:
        """Return the nanoseconds since the epoch, the unit of Nomad's CreateTime and ModifyTime."""
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def jitter(self) -> float:
        """Return a random number in [0, 1)."""
        return secrets.randbelow(1_000_000) / 1_000_000

    def new_id(self) -> str:
        """Return a unique identifier that sorts by time and has 22 letters.

        It has no digits, since clients search error texts for status codes: a "404" makes Terraform forget a volume.
        """
        moment, digits = int(self.now() * 1000), []
        for _ in range(_TIME_DIGITS):
            moment, digit = divmod(moment, len(_LETTERS))
            digits.append(_LETTERS[digit])
        return "".join(reversed(digits)) + "".join(secrets.choice(_LETTERS) for _ in range(_RANDOM_DIGITS))
