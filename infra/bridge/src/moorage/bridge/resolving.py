"""Follow a path from the root directory, and refuse one that others can redirect.

A plugin runs as root and gets a path as text. Between a check and the plugin's call, the path can be changed by those
who can write to a folder on the way. So every name on it must be one that only root and the user of this process can
replace. Then what was resolved once stays true.
"""

import grp
import os
import pwd
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self

MOST_LINKS: Final = 40
"""As many as Linux follows (path_resolution(7))."""
_FOLDER: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class UnsafePath(Exception):
    """The path can be redirected by others, or cannot be followed. The text says where and what to do."""


@dataclass(frozen=True)
class Resolved:
    """A path without links above its last name."""

    path: str
    status: os.stat_result | None
    """What is there, which may be a link. None if nothing is."""


def clean(path: str) -> str:
    """Return an absolute path without empty names and `.`. Raises UnsafePath for a relative one, `..` and `/`."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    if not path.startswith("/") or ".." in names or "\0" in path or not names:
        raise UnsafePath(f"{path!r} is not an absolute path of a folder below / without ..")
    return "/" + "/".join(names)


def resolve(path: str) -> Resolved:
    """Follow a path that `clean` returned, but not a link that is its last name. Raises UnsafePath."""
    with _Walk.started() as walk:
        return walk.follow(path)


class _Walk:
    """The folders from the root directory to where the walk is, by descriptor."""

    def __init__(self) -> None:
        self._folders = [os.open("/", _FOLDER)]
        self._names: list[str] = []
        self._links = 0
        # In a user namespace, root may have another number (user_namespaces(7)). The root directory is root's.
        self._trusted = {os.fstat(self._folders[0]).st_uid, os.geteuid()}

    @classmethod
    @contextmanager
    def started(cls) -> Iterator[Self]:
        walk = cls()
        try:
            yield walk
        finally:
            for folder in walk._folders:
                os.close(folder)

    def follow(self, path: str) -> Resolved:
        """Return where the path leads. Raises UnsafePath."""
        rest = deque(path.strip("/").split("/"))
        while True:
            name = rest.popleft()
            if name == "..":  # of a link
                self._leave(len(self._names) - 1)
                continue
            where = self._path(name)
            try:
                status = os.stat(name, dir_fd=self._folders[-1], follow_symlinks=False)
                self._check(where, status)
                if not rest:
                    return Resolved(where, status)
                if stat.S_ISLNK(status.st_mode):
                    rest.extendleft(reversed(self._names_of_link(name, where)))
                else:
                    self._folders.append(os.open(name, _FOLDER, dir_fd=self._folders[-1]))
                    self._names.append(name)
            except FileNotFoundError as exc:
                if ".." in rest:
                    raise UnsafePath(f"{where}: {exc.strerror}") from exc
                self._check(where, None)
                return Resolved(self._path(name, *rest), None)
            except OSError as exc:
                raise UnsafePath(f"{where}: {exc.strerror}") from exc

    def _names_of_link(self, name: str, where: str) -> list[str]:
        self._links += 1
        if self._links > MOST_LINKS:
            raise UnsafePath(f"{where}: too many links")
        target = os.readlink(name, dir_fd=self._folders[-1])
        if target.startswith("/"):
            self._leave(0)
        return [part for part in target.split("/") if part not in ("", ".")]

    def _leave(self, depth: int) -> None:
        """Go back to the folder that has `depth` names above it."""
        depth = max(depth, 0)
        for folder in self._folders[depth + 1 :]:
            os.close(folder)
        del self._folders[depth + 1 :]
        del self._names[depth:]

    def _path(self, *names: str) -> str:
        return "/" + "/".join([*self._names, *names])

    def _check(self, where: str, entry: os.stat_result | None) -> None:
        """Raise UnsafePath if others can put something else at `where`. `entry` is what is there now."""
        above = os.fstat(self._folders[-1])
        folder = self._path()
        if above.st_uid not in self._trusted:
            raise UnsafePath(f"{folder} belongs to {_user(above.st_uid)}, who can redirect {where}: {_ADVICE}")
        if not _others_write(above):
            return
        # In a sticky folder, others can remove nothing but their own files.
        if above.st_mode & stat.S_ISVTX and entry is not None and entry.st_uid in self._trusted:
            return
        raise UnsafePath(f"others can write to {folder}, and so redirect {where}: {_ADVICE}")


_ADVICE: Final = "use a path below folders of root's that others cannot write to"


def _others_write(folder: os.stat_result) -> bool:
    if folder.st_mode & stat.S_IWOTH:
        return True
    return bool(folder.st_mode & stat.S_IWGRP) and not _is_private(folder.st_gid, folder.st_uid)


def _is_private(group: int, user: int) -> bool:
    """Return whether a group is the user's own, in which there are no others, as most Linux systems make them."""
    try:
        name, owner = grp.getgrgid(group), pwd.getpwuid(user)
    except KeyError:
        return False
    return name.gr_name == owner.pw_name and set(name.gr_mem) <= {owner.pw_name}


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
