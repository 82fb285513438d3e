"""What is at a target path now, and whether a volume may be mounted there (CSI spec, NodePublishVolume, target_path).

The directory above must exist, the plugin makes the target itself; data that lies at the target is never covered.
"""

import os
import re
import stat
import sys
from pathlib import Path


class BadTarget(Exception):
    """Nothing can be mounted there; the text says why and what to do."""


def resolved(target: str) -> str:
    """The target as an absolute path without links above it; a link at its end stays. Raises BadTarget."""
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
    """How a target that a person names may stand in the journal; the directories above it may be gone by now."""
    path = Path(os.path.abspath(name))  # noqa: PTH100 - as in resolved()
    return {str(path), str(path.parent.resolve() / path.name)}


def sight(target: str) -> str:
    """What the target shows: `link …`, `mount …`, `device …`; "" when nothing is mounted or linked there."""
    path = Path(target)
    if path.is_symlink():
        return f"link {path.readlink()}"
    found = _mounted_at(target)
    if found:
        return f"mount {found}"
    try:
        status = path.lstat()
    except OSError:
        return ""
    return f"device {status.st_rdev}" if stat.S_ISBLK(status.st_mode) else ""


def obstacle(target: str, *, ours: bool) -> str:
    """Why nothing may be mounted there, and what to do; "" when it may.

    `ours`: the journal says that this target was free and is being mounted; what shows there is then our own mount.
    """
    if sight(target):
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
    """Permissions of the folder at the target, None when there is none."""
    try:
        status = Path(target).lstat()
    except OSError:
        return None
    return stat.S_IMODE(status.st_mode) if stat.S_ISDIR(status.st_mode) else None


def restore_folder(target: str, mode: int | None) -> None:
    """Make the empty folder again that was at the target: the plugin removed it (CSI spec, NodeUnpublishVolume)."""
    if mode is None or os.path.lexists(target):
        return
    path = Path(target)
    path.mkdir()
    path.chmod(mode)


def _mounted_at(target: str) -> str:
    """Device and root of what is mounted exactly there, a bind mount of the same file system too; "" if nothing is."""
    if sys.platform != "linux":
        return target if os.path.ismount(target) else ""
    found = ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")  # proc(5), /proc/pid/mountinfo: ID, parent, major:minor, root, mount point, ...
        if re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4]) == target:
            found = f"{fields[2]} {fields[3]}"  # the last one is on top
    return found
