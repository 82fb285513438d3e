"""Make a folder or file visible at another path: by a bind mount if this process may, or else a symbolic link."""

import ctypes
import errno
import os
import re
import sys
from pathlib import Path
from typing import Final, Literal

MountKind = Literal["bind", "symlink"]
MountOption = Literal["auto", "bind", "symlink"]
MS_RDONLY: Final = 1
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
UMOUNT_NOFOLLOW: Final = 8
_MAY_NOT: Final = (errno.EPERM, errno.EACCES, errno.ENOSYS)


class ReadOnlyImpossible(Exception):
    """A symbolic link cannot be read-only."""


def show(source: Path, target: Path, *, option: MountOption, readonly: bool) -> MountKind:
    """Make `source` visible at `target`, and return how.

    Raises OSError, and ReadOnlyImpossible if it must be read-only and only a link can be made.
    """
    if option != "symlink" and sys.platform == "linux":
        try:
            _bind(source, target, readonly=readonly)
        except OSError as exc:
            if option == "bind" or exc.errno not in _MAY_NOT:
                raise
        else:
            return "bind"
    if readonly:
        raise ReadOnlyImpossible
    if target.is_dir() and not target.is_symlink():
        target.rmdir()
    elif target.is_file() and not target.is_symlink() and target.stat().st_size == 0:
        target.unlink()
    target.symlink_to(source)
    return "symlink"


def shows(source: Path, target: Path) -> bool:
    """Return whether `source` is visible at `target` now, by a mount or by a link."""
    if target.is_symlink():
        return target.readlink() == source
    try:
        return is_mount(target) and source.samefile(target)
    except FileNotFoundError:
        return False


def hide(target: Path) -> None:
    """Undo `show`, and remove what is left at `target` if it is empty. Safe to repeat.

    Raises OSError (EBUSY if it is in use).
    """
    while is_mount(target):
        _call("umount2", str(target).encode(), UMOUNT_NOFOLLOW)
    if target.is_symlink() or (target.is_file() and target.stat().st_size == 0):
        target.unlink()
    elif target.is_dir():
        target.rmdir()


def is_mount(path: Path) -> bool:
    """Return whether anything is mounted exactly there, also a bind mount of the same file system."""
    if sys.platform != "linux":
        return path.is_mount()
    wanted = str(path)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), line.split(" ")[4]) == wanted:
            return True
    return False


def _bind(source: Path, target: Path, *, readonly: bool) -> None:
    made = not target.exists()
    if made and source.is_dir():
        target.mkdir(mode=0o755)
    elif made:
        target.touch(mode=0o600)
    try:
        _call("mount", str(source).encode(), str(target).encode(), None, MS_BIND, None)
        if readonly:
            # mount(2) ignores MS_RDONLY when it makes a bind mount, so a second call sets it.
            _call("mount", None, str(target).encode(), None, MS_BIND | MS_REMOUNT | MS_RDONLY, None)
    except OSError:
        if is_mount(target):
            _call("umount2", str(target).encode(), UMOUNT_NOFOLLOW)
        if made:
            target.rmdir() if target.is_dir() else target.unlink()
        raise


def _call(name: str, *arguments: bytes | int | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    converted = [ctypes.c_ulong(one) if isinstance(one, int) else one for one in arguments]
    if getattr(libc, name)(*converted) != 0:
        number = ctypes.get_errno()
        raise OSError(
            number, os.strerror(number), os.fsdecode(next(one for one in arguments[:2] if isinstance(one, bytes)))
        )
