"""Folders of this user alone. Other users of the machine may not read or replace what is in them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from infra.local.say import Trouble

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

FOR_OTHERS: Final = 0o077


def folder(path: Path) -> None:
    """Make the folder `path` with mode 0700. If it exists, check its owner and set the mode.

    Raises Trouble when another user owns it, when it is a link, and when it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as exc:
        raise Trouble(f"the folder {path} cannot be used: {exc.strerror}; choose another with MOORAGE_STATE") from exc
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise Trouble(f"the folder {path} belongs to another user: remove it, or choose another with MOORAGE_STATE")
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def close(path: Path, *, but: Collection[Path] = ()) -> None:
    """Take all rights of other users away from what is in `path`. Folders in `but` stay as they are.

    Links are not followed. Raises Trouble for a file of another user.
    """
    for parent, folders, files in os.walk(path):
        kept = [name for name in folders if _at(parent, name) not in map(str, but)]
        folders[:] = kept
        for name in (*kept, *files):
            _close_one(_at(parent, name))


def _at(parent: str, name: str) -> str:
    return os.path.join(parent, name)  # noqa: PTH118 - os.walk yields strings


def _close_one(path: str) -> None:
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode) or not status.st_mode & FOR_OTHERS:
            return
        os.chmod(path, stat.S_IMODE(status.st_mode) & ~FOR_OTHERS)  # noqa: PTH101
    except FileNotFoundError:  # a process that an earlier run left may still remove files
        return
    except PermissionError as exc:
        raise Trouble(
            f"{path} belongs to another user: remove it, or choose another folder with MOORAGE_STATE"
        ) from exc
