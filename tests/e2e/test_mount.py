"""moorage mount on real parts: the control plane's worker mounts through the bridge, by links without root; and what is
left of a command that dies at each of its steps. test_mount_as_root.py has bind mounts.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from infra.local import certificates, private
from infra.local.settings import tool_environment
from moorage.cli import main
from tests.e2e.api import create, request, stored, wait_for
from tests.shared import Shared

pytestmark = [pytest.mark.e2e, pytest.mark.enable_socket, pytest.mark.timeout(600)]

HERE = Path(__file__).parent
DIES = str(HERE / "mounting.py")


@dataclass(frozen=True)
class Machine:
    """The machine of the system's bridge."""

    system: private.System
    root: Path

    @property
    def state(self) -> Path:
        return self.system.state / "bridge"

    def run(self, *arguments: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """A command as a person at the terminal runs it."""
        environment = tool_environment(MOORAGE_BRIDGE_STATE=str(self.state))
        command = [certificates.command("moorage"), *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
        return done

    def quickly(self, command: str, *arguments: object) -> str:
        """The same in this process, for tests that run many; what it printed."""
        done = CliRunner().invoke(main, [command, "--state", str(self.state), *map(str, arguments)])
        assert done.exit_code == 0, done.output
        return done.stdout

    def dies(self, step: str, *arguments: object) -> None:
        """The command, killed at `step`."""
        command = [sys.executable, DIES, str(self.state), step, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
        assert done.returncode == -signal.SIGKILL, done.stderr

    def listed(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.quickly("ls", "--json"))
        return found

    def claims(self, volume: str) -> list[str]:
        """Allocations that hold the volume."""
        return [claim["AllocationID"] for claim in request(self.system, "GET", f"/v1/volume/csi/{volume}/claims").json]

    def uses(self) -> list[Path]:
        """What the plugin has staged or published."""
        return list((self.system.plugin_root() / "state" / "uses").glob("*"))

    def check_clean(self, volume: str) -> None:
        """Nothing is mounted, claimed, staged, published or written down."""
        left = [*self.root.iterdir(), *(self.state / "mounts").iterdir(), *(self.state / "staging").iterdir()]
        left += (self.state / "uses").glob("*.json")
        assert left == []
        assert self.uses() == []
        assert self.claims(volume) == []

    def check_safe(self, volume: str, target: Path) -> None:
        """Never a mount without a claim, never a claim that the journal does not name."""
        shown = target.is_symlink()
        claims = self.claims(volume)
        assert claims or not target.is_symlink(), f"mounted without a claim (a moment ago: {shown})"
        named = [entry["AllocationID"] for entry in self.listed()]
        assert set(claims) <= set(named), "a claim that nobody knows"


@pytest.fixture
def system(shared: Shared) -> private.System:
    """Without root: the plugin makes links."""
    return shared.system


@pytest.fixture
def machine(system: private.System, tmp_path: Path) -> Machine:
    root = tmp_path.resolve() / "mnt"
    root.mkdir()
    return Machine(system, root)


@pytest.fixture
def volume(machine: Machine) -> Iterator[str]:
    assert create(machine.system, "data").status == 200
    yield "data"
    gone = request(machine.system, "DELETE", "/v1/volume/csi/data/delete")
    assert gone.status == 200, gone.text


def test_create_mount_write_snapshot_restore_mount_compare(machine: Machine, volume: str) -> None:
    first, second = machine.root / "first", machine.root / "second"
    assert machine.run("mount", volume, first).stdout == f"{first}\n"
    assert first.is_symlink()
    (first / "letter").write_text("dear reader")
    (claim,) = request(machine.system, "GET", f"/v1/volume/csi/{volume}/claims").json
    assert (claim["Published"], claim["TargetPath"], claim["LeaseSeconds"]) == (True, str(first), 120)
    assert "in use" in request(machine.system, "DELETE", f"/v1/volume/csi/{volume}/delete").text

    body = {"Snapshots": [{"SourceVolumeID": volume, "Name": "s"}]}
    snapshot_id = request(machine.system, "PUT", "/v1/volumes/snapshot", body).json["Snapshots"][0]["ID"]
    assert create(machine.system, "restored", SnapshotID=snapshot_id).status == 200
    (first / "letter").write_text("changed later")
    machine.run("mount", "restored", second)
    assert (second / "letter").read_text() == "dear reader"
    assert [(entry["Claim"], entry["OK"]) for entry in machine.listed()] == [("taken", True)] * 2

    machine.run("umount", first)
    machine.run("umount", "restored")
    machine.check_clean(volume)
    machine.check_clean("restored")
    assert request(machine.system, "DELETE", "/v1/volume/csi/restored/delete").status == 200
    query = f"plugin_id=directory&snapshot_id={snapshot_id}"
    assert request(machine.system, "DELETE", f"/v1/volumes/snapshot?{query}").status == 200
    assert [(path / "letter").read_text() for path in stored(machine.system)] == ["changed later"]


def test_a_block_volume_is_a_file_at_its_target(machine: Machine) -> None:
    capability = {"AccessMode": "single-node-writer", "AttachmentMode": "block-device"}
    made = create(machine.system, "raw", RequestedCapabilities=[capability], RequestedCapacityMin=4096)
    assert made.status == 200, made.text
    target = machine.root / "disk"
    machine.run("mount", "raw", target)
    assert target.is_file()
    with target.open("r+b") as disk:
        disk.write(b"boot")
    machine.run("umount", target)
    machine.check_clean("raw")
    assert request(machine.system, "DELETE", "/v1/volume/csi/raw/delete").status == 200


def test_a_volume_that_is_held_is_refused_and_nothing_is_left(machine: Machine, volume: str) -> None:
    machine.run("mount", volume, machine.root / "first")
    refused = machine.run("mount", volume, machine.root / "second", expect=1)
    assert "volume max claims reached" in refused.stderr
    assert [path.name for path in machine.root.iterdir()] == ["first"]
    assert len(machine.claims(volume)) == 1
    read_only = machine.run("mount", volume, machine.root / "first", "--read-only", expect=1)
    assert "unmount it first" in read_only.stderr
    machine.run("umount", volume)
    machine.check_clean(volume)


def test_the_plugins_refusal_is_told_and_nothing_is_left(machine: Machine, volume: str) -> None:
    """A link cannot be read-only: the plugin says so."""
    refused = machine.run("mount", volume, machine.root / "data", "--read-only", expect=1)
    assert "read-only needs a bind mount" in refused.stderr
    machine.check_clean(volume)


def mount(machine: Machine, step: str, target: Path) -> None:
    machine.dies(step, "mount", "data", target)


def umount(machine: Machine, step: str, target: Path) -> None:
    machine.quickly("mount", "data", target)
    (target / "kept").write_text("kept")
    machine.dies(step, "umount", target)


def reconcile(machine: Machine, step: str, target: Path) -> None:
    """After a reboot: the claim stands, and nothing is mounted."""
    machine.quickly("mount", "data", target)
    (target / "kept").write_text("kept")
    target.unlink()
    machine.dies(step, "reconcile")


def refused(machine: Machine, step: str, target: Path) -> None:
    """A mount that another claim forbids."""
    other = machine.root / "other"
    machine.quickly("mount", "data", other)
    machine.dies(step, "mount", "data", target)
    machine.quickly("umount", other)


Kill = tuple[Callable[[Machine, str, Path], None], str]
KILLS: list[Kill] = [
    *[(mount, step) for step in ("put:1", "ask claim", "claim", "put:2")],
    *[(umount, step) for step in ("put:1", "ask release", "release", "forget")],
    *[(reconcile, step) for step in ("put:1", "ask release", "release", "ask claim", "claim", "put:2")],
    *[(refused, step) for step in ("put:1", "put:2", "release", "forget")],
]


@pytest.mark.parametrize("how", ["repeat", "reconcile"])
@pytest.mark.parametrize(("kill", "step"), KILLS, ids=[f"{kill.__name__} dies at {step}" for kill, step in KILLS])
def test_what_a_command_leaves_that_dies_at_any_step_is_finished(
    machine: Machine, volume: str, kill: Callable[[Machine, str, Path], None], step: str, how: str
) -> None:
    target = machine.root / "data"
    kill(machine, step, target)
    machine.check_safe(volume, target)
    entries = machine.listed()
    if how == "reconcile":
        machine.quickly("reconcile")
    elif entries and entries[0]["Stage"] == "unmounting":
        machine.quickly("umount", target)
    elif entries or kill is mount:
        machine.quickly("mount", volume, target)
    machine.check_safe(volume, target)
    for entry in machine.listed():
        assert (entry["Stage"], entry["OK"]) == ("mounted", True)
        assert (target / "kept").is_file() == (kill is reconcile)
        machine.quickly("umount", target)
    machine.check_clean(volume)


def test_data_at_a_target_that_a_dead_command_left_is_not_covered(machine: Machine, volume: str) -> None:
    target = machine.root / "data"
    machine.dies("put:1", "mount", volume, target)
    target.mkdir()
    (target / "precious").write_text("data")
    for arguments in (("mount", volume, target), ("mount", volume, target)):
        refusal = machine.run(*arguments, expect=1)
        assert "is not empty" in refusal.stderr
    assert (target / "precious").read_text() == "data"
    (target / "precious").unlink()
    machine.run("mount", volume, target)
    machine.run("umount", volume)
    assert list(target.iterdir()) == []
    target.rmdir()
    machine.check_clean(volume)


def test_the_bridge_keeps_a_lease_and_gives_up_what_is_released(machine: Machine, volume: str) -> None:
    target = machine.root / "data"
    machine.run("mount", volume, target, "--lease", "5", "--alloc", "a1")
    path = f"/v1/volume/csi/{volume}/claim/a1"
    written = machine.state / "mounts"

    def renewed() -> float:
        (entry,) = written.glob("*.json")
        return float(json.loads(entry.read_text())["renewed_at"])

    before = renewed()
    wait_for(lambda: renewed() > before + 5, seconds=30)
    assert machine.listed()[0]["OK"]
    assert request(machine.system, "DELETE", path).status == 200
    wait_for(lambda: machine.listed()[0]["Stage"] == "lost", seconds=30)
    assert not target.is_symlink()
    log = (machine.system.state / "logs" / "bridge.log").read_text()
    assert "unmounting what is no longer ours" in log
    machine.run("reconcile")
    assert machine.listed()[0]["OK"]
    machine.run("umount", volume)
    machine.check_clean(volume)
