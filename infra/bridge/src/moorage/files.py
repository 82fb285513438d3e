"""Read, write and lock small files by descriptor, so that no link leads to a file elsewhere.

A write is durable, and leaves the old content or the new one after a crash, never a part.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Folder:
    """An open folder. Its files are opened by its descriptor, and links among them are not followed.

    All methods raise OSError.
    """

    path: Path
    descriptor: int
    bequeaths: bool
    """Whether what root makes here gets the owner of the folder."""

    @classmethod
    @contextmanager
    def open(cls, path: Path, *, bequeaths: bool = False) -> Iterator[Self]:
        """Open the folder in this block. Links in `path` are followed."""
        descriptor = os.open(path, _FOLDER & ~os.O_NOFOLLOW)
        try:
            yield cls(path, descriptor, bequeaths)
        finally:
            os.close(descriptor)

    @contextmanager
    def folder(self, name: str, *, make: int | None = None) -> Iterator[Self]:
        """Open a folder in this folder in this block, and make it with the permissions `make` if it is not there."""
        made = False
        if make is not None:
            try:
                os.mkdir(name, 0o700, dir_fd=self.descriptor)
                made = True
            except FileExistsError:
                pass
        descriptor = os.open(name, _FOLDER, dir_fd=self.descriptor)
        try:
            if made and make is not None:
                self._bequeath(descriptor)
                os.fchmod(descriptor, make)
            yield type(self)(self.path / name, descriptor, self.bequeaths)
        finally:
            os.close(descriptor)

    def names(self) -> list[str]:
        """Return the names of all that is in the folder."""
        return [file.name for file in os.scandir(self.descriptor)]

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        with self._opened(name, os.O_RDONLY) as file:
            return file.read()

    def write(self, name: str, content: bytes, *, mode: int) -> None:
        """Replace the content of a file durably. The file has `mode` from its first byte on."""
        temporary = f".{name}.tmp"
        self.remove(temporary)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, mode, dir_fd=self.descriptor), "wb") as file:
            self._bequeath(file.fileno())
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        os.fsync(self.descriptor)

    def remove(self, name: str) -> None:
        """Remove a file or a link, if it is there."""
        try:
            os.unlink(name, dir_fd=self.descriptor)
        except FileNotFoundError:
            return

    def remove_empty(self, name: str) -> None:
        """Remove a folder, unless something is in it."""
        with self.folder(name) as folder:
            if folder.names():
                return
        os.rmdir(name, dir_fd=self.descriptor)

    def lock(self, name: str) -> IO[bytes] | None:
        """Make, open and lock a file. Return None when another process has it."""
        while True:
            file = self._opened(name, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The holder before may remove the file when it is done. A lock on a removed file excludes nothing.
                if (
                    os.fstat(file.fileno()).st_ino
                    == os.stat(name, dir_fd=self.descriptor, follow_symlinks=False).st_ino
                ):
                    self._bequeath(file.fileno())
                    return file
            except BlockingIOError:
                file.close()
                return None
            except FileNotFoundError:
                pass
            except BaseException:
                file.close()
                raise
            file.close()

    def _opened(self, name: str, flags: int) -> IO[bytes]:
        # Without O_NONBLOCK, a pipe in the place of the file would keep this process waiting.
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=self.descriptor)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, f"{name} is no file", str(self.path))
            if status.st_nlink > 1:
                raise OSError(errno.EMLINK, f"{name} has another name, which may be elsewhere", str(self.path))
            return os.fdopen(descriptor, "rb+" if flags & os.O_RDWR else "rb")
        except BaseException:
            os.close(descriptor)
            raise

    def _bequeath(self, descriptor: int) -> None:
        if self.bequeaths and os.geteuid() == 0:
            owner = os.fstat(self.descriptor)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def write_whole(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace the content of `path` durably, and make the folders above it. A link at `path` is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Folder.open(path.parent) as folder:
        folder.write(path.name, content, mode=mode)


def read_whole(path: Path) -> bytes:
    """Return the content of `path`. Raises OSError, for a link too."""
    with Folder.open(path.parent) as folder:
        return folder.read(path.name)
