"""Folders that belong to this user alone: other users of the machine may not read or replace what is in them."""

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
    """Make `path` a folder of mode 0700, or check that it is one's own and make it so.

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
    """Take every right of others away from what lies in `path`, links not followed; what is in `but` stays as it is."""
    for parent, folders, files in os.walk(path):
        kept = [name for name in folders if _at(parent, name) not in map(str, but)]
        folders[:] = kept
        for name in (*kept, *files):
            _close_one(_at(parent, name))


def _at(parent: str, name: str) -> str:
    return os.path.join(parent, name)  # noqa: PTH118 - os.walk speaks in strings


def _close_one(path: str) -> None:
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode) or not status.st_mode & FOR_OTHERS:
            return
        os.chmod(path, stat.S_IMODE(status.st_mode) & ~FOR_OTHERS)  # noqa: PTH101
    except FileNotFoundError:  # what an earlier run left behind may still be at work
        return
    except PermissionError as exc:
        raise Trouble(
            f"{path} belongs to another user: remove it, or choose another folder with MOORAGE_STATE"
        ) from exc
