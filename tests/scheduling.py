"""Which tests stay in one process, and in which order processes take them.

pytest-xdist 3.8 has groups for this (`xdist_group`), which pytest 9.2 does not let it set: every test counted as alone,
and a local system was started in each process that got one of its tests. So the scheduler here goes by files.
"""

from typing import Any, Final

from xdist.scheduler.loadscope import LoadScopeScheduling

TOGETHER: Final = {
    # With a whole local system, the slowest first: they wait more than they work, and the rest fills the time.
    "tests/e2e/test_kills.py": "kills",
    "tests/e2e/test_volumes.py": "shared system, volumes",
    "tests/e2e/test_claims.py": "shared system, volumes",
    "tests/e2e/test_mount.py": "shared system, mounts",
    "tests/e2e/test_attach.py": "shared system, mounts",
    "tests/clients/test_page.py": "shared system, mounts",
    "tests/infra/test_system.py": "system",
    "tests/e2e/test_replay.py": "replay",
    # One system in this process for all.
    "tests/openapi/test_fuzz.py": "fuzz",
    # One long test each.
    "tests/conformance/test_costs.py": "costs",
    "tests/property/test_claim_system.py": "claims in any order",
    # The same modules are fetched and compiled once for all.
    "tests/conformance/sanity/test_sanity.py": "go",
    "tests/conformance/echo/test_echo.py": "go",
    "tests/conformance/echo/test_descriptors.py": "go",
    "tests/conformance/go_client/test_go_client.py": "go",
    "tests/conformance/test_go_tables.py": "go",
}
"""Files whose tests run in one process, with the name of their group; groups start in this order."""
ALONE: Final = ("tests/e2e/", "tests/conformance/")
"""Other files in these folders are groups by themselves."""
ORDER: Final = {name: place for place, name in enumerate(dict.fromkeys(TOGETHER.values()))}


def file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def group_of(nodeid: str) -> str | None:
    """The group of a test; None when it may run in any process."""
    file = file_of(nodeid)
    return TOGETHER.get(file, file if file.startswith(ALONE) else None)


def turn(nodeid: str) -> int:
    """A key to sort by: the groups of `TOGETHER` in their order, other groups, then all that stands alone."""
    group = group_of(nodeid)
    return len(ORDER) + 1 if group is None else ORDER.get(group, len(ORDER))


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Groups whole, all others one by one to the process that is free."""

    def __init__(self, config: Any, log: Any = None) -> None:
        config.option.loadscopereorder = False  # the order is that of the items, which are sorted by `turn`
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid) or nodeid
