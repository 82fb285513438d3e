"""Make a folder or file visible at another path: by a bind mount if this process may, or else a symbolic link."""

import ctypes
import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    """Make `source` visible at `target`, where nothing may be but an empty folder or file, and return how.

    Raises OSError, and ReadOnlyImpossible if it must be read-only and only a link can be made.
    """
    _require_free(target)
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
    _remove_empty(target)
    target.symlink_to(source)
    return "symlink"


def shows(source: Path, target: Path) -> bool:
    """Return whether `source` is visible at `target` now, by a mount or by a link."""
    if target.is_symlink():
        return target.readlink() == source
    try:
        return bool(mounted_at(target)) and source.samefile(target)
    except FileNotFoundError:
        return False


def hide(source: Path, target: Path, *, mounted: str, made: bool) -> None:
    """Undo `show`, and nothing else. Safe to repeat.

    `mounted` is what `mounted_at` returned after it. `made` says that nothing was at the target before.

    Raises OSError (EBUSY if it is in use, or if another mount is over it).
    """
    if target.is_symlink():
        if target.readlink() == source:
            target.unlink()
        return
    ours = {mounted, f"{mounted}//deleted"}  # the kernel's word for a source that was removed
    found = _mounts_at(target)
    while found and (found[-1] in ours or shows(source, target)):
        with _folder(target) as folder:
            _call("umount2", _within(folder, target.name), UMOUNT_NOFOLLOW)
        found = _mounts_at(target)
    if ours & set(found):
        raise OSError(errno.EBUSY, "another mount is over it")
    if made and not found:
        _remove_empty(target)


def mounted_at(path: Path) -> str:
    """Return device and root of what is mounted exactly there, also a bind mount of the same file system, or ""."""
    return next(reversed(_mounts_at(path)), "")


def _mounts_at(path: Path) -> list[str]:
    """Return device and root of all that is mounted exactly there, the last on top."""
    if sys.platform != "linux":
        return ["mount"] if path.is_mount() else []
    wanted = str(path.parent.resolve() / path.name)
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")  # proc(5), /proc/pid/mountinfo: ID, parent, major:minor, root, mount point, ...
        if re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4]) == wanted:
            found.append(f"{fields[2]} {fields[3]}")
    return found


def _require_free(target: Path) -> None:
    """Raise OSError if anything is at `target` but an empty folder or file."""
    if not os.path.lexists(target):
        return
    status = target.lstat()
    empty = stat.S_ISREG(status.st_mode) and status.st_size == 0
    empty = empty or (stat.S_ISDIR(status.st_mode) and not any(target.iterdir()))
    if mounted_at(target) or not empty:
        raise OSError(errno.EEXIST, "something is in the way: move it elsewhere and repeat the call", str(target))


def _remove_empty(target: Path) -> None:
    """Remove an empty folder or file. What has content stays."""
    with suppress(FileNotFoundError):
        status = target.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_size == 0:
            target.unlink()
        elif stat.S_ISDIR(status.st_mode) and not any(target.iterdir()):
            target.rmdir()


def _bind(source: Path, target: Path, *, readonly: bool) -> None:
    """Mount by descriptors, so that a link that is put at `target` meanwhile is not followed."""
    with _folder(target) as folder:
        made = _make_like(source, folder, target.name)
        try:
            with _opened(folder, target.name) as place:
                _call("mount", str(source).encode(), _within(place), None, MS_BIND, None)
            if readonly:
                # mount(2) ignores MS_RDONLY when it makes a bind mount, so a second call sets it.
                with _opened(folder, target.name) as place:
                    _call("mount", None, _within(place), None, MS_BIND | MS_REMOUNT | MS_RDONLY, None)
        except OSError:
            if shows(source, target):
                _call("umount2", _within(folder, target.name), UMOUNT_NOFOLLOW)
            if made:
                _remove_empty(target)
            raise


def _make_like(source: Path, folder: int, name: str) -> bool:
    """Make an empty folder or file as `source` is one, and return whether it was not there."""
    try:
        if source.is_dir():
            os.mkdir(name, mode=0o755, dir_fd=folder)
        else:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder))
    except FileExistsError:
        return False
    return True


@contextmanager
def _folder(target: Path) -> Iterator[int]:
    """Open the folder of `target` in this block."""
    descriptor = os.open(target.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _opened(folder: int, name: str) -> Iterator[int]:
    """Open what has that name in the folder, the mount on top of it if there is one, in this block."""
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _within(descriptor: int, *names: str) -> bytes:
    return "/".join([f"/proc/self/fd/{descriptor}", *names]).encode()


def _call(name: str, *arguments: bytes | int | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    converted = [ctypes.c_ulong(one) if isinstance(one, int) else one for one in arguments]
    if getattr(libc, name)(*converted) != 0:
        number = ctypes.get_errno()
        raise OSError(
            number, os.strerror(number), os.fsdecode(next(one for one in arguments[:2] if isinstance(one, bytes)))
        )
