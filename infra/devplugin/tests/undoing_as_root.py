"""A program that a test runs as root of a mount namespace of its own: the directory plugin with bind mounts."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from infra.devplugin.tests.node_parts import Machine
from moorage_devplugin.refusal import Refused


def mounts_at(path: Path) -> int:
    """How many mounts are stacked exactly there."""
    return sum(line.split(" ")[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def refused(call: Callable[[], object]) -> str:
    """The text of the plugin's refusal, "" if it does the call."""
    try:
        call()
    except Refused as exc:
        return exc.text
    return ""


def session(machine: Machine, data: Path) -> None:
    """A mount of others at the target, over ours, under ours."""
    target = machine.root / "data"

    target.mkdir()
    mount("--bind", data, target)
    machine.unpublish(target)
    assert mounts_at(target) == 1
    assert "in the way" in refused(lambda: machine.publish(target))
    machine.unpublish(target)
    assert mounts_at(target) == 1
    subprocess.run(["umount", str(target)], check=True)

    machine.publish(target)
    machine.publish(target)
    assert mounts_at(target) == 1
    mount("--bind", data, target)
    assert "another mount is over it" in refused(lambda: machine.unpublish(target))
    assert mounts_at(target) == 2
    subprocess.run(["umount", str(target)], check=True)
    machine.unpublish(target)
    assert (mounts_at(target), target.is_dir()) == (0, True), "the folder was there before"
    target.rmdir()

    machine.publish(target)
    machine.forget_how()
    machine.unpublish(target)
    assert (mounts_at(target), target.exists()) == (0, False), "the plugin made the folder"

    machine.publish(target)
    machine.make_records_older()
    machine.unpublish(target)
    assert (mounts_at(target), target.exists()) == (0, False)

    machine.publish(target)
    machine.remove_data()
    machine.unpublish(target)
    assert (mounts_at(target), target.exists()) == (0, False)


def through_a_link(machine: Machine) -> None:
    """The kernel names the path without the link."""
    target = machine.root / "data"
    linked = machine.root.parent / "linked"
    linked.symlink_to(machine.root)
    machine.publish(linked / "data")
    assert mounts_at(target) == 1
    machine.unpublish(linked / "data")
    assert mounts_at(target) == 0


def main() -> None:
    """Fails by an exception, or says that all is well."""
    assert os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        mount("-t", "tmpfs", "tmpfs", folder)
        (folder / "others").mkdir()
        (folder / "a").mkdir()
        session(Machine.make(folder / "a", "bind"), folder / "others")
        (folder / "b").mkdir()
        through_a_link(Machine.make(folder / "b", "bind"))
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    print("all is well")  # noqa: T201 - the test reads it


if __name__ == "__main__":
    main()
