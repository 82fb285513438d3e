"""Files of the bridge's state are opened without following links, and get their owner by descriptor."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from moorage.bridge.settings import BadSetting
from moorage.bridge.state import State
from moorage.files import write_whole
from moorage.mounts import paths
from moorage.mounts.journal import Entry, Journal, JournalTrouble, Stage, key_of

OTHER: int = 65534
"""The user of a bridge without root, where a command runs as root."""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of root's, beside the state folder."""
    path = tmp_path / "victim"
    path.write_text("root's")
    return path


@pytest.fixture
def journal(state: Path) -> Journal:
    journal = Journal(state)
    journal.open()
    return journal


def entry_at(target: Path, journal: Journal) -> Entry:
    return Entry(
        target=str(target), namespace="default", volume="data", allocation="a1", node="n1", mode="write",
        access_mode="", attachment_mode="", staging=str(journal.staging_of("default", "data")), lease=0, plugin="p",
        external_id="x", stage=Stage.WANTED,
    )  # fmt: skip


def lock(journal: Journal, key: str) -> None:
    with journal.try_lock(key):
        pass


LINKS: dict[str, tuple[str, Callable[[Journal, Entry], object]]] = {
    "lock": ("mounts/{key}.lock", lambda journal, entry: lock(journal, entry.key)),
    "entry that is read": ("mounts/{key}.json", lambda journal, entry: journal.get(entry.key)),
    "folder of staging": ("staging", lambda journal, entry: journal.make_staging(entry)),
}


@pytest.mark.parametrize("name", LINKS)
def test_a_link_in_the_journal_is_refused_and_leads_nowhere(
    journal: Journal, state: Path, victim: Path, tmp_path: Path, name: str
) -> None:
    link, use = LINKS[name]
    entry = entry_at(tmp_path / "data", journal)
    aim = victim.parent / "elsewhere" if name == "folder of staging" else victim
    if aim is not victim:
        aim.mkdir()
    (state / link.format(key=entry.key)).symlink_to(aim)
    with pytest.raises(JournalTrouble):
        use(journal, entry)
    assert victim.read_text() == "root's"
    assert aim is victim or list(aim.iterdir()) == []


def test_a_link_to_the_journals_folder_is_refused(state: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (state / "mounts").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(JournalTrouble):
        Journal(state).open()


def test_a_lock_that_is_another_name_of_a_file_is_refused(journal: Journal, state: Path, victim: Path) -> None:
    os.link(victim, state / "mounts" / "k.lock")
    with pytest.raises(JournalTrouble, match="has another name"):
        lock(journal, "k")
    assert victim.stat().st_nlink == 2


def test_a_pipe_in_the_place_of_a_lock_keeps_no_command_waiting(journal: Journal, state: Path) -> None:
    os.mkfifo(state / "mounts" / "k.lock")
    with pytest.raises(JournalTrouble, match="is no file"):
        lock(journal, "k")


@needs_root
def test_what_root_writes_belongs_to_the_bridges_user_and_nothing_else_does(
    state: Path, victim: Path, tmp_path: Path
) -> None:
    os.chown(state, OTHER, OTHER)
    journal = Journal(state)
    journal.open()
    entry = journal.put(entry_at(tmp_path / "data", journal))
    journal.make_staging(entry)
    (state / "mounts" / f"{key_of('/x')}.lock").symlink_to(victim)
    with pytest.raises(JournalTrouble):
        lock(journal, key_of("/x"))
    with journal.try_lock(entry.key) as held:
        assert held
        made = [state / "mounts", *(state / "mounts").glob(f"{entry.key}.*"), Path(entry.staging)]
        assert {path.lstat().st_uid for path in made} == {OTHER}
        assert len(made) == 4
    assert victim.stat().st_uid == 0


def test_the_bridges_lock_is_no_link(state: Path, victim: Path) -> None:
    (state / "lock").symlink_to(victim)
    with pytest.raises(BadSetting):
        State(state, "n1")
    assert victim.read_text() == "root's"


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(state: Path, victim: Path) -> None:
    (state / "node-id").symlink_to(victim)
    (state / ".node-id.tmp").symlink_to(victim)
    write_whole(state / "node-id", b"n1\n")
    assert victim.read_text() == "root's"
    assert (state / "node-id").read_text() == "n1\n"
    assert not (state / "node-id").is_symlink()


def test_a_folder_is_made_again_with_its_permissions_and_a_link_is_left_alone(tmp_path: Path, victim: Path) -> None:
    paths.restore_folder(str(tmp_path / "data"), 0o2750)
    assert (tmp_path / "data").stat().st_mode & 0o7777 == 0o2750
    victim.chmod(0o600)
    (tmp_path / "link").symlink_to(victim)
    paths.restore_folder(str(tmp_path / "link"), 0o777)
    assert victim.stat().st_mode & 0o777 == 0o600
