"""Folders of one's own: closed to others in every case, and never another user's."""

import json
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.local import own, rootkey
from infra.local.say import Trouble

ANOTHER_USER = 65534


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    own.folder(tmp_path / "new" / "deep")
    assert mode(tmp_path / "new" / "deep") == 0o700


def test_a_folder_that_was_open_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    own.folder(folder)
    assert mode(folder) == 0o700


def test_a_link_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(Trouble, match=f"{name} cannot be used"):
            own.folder(tmp_path / name)
    with pytest.raises(Trouble, match="cannot be used"):
        own.folder(tmp_path / "file" / "below")
    with pytest.raises(Trouble, match="cannot be used"):
        own.folder(Path("/proc/moorage"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, ANOTHER_USER, ANOTHER_USER)
    with pytest.raises(Trouble, match="belongs to another user"):
        own.folder(folder)


def test_everything_in_a_folder_is_closed_but_what_is_left_out(tmp_path: Path) -> None:
    for name in ("logs", "directory"):
        folder = tmp_path / name
        folder.mkdir(mode=0o755)
        (folder / "file").write_text("")
        (folder / "file").chmod(0o644)
        (folder / "program").write_text("")
        (folder / "program").chmod(0o755)
    outside = tmp_path.with_name("outside")
    outside.write_text("")
    outside.chmod(0o644)
    (tmp_path / "logs" / "link").symlink_to(outside)
    own.close(tmp_path, but=[tmp_path / "directory"])
    assert [mode(tmp_path / "logs" / name) for name in ("file", "program")] == [0o600, 0o700]
    assert mode(tmp_path / "logs") == 0o700
    assert [mode(tmp_path / "directory" / name) for name in ("file", "program")] == [0o644, 0o755]
    assert mode(outside) == 0o644


def test_files_may_come_and_go_while_a_folder_is_closed(tmp_path: Path) -> None:
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            for number in range(50):
                (tmp_path / str(number)).write_text("")
            for number in range(50):
                (tmp_path / str(number)).unlink()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(200):
            own.close(tmp_path)
    finally:
        over.set()
        thread.join()


def test_a_key_is_whole_from_its_first_moment_on(tmp_path: Path) -> None:
    """A kill between its making and its writing would leave a folder that cannot be started any more."""
    for number in range(30):
        with ThreadPoolExecutor(8) as pool:
            found = set(pool.map(rootkey.load_or_make, [tmp_path / f"{number}.json"] * 8))
        assert len(found) == 1
    assert len(list(tmp_path.iterdir())) == 30


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    made = rootkey.load_or_make(file)
    assert mode(file) == 0o600
    assert rootkey.load_or_make(file) == made
    assert rootkey.load_or_make(tmp_path / "another.json") != made
    assert made.access_key_id.startswith("AKIA")
    assert len(made.access_key_id) == 20
    assert len(made.secret) == 40


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"secret": "x"})])
def test_a_key_that_cannot_be_read_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "key.json").write_text(content)
    with pytest.raises(Trouble, match="holds no access key"):
        rootkey.load_or_make(tmp_path / "key.json")
