"""Refuse calls of an earlier attempt once a later attempt of the same operation was seen.

A worker that is believed dead may still be running and send its call late.
"""

from collections import OrderedDict
from typing import Final

REMEMBERED: Final = 10_000


class Fence:
    """The highest attempt of each operation, for the operations seen last.

    It is in memory only, and a restart forgets it. The fence saves the plugin useless calls. What makes a late call
    harmless is that the opposite call waits until it can no longer land (docs/protocols.md, section 3).
    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._highest: OrderedDict[str, int] = OrderedDict()

    def admit(self, operation_id: str, attempt: int) -> int | None:
        """Return None if the attempt may be forwarded, or else the higher attempt that was seen."""
        # Taken out and put back, so that the operations seen longest ago come first and are forgotten first.
        highest = self._highest.pop(operation_id, attempt)
        self._highest[operation_id] = max(highest, attempt)
        while len(self._highest) > self._remembered:
            self._highest.popitem(last=False)
        # The same attempt passes again, because one attempt may make several calls.
        return highest if highest > attempt else None
