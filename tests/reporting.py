"""The lines that tests add to the end of a run. `record_property` brings them here from the process of the test.

record_property("faults", [kind, side, deaths, violations])
record_property("explored", line)
record_property("measured", line)
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

FAULTS, EXPLORED, MEASURED = "faults", "explored", "measured"


def sections(reports: Iterable[Any]) -> Mapping[str, list[str]]:
    """Return the lines by title, without those of tests that did not run."""
    told = [pair for report in reports for pair in getattr(report, "user_properties", ())]
    deaths, violations = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for kind, side, died, found in (value for name, value in told if name == FAULTS):
        deaths[kind, side] += died
        violations[kind, side] += found
    table = [
        f"{kind:16} {side:8} {count:4} deaths {violations[kind, side]:4} violations"
        for (kind, side), count in sorted(deaths.items())
    ]
    explored = sorted(value for name, value in told if name == EXPLORED)
    measured = [value for name, value in told if name == MEASURED]
    titled = (("fault table", table), ("explored", explored), ("measured", measured))
    return {title: lines for title, lines in titled if lines}
