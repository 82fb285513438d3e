"""A program that a test runs as root of a mount namespace of its own: a whole local system, mounts that are real.

Argument: an empty folder. On a file system of its own, so that no flag of the machine's mounts forbids anything.
"""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from infra.local import private  # noqa: E402 - found by the line above
from tests.e2e.api import create, request, stored, wait_for  # noqa: E402
from tests.e2e.test_mount import Machine  # noqa: E402


def mounts_at(path: Path) -> list[str]:
    """Mount options of what is mounted exactly there, the last on top."""
    lines = [line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [fields[5] for fields in lines if fields[4] == str(path)]


def writes(path: Path) -> str:
    """The name of the error that writing a file there gives, "" if it works."""
    try:
        path.write_text("x")
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]
    return ""


def session(machine: Machine) -> None:
    """Mount, write, unmount; read-only; a folder that is there; a busy target; a reboot."""
    target = machine.root / "data"
    machine.run("mount", "data", target)
    (options,) = mounts_at(target)
    assert options.startswith("rw")
    assert writes(target / "letter") == ""
    machine.run("umount", "data")
    assert mounts_at(target) == []
    machine.check_clean("data")
    assert [path.name for path in stored(machine.system)[0].iterdir()] == ["letter"]

    target.mkdir(mode=0o750)
    machine.run("mount", "data", target, "--read-only")
    (options,) = mounts_at(target)
    assert options.startswith("ro")
    assert (target / "letter").read_text() == "x"
    assert writes(target / "letter") == "EROFS"
    machine.run("umount", target)
    assert (mounts_at(target), target.stat().st_mode & 0o777) == ([], 0o750)

    machine.run("mount", "data", target)
    with (target / "letter").open():
        busy = machine.run("umount", "data", "--wait", "3", expect=3)
        assert "repeat the command to go on, or see moorage ls" in busy.stderr, busy.stderr
        assert mounts_at(target)
    machine.run("umount", "data")
    assert mounts_at(target) == []

    machine.run("mount", "data", target, "--lease", "5", "--alloc", "a1")
    subprocess.run(["umount", str(target)], check=True)
    assert json.loads(machine.run("ls", "--json").stdout)[0]["OK"] is False
    machine.run("reconcile")
    assert len(mounts_at(target)) == 1
    assert (target / "letter").read_text() == "x"

    assert request(machine.system, "DELETE", "/v1/volume/csi/data/claim/a1").status == 200
    wait_for(lambda: machine.listed()[0]["Stage"] == "lost", seconds=30)
    assert mounts_at(target) == []
    machine.run("umount", "data")
    target.rmdir()
    machine.check_clean("data")


def machines_own_mount(machine: Machine) -> None:
    """A claim on a mount of the machine's is refused, and its release leaves the mount alone."""
    target = machine.root / "own"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(target)], check=True)
    (target / "pid").write_text("1")
    body = {"AllocationID": "a1", "NodeID": "local", "Mode": "write", "TargetPath": str(target)}
    refused = request(
        machine.system, "PUT", "/v1/volume/csi/data/claim", body | {"StagingPath": str(machine.root / "staging")}
    )
    assert "something is mounted or linked at" in refused.text, refused.text
    wait_for(lambda: machine.claims("data") == [], seconds=10)
    assert (len(mounts_at(target)), (target / "pid").read_text()) == (1, "1")
    subprocess.run(["umount", str(target)], check=True)
    target.rmdir()
    machine.check_clean("data")


def main(folder: Path) -> None:
    """Fails by an exception, or says that all is well."""
    assert os.geteuid() == 0
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)
    root = folder.resolve() / "mnt"
    root.mkdir()
    with private.running(
        folder / "system", PLUGIN_ARGS="--mounts bind", BRIDGE_ARGS=f"--mounts-below {root}"
    ) as system:
        assert create(system, "data").status == 200
        session(Machine(system, root))
        machines_own_mount(Machine(system, root))
    print("all is well")  # noqa: T201 - the test reads it


if __name__ == "__main__":
    main(Path(sys.argv[1]))
