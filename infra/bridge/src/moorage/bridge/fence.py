"""Refuses a call of an earlier attempt once a later one of the same operation was seen (protocols: a zombie's call)."""

from collections import OrderedDict
from typing import Final

REMEMBERED: Final = 10_000


class Fence:
    """The highest attempt per operation, of the operations last seen. In memory: a new bridge has forwarded nothing."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._highest: OrderedDict[str, int] = OrderedDict()

    def admit(self, operation_id: str, attempt: int) -> int | None:
        """None if the attempt may go on, else the higher one that was seen."""
        highest = self._highest.pop(operation_id, attempt)
        self._highest[operation_id] = max(highest, attempt)
        while len(self._highest) > self._remembered:
            self._highest.popitem(last=False)
        return highest if highest > attempt else None
