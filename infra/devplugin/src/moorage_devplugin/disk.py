"""Write so that a kill at any moment leaves either the old or the new, and copy without following links."""

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

Reached = Callable[[str], None]
FICLONE: Final = 0x40049409
"""The ioctl of Linux by which two files share their blocks (XFS, Btrfs)."""


def write_whole(path: Path, text: str, reached: Reached) -> None:
    """Replace the content of `path` durably. After a crash it has the old content or the new, never a part."""
    temporary = path.with_name(f"{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    reached("write-temporary")
    temporary.replace(path)
    sync_folder(path.parent)
    reached("write-renamed")


def sync_folder(folder: Path) -> None:
    """Make what was created, renamed or removed in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move(source: Path, target: Path) -> None:
    """Rename durably. Raises FileExistsError if something is in the way."""
    require_absent(target)
    source.rename(target)
    sync_folder(target.parent)
    sync_folder(source.parent)


def require_absent(path: Path) -> None:
    """Raise FileExistsError if anything has this name, also a dangling link."""
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, "something is in the way: move it elsewhere and repeat the call", str(path))


def remove(path: Path) -> None:
    """Remove a file or a tree, if it is there. Links are removed, not followed."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    elif path.exists():
        shutil.rmtree(path)


def is_plain_folder(path: Path) -> bool:
    """Return whether `path` itself is a folder, not a link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder durably: modes, owners, times, extended attributes, links as links, holes as holes.

    Sockets are left out, since they are of no use without their process. The copy may have a part of what is written
    while it is made, as after a crash.
    """
    target.mkdir(mode=0o700)
    with os.scandir(source) as entries:
        for entry in entries:
            _copy_entry(Path(entry.path), target / entry.name)
    _copy_marks(source, target)
    sync_folder(target)


def usage(folder: Path) -> tuple[int, int]:
    """Return the bytes allocated and the number of files below `folder`. Links are not followed."""
    allocated = files = 0
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            try:
                status = Path(parent, name).lstat()
            except FileNotFoundError:  # removed since the folder was read
                continue
            allocated += status.st_blocks * 512
            files += 1
    return allocated, files


def _copy_entry(source: Path, target: Path) -> None:
    mode = source.lstat().st_mode
    if stat.S_ISDIR(mode):
        copy_tree(source, target)
    elif stat.S_ISLNK(mode):
        target.symlink_to(source.readlink())
        _copy_marks(source, target)
    elif stat.S_ISREG(mode):
        _copy_file(source, target)
        _copy_marks(source, target)
    elif not stat.S_ISSOCK(mode):
        os.mknod(target, mode, source.lstat().st_rdev)
        _copy_marks(source, target)


def _copy_file(source: Path, target: Path) -> None:
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            if not _share_blocks(reading, writing):
                _copy_data(reading, writing)
            os.fsync(writing)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _share_blocks(reading: int, writing: int) -> bool:
    try:
        fcntl.ioctl(writing, FICLONE, reading)
    except OSError:
        return False
    return True


def _copy_data(reading: int, writing: int) -> None:
    """Copy only where there is data, so that a sparse file stays sparse."""
    size = os.fstat(reading).st_size
    start = 0
    while start < size:
        try:
            start = os.lseek(reading, start, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # nothing but a hole up to the end
                break
            raise
        end = os.lseek(reading, start, os.SEEK_HOLE)
        if not _copy_extent(reading, writing, start, end):
            break
        start = end
    os.ftruncate(writing, size)


def _copy_extent(reading: int, writing: int, start: int, end: int) -> bool:
    """Copy an extent, and return whether all of it was still there. A file may shrink while it is copied."""
    os.lseek(reading, start, os.SEEK_SET)
    os.lseek(writing, start, os.SEEK_SET)
    while start < end:
        data = os.read(reading, min(1 << 20, end - start))
        if not data:
            return False
        start += _write_all(writing, data)
    return True


def _write_all(descriptor: int, data: bytes) -> int:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    return len(data)


def _copy_marks(source: Path, target: Path) -> None:
    status = source.lstat()
    if os.geteuid() == 0:
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    shutil.copystat(source, target, follow_symlinks=False)
