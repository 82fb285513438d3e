"""Time and identifiers, injected so that tests own them."""

import secrets
import time
from typing import Final

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_TIME_DIGITS: Final = 9  # 26**9 milliseconds reach to the year 2142
_RANDOM_DIGITS: Final = 13  # 61 bits


class Clock:
    """The control plane's clock: every lease, deadline and grace period is measured by this one side (protocols:
    time).
    """

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, as Nomad's CreateTime and ModifyTime count."""
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def jitter(self) -> float:
        """A number between 0 and 1."""
        return secrets.randbelow(1_000_000) / 1_000_000

    def new_id(self) -> str:
        """An identifier that sorts by time and is made of letters only.

        Clients search error texts for status codes ("404" makes Terraform forget a volume), so no digit may be in it.
        """
        moment, digits = int(self.now() * 1000), []
        for _ in range(_TIME_DIGITS):
            moment, digit = divmod(moment, len(_LETTERS))
            digits.append(_LETTERS[digit])
        return "".join(reversed(digits)) + "".join(secrets.choice(_LETTERS) for _ in range(_RANDOM_DIGITS))
