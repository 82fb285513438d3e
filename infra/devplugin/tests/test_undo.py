"""The plugin undoes only what it did at a path, by what it recorded."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.devplugin.tests.node_parts import Machine
from moorage_devplugin.refusal import Refused

HERE = Path(__file__).parent


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine.make(tmp_path)


def refused(call: Callable[[], object], code: str) -> str:
    with pytest.raises(Refused) as caught:
        call()
    assert caught.value.code.name == code
    return caught.value.text


def test_an_unpublish_and_unstage_of_what_was_not_published_change_nothing(machine: Machine) -> None:
    link, folder, file = machine.root / "link", machine.root / "folder", machine.root / "file"
    link.symlink_to(machine.root)
    folder.mkdir()
    file.touch()
    for path in (link, folder, file, machine.root / "absent"):
        machine.unpublish(path)
        machine.unstage(path)
    assert {path.name for path in machine.root.iterdir()} == {"link", "folder", "file"}


def test_a_link_that_was_put_in_the_place_of_ours_stays(machine: Machine) -> None:
    target = machine.publish(machine.root / "data")
    target.unlink()
    target.symlink_to(machine.root)
    machine.unpublish(target)
    assert target.readlink() == machine.root
    assert machine.uses() == []


def test_a_folder_and_a_file_that_were_put_in_the_place_of_ours_stay_unless_the_plugin_made_them(
    machine: Machine,
) -> None:
    target = machine.root / "data"
    target.mkdir()
    machine.publish(target)
    target.unlink()
    target.mkdir()
    machine.unpublish(target)
    assert target.is_dir()
    machine.publish(target)
    target.unlink()
    target.touch()
    machine.unpublish(target)
    assert target.is_file()


def test_a_target_that_is_not_free_is_refused_and_stays(machine: Machine) -> None:
    link, folder, file = machine.root / "link", machine.root / "folder", machine.root / "file"
    link.symlink_to(machine.root / "nowhere")
    folder.mkdir()
    (folder / "precious").touch()
    file.write_text("precious")
    for path in (link, folder, file):
        assert "in the way" in refused(lambda path=path: machine.publish(path), "FAILED_PRECONDITION")  # type: ignore[misc]
        machine.unpublish(path)
    assert link.readlink() == machine.root / "nowhere"
    assert not (machine.root / "nowhere").exists()
    assert (folder / "precious").exists()
    assert file.read_text() == "precious"


def test_a_repeat_that_is_refused_keeps_the_record_of_the_first(machine: Machine) -> None:
    target = machine.publish(machine.root / "data")
    aim = target.readlink()
    target.unlink()
    target.write_text("in the way")
    refused(lambda: machine.publish(target), "FAILED_PRECONDITION")
    target.unlink()
    target.symlink_to(aim)
    machine.unpublish(target)
    assert not target.is_symlink()


def test_what_an_older_version_recorded_is_undone(machine: Machine) -> None:
    """Its records name neither the source nor whether the plugin made the target."""
    target = machine.publish(machine.root / "data")
    machine.make_records_older()
    machine.unpublish(target)
    assert not target.is_symlink()
    assert machine.uses() == []


def test_a_plugin_that_dies_before_it_records_how_undoes_its_link(machine: Machine) -> None:
    target = machine.publish(machine.root / "data")
    machine.forget_how()
    machine.unpublish(target)
    assert not target.is_symlink()


def test_with_mounts_as_root() -> None:
    """A user namespace makes any user root in it. Where the kernel forbids that, this fails and says so."""
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, str(HERE / "undoing_as_root.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "all is well\n"), done.stdout + done.stderr
