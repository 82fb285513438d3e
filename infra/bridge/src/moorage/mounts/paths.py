"""What is at a target path now, and whether a volume may be mounted there (CSI spec, NodePublishVolume, target_path).

The directory above must exist, and the plugin makes the target itself. A mount never hides data at the target.
"""

import os
import re
import stat
import sys
from pathlib import Path

from moorage.files import Folder


class BadTarget(Exception):
    """Nothing can be mounted there. The text says why and what to do."""


def resolve_target(target: str) -> str:
    """Return the target as an absolute path without links above it. A link at its end stays. Raises BadTarget."""
    path = Path(os.path.abspath(target))  # noqa: PTH100 - resolve() would follow a link at the end
    if path == path.parent:
        raise BadTarget(f"{target} is the root directory: give a directory of its own")
    try:
        parent = path.parent.resolve(strict=True)
    except FileNotFoundError as exc:
        raise BadTarget(f"{path.parent} does not exist: make it first (mkdir -p {path.parent})") from exc
    except OSError as exc:
        raise BadTarget(f"{path.parent}: {exc.strerror}") from exc
    if not parent.is_dir():
        raise BadTarget(f"{path.parent} is not a directory")
    return str(parent / path.name)


def spellings(name: str) -> set[str]:
    """Return the ways in which the journal may spell a target that a person names.

    It need not exist, nor the directories above it.
    """
    path = Path(os.path.abspath(name))  # noqa: PTH100 - as in resolve_target()
    return {str(path), str(path.parent.resolve() / path.name)}


def mount_at(target: str) -> str:
    """Return what is at the target: `link …`, `mount …`, `device …`, or "" when nothing is mounted or linked there."""
    path = Path(target)
    if path.is_symlink():
        return f"link {path.readlink()}"
    found = _mount_entry(target)
    if found:
        return f"mount {found}"
    try:
        status = path.lstat()
    except OSError:
        return ""
    return f"device {status.st_rdev}" if stat.S_ISBLK(status.st_mode) else ""


def obstacle(target: str, *, ours: bool) -> str:
    """Return why nothing may be mounted there and what to do about it, or "" if it may.

    `ours` says that the journal has the target: it was free then, so what is mounted there now is our own.
    """
    if mount_at(target):
        return "" if ours else f"something is mounted or linked at {target} already: unmount it, or use another target"
    path = Path(target)
    try:
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):
            left_over = ours and stat.S_ISREG(status.st_mode) and status.st_size == 0  # a block volume's mount point
            return "" if left_over else f"{target} is a file: move it away, or use another target"
        with os.scandir(path) as files:
            first = next((file.name for file in files), None)
    except FileNotFoundError:
        return ""
    except OSError as exc:
        return f"{target}: {exc.strerror}"
    if first is None:
        return ""
    return f"{target} is not empty (it has {first!r}) and a volume would hide that: move it away, or use another target"


def folder_mode(target: str) -> int | None:
    """Return the permissions of the folder at the target, or None if there is none."""
    try:
        status = Path(target).lstat()
    except OSError:
        return None
    return stat.S_IMODE(status.st_mode) if stat.S_ISDIR(status.st_mode) else None


def restore_folder(target: str, mode: int | None) -> None:
    """Make the empty folder at the target again, which the plugin removed (CSI spec, NodeUnpublishVolume)."""
    path = Path(target)
    if mode is None or os.path.lexists(path):
        return
    with Folder.open(path.parent) as above, above.folder(path.name, make=mode):
        return


def mount_points() -> set[str]:
    """Return the paths at which anything is mounted. Empty on systems without /proc."""
    return {point for point, _ in _mounts()}


def _mount_entry(target: str) -> str:
    """Return device and root of what is mounted exactly there, bind mounts included, or "".

    os.path.ismount() does not see a bind mount of the same file system.
    """
    if sys.platform != "linux":
        return target if os.path.ismount(target) else ""
    return next((source for point, source in reversed(_mounts()) if point == target), "")  # the last one is on top


def _mounts() -> list[tuple[str, str]]:
    """Return each mount point with device and root of what is mounted there."""
    if sys.platform != "linux":
        return []
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")  # proc(5), /proc/pid/mountinfo: ID, parent, major:minor, root, mount point, ...
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4])
        found.append((point, f"{fields[2]} {fields[3]}"))
    return found
