"""Counts what the fault table tried and found, for the end of a test run (tests/operations/conftest.py prints it)."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass
class Table:
    """Deaths tried, and violations found, by kind and side."""

    deaths: Counter[tuple[str, str]] = field(default_factory=Counter)
    violations: Counter[tuple[str, str]] = field(default_factory=Counter)

    def count(self, kind: str, side: str, died: bool, left: Sequence[str]) -> None:
        self.deaths[kind, side] += died
        self.violations[kind, side] += len(left)

    def lines(self) -> Iterator[str]:
        """The table as text; nothing when nothing was tried."""
        for (kind, side), deaths in sorted(self.deaths.items()):
            yield f"{kind:16} {side:8} {deaths:4} deaths {self.violations[kind, side]:4} violations"


TABLE = Table()
