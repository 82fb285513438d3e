"""A path is followed name by name, and refused where others can put something else in a name's place."""

import grp
import os
from pathlib import Path

import pytest

from moorage.bridge.resolving import MOST_LINKS, UnsafePath, clean, resolve


@pytest.mark.parametrize(("path", "cleaned"), [("/a//b/./c/", "/a/b/c"), ("/a", "/a")])
def test_one_spelling_of_each_path(path: str, cleaned: str) -> None:
    assert clean(path) == cleaned


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path.resolve()


def test_links_above_are_followed_and_one_at_the_end_is_not(root: Path) -> None:
    (root / "a" / "b").mkdir(parents=True)
    (root / "relative").symlink_to("a/./b/..")
    (root / "absolute").symlink_to(root / "relative" / "b")
    (root / "a" / "b" / "end").symlink_to("/etc")
    assert resolve(f"{root}/absolute/end").path == f"{root}/a/b/end"
    assert resolve(f"{root}/relative/absent/below").path == f"{root}/a/absent/below"
    assert resolve(f"{root}/relative/absent").status is None


@pytest.mark.parametrize("aim", ["absent/../../etc", "loop", "file/x"])
def test_a_link_that_leads_nowhere_is_refused(root: Path, aim: str) -> None:
    (root / "file").touch()
    (root / "loop").symlink_to("loop")
    (root / "link").symlink_to(aim)
    with pytest.raises(UnsafePath):
        resolve(f"{root}/link/data")


def test_as_many_links_as_the_kernel_follows(root: Path) -> None:
    (root / "0").mkdir()
    for number in range(MOST_LINKS + 1):
        (root / str(number + 1)).symlink_to(str(number))
    assert resolve(f"{root}/{MOST_LINKS}/x").path == f"{root}/0/x"
    with pytest.raises(UnsafePath, match="too many links"):
        resolve(f"{root}/{MOST_LINKS + 1}/x")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders to other groups")
def test_a_group_of_others_is_others(root: Path) -> None:
    folder = root / "shared"
    folder.mkdir()
    folder.chmod(0o775)
    assert resolve(f"{folder}/data").path == f"{folder}/data", "root's own group"
    for group in (grp.getgrnam("daemon").gr_gid, 54321):
        os.chown(folder, 0, group)
        with pytest.raises(UnsafePath, match="others can write"):
            resolve(f"{folder}/data")
    folder.chmod(0o755)
    assert resolve(f"{folder}/data").path == f"{folder}/data"


@pytest.mark.skipif(os.geteuid() != 0, reason="makes another user's files")
def test_in_a_sticky_folder_only_what_others_own_can_be_replaced(root: Path) -> None:
    folder = root / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    (folder / "mine").mkdir()
    (folder / "theirs").mkdir()
    (folder / "link").symlink_to("mine")
    os.chown(folder / "theirs", 65534, 65534)
    os.chown(folder / "link", 65534, 65534, follow_symlinks=False)
    assert resolve(f"{folder}/mine/data").path == f"{folder}/mine/data"
    assert resolve(f"{folder}/mine").status is not None
    for path in ("theirs", "theirs/data", "link/data", "absent"):
        with pytest.raises(UnsafePath, match="redirect"):
            resolve(f"{folder}/{path}")
