"""Keep some tests together in one process, and order the tests.

pytest-xdist 3.8 has groups for this (`xdist_group`), but pytest 9.2 does not let it set them. So every test counted as
alone, and each process that got one test of a group started a local system. The scheduler here groups by file.
"""

from typing import Any, Final

from xdist.scheduler.loadscope import LoadScopeScheduling

TOGETHER: Final = {
    # Tests with a whole local system, the slowest first. They wait more than they work, so others run meanwhile.
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
"""Files whose tests run in one process, with the name of their group. Groups start in this order."""
ALONE: Final = ("tests/e2e/", "tests/conformance/")
"""Other files in these folders are groups by themselves."""
ORDER: Final = {name: place for place, name in enumerate(dict.fromkeys(TOGETHER.values()))}


def file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def group_of(nodeid: str) -> str | None:
    """Return the group of a test, or None when it may run in any process."""
    file = file_of(nodeid)
    return TOGETHER.get(file, file if file.startswith(ALONE) else None)


def turn(nodeid: str) -> int:
    """Return a key to sort by: the groups of `TOGETHER` in their order, then other groups, then single tests."""
    group = group_of(nodeid)
    return len(ORDER) + 1 if group is None else ORDER.get(group, len(ORDER))


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """The scheduler. A group goes to one process as a whole, any other test to the next free process."""

    def __init__(self, config: Any, log: Any = None) -> None:
        config.option.loadscopereorder = False  # the order is that of the items, which are sorted by `turn`
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid) or nodeid
