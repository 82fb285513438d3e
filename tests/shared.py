"""One whole local system for all tests of a group, started once in the process that runs the group.

tests/scheduling.py says which files are a group. A test takes the fixture `shared` (tests/conftest.py). It may kill
workers and set the plugin's faults, and must remove the volumes and snapshots that it made. Tests that end the system
or need other settings start one of their own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.local import environments, private
from tests.e2e.api import request

CALL_SECONDS: Final = 6
SHORT_CALLS: Final = ("CreateVolume", "NodePublishVolume")
"""RPCs with this deadline, so that a call of a dead worker is not waited for much longer."""


@dataclass(frozen=True)
class Shared:
    """The system, and the file of its plugin's faults."""

    system: private.System
    faults: Path

    def strike(self, *rules: str) -> None:
        """Set the plugin's faults from now on. Without rules it has none."""
        unfinished = self.faults.with_suffix(".unfinished")
        unfinished.write_text("\n".join(rules))
        unfinished.replace(self.faults)

    def check_empty(self) -> None:
        """Fail the test that left a volume or a snapshot, before the next test meets it."""
        kept = [p.name for part in ("volumes", "snapshots") for p in (self.system.plugin_root() / part).glob("*")]
        known = [v["ID"] for v in request(self.system, "GET", "/v1/volumes?type=csi&namespace=*").json]
        assert (kept, known) == ([], []), "this test left something in the shared system"


@contextmanager
def running(folder: Path) -> Iterator[Shared]:
    """Run the shared system, and yield it. Its plugin makes links instead of mounts, so it does not need root."""
    environments.ensure(environments.EMULATOR)
    faults = folder / "faults"
    faults.write_text("")
    deadlines = " ".join(f"--deadline directory:{rpc}={CALL_SECONDS}" for rpc in SHORT_CALLS)
    arguments = {"BRIDGE_ARGS": deadlines, "PLUGIN_ARGS": f"--mounts symlink --faults {faults}"}
    with private.running(folder / "system", **arguments) as system:
        yield Shared(system, faults)
