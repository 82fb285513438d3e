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
    "tests/e2e/test_audit.py": "audit",
    "tests/e2e/test_mount_as_root.py": "mount as root",
    # One system in this process for all.
    "tests/openapi/test_fuzz.py": "fuzz",
    # With other people's programs.
    "tests/conformance/test_soak_blocking.py": "soak",
    "tests/conformance/sanity/test_sanity.py": "sanity",
    "tests/conformance/python_nomad/test_python_nomad.py": "python-nomad",
    "tests/conformance/go_client/test_go_client.py": "go client",
    "tests/conformance/echo/test_echo.py": "echo",
    "tests/conformance/echo/test_descriptors.py": "echo",
    "tests/conformance/test_go_tables.py": "go tables",
    "tests/conformance/test_costs.py": "costs",
    "tests/conformance/test_toolchains.py": "toolchains",
}
"""Files whose tests run in one process, with the name of their group; groups start in this order."""
ORDER: Final = {name: place for place, name in enumerate(dict.fromkeys(TOGETHER.values()))}


def file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def turn(nodeid: str) -> int:
    """A key to sort by: groups in their order, then all that stands alone."""
    return ORDER.get(TOGETHER.get(file_of(nodeid), ""), len(ORDER))


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Groups whole, all others one by one to the process that is free."""

    def __init__(self, config: Any, log: Any = None) -> None:
        config.option.loadscopereorder = False  # the order is that of the items, which are sorted by `turn`
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER.get(file_of(nodeid), nodeid)
