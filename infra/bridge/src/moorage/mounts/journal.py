"""What is to be mounted on this machine, one file per target in the bridge's state folder.

An entry is written, whole and durably, before the step that it names. So the allocation ID of a claim is known here
before the claim is taken, and every crash leaves something that a later command can finish. Commands and the bridge
change an entry only while they hold its lock.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from moorage.files import Folder

FOLDER: Final = "mounts"
STAGING: Final = "staging"


class JournalTrouble(Exception):
    """The journal cannot be used. The text says what to do."""


class Stage(StrEnum):
    """How far a mount is."""

    WANTED = "wanted"
    """To be claimed and mounted. Either may have happened already."""
    MOUNTED = "mounted"
    """The control plane said that it is published, and it was at the target."""
    LOSING = "losing"
    """Its claim is no longer ours, and the bridge is unmounting it."""
    LOST = "lost"
    """Unmounted because its claim was no longer ours. It is still wanted here, and `moorage reconcile` mounts it."""
    UNMOUNTING = "unmounting"
    """To be unmounted and released. Either may have happened already."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One mount. Times are in seconds since the epoch."""

    target: str
    namespace: str
    volume: str
    allocation: str
    node: str
    mode: str
    """`read` or `write`."""
    access_mode: str
    attachment_mode: str
    """Both are the claim's. They are empty until it is taken, unless the command named them."""
    staging: str
    lease: int
    """Seconds, or 0 for a claim that lasts until it is released."""
    plugin: str
    external_id: str
    stage: Stage
    settled: bool = False
    """Whether it was ever mounted. If so, a mount that fails is tried again by the next reconcile, not undone."""
    folder_mode: int | None = None
    """Permissions of the empty folder that was at the target, to make it again. None if none was."""
    shows: str = ""
    """What was at the target when it was mounted (moorage.mounts.paths.mount_at)."""
    capacity: int = 0
    """Bytes that the file system was last told to fill."""
    renewed_at: float = 0.0
    """When the last request that renewed the lease was sent."""
    reason: str = ""
    """Why it was lost."""

    @property
    def key(self) -> str:
        return key_of(self.target)

    @property
    def name(self) -> str:
        return f"{self.namespace}/{self.volume}"

    def at(self, stage: Stage, **fields: object) -> "Entry":
        """Return a copy of this entry at another stage, with other `fields`."""
        return dataclasses.replace(self, stage=stage, **fields)  # type: ignore[arg-type]


class Journal:
    """The entries of one state folder. Methods that touch files raise JournalTrouble."""

    def __init__(self, state: Path) -> None:
        # Staging paths are made of it. Plugins want them absolute, and one volume must have one spelling of its path.
        self._state = state.resolve()
        self._folder = self._state / FOLDER

    def open(self) -> None:
        """Make the folder, with the owner of the state folder, and remove locks that dead commands left."""
        with self._opened(make=0o700) as folder:
            if not os.access(".", os.R_OK | os.W_OK | os.X_OK, dir_fd=folder.descriptor):
                raise JournalTrouble(f"{self._folder} is not yours to write: run this as the bridge's user, or as root")
            names = set(folder.names())
        for name in names:
            if name.endswith(".lock") and f"{name.removesuffix('.lock')}.json" not in names:
                with self.try_lock(name.removesuffix(".lock")):  # releasing a lock removes its file
                    pass

    def entries(self) -> list[Entry]:
        """Return all entries, in order of their targets."""
        with self._opened() as folder:
            found = [_read(folder, name) for name in folder.names() if name.endswith(".json")]
        return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.target)

    def get(self, key: str) -> Entry | None:
        """Return the entry as it is now, or None."""
        with self._opened() as folder:
            return _read(folder, f"{key}.json")

    def put(self, entry: Entry) -> Entry:
        """Write the entry durably, and return it."""
        with self._opened() as folder:
            folder.write(f"{entry.key}.json", json.dumps(dataclasses.asdict(entry), indent=1).encode(), mode=0o600)
        return entry

    def forget(self, entry: Entry) -> None:
        """Remove the entry."""
        with self._opened() as folder:
            folder.remove(f"{entry.key}.json")

    def staging_of(self, namespace: str, volume: str) -> Path:
        """Return where a volume is staged on this node: one path for all its targets (CSI spec, NodeStageVolume)."""
        return self._state / STAGING / hashlib.sha256(f"{namespace}\n{volume}".encode()).hexdigest()[:32]

    def make_staging(self, entry: Entry) -> None:
        """Make the staging folder, as the caller must (CSI spec, NodeStageVolume, staging_target_path)."""
        with (
            _journal_errors(Path(entry.staging)),
            Folder.open(self._state, bequeaths=True) as state,
            state.folder(STAGING, make=0o755) as staging,
            staging.folder(Path(entry.staging).name, make=0o755),
        ):
            return

    def drop_staging(self, entry: Entry) -> None:
        """Remove the staging folder if no other entry uses it and the plugin left nothing in it."""
        if any(other.staging == entry.staging for other in self.entries() if other.key != entry.key):
            return
        name = Path(entry.staging).name
        with (
            _journal_errors(Path(entry.staging)),
            contextlib.suppress(FileNotFoundError),
            Folder.open(self._state) as state,
            state.folder(STAGING) as staging,
        ):
            staging.remove_empty(name)

    @contextmanager
    def try_lock(self, key: str) -> Iterator[bool]:
        """Hold the entry's lock in this block if it is free, and yield whether it was. Does not wait."""
        name = f"{key}.lock"
        with self._opened() as folder:
            lock = folder.lock(name)
        try:
            yield lock is not None
        finally:
            if lock is not None:
                with self._opened() as folder:
                    folder.remove(name)
                lock.close()

    @contextmanager
    def _opened(self, *, make: int | None = None) -> Iterator[Folder]:
        """Open the journal's folder in this block. What root makes there gets the owner of the state folder."""
        with (
            _journal_errors(self._folder),
            Folder.open(self._state, bequeaths=True) as state,
            state.folder(FOLDER, make=make) as folder,
        ):
            yield folder


def key_of(target: str) -> str:
    """Return the key of a target's entry, which is its file's name."""
    return hashlib.sha256(target.encode()).hexdigest()[:32]


def _read(folder: Folder, name: str) -> Entry | None:
    try:
        stored = json.loads(folder.read(name))
        return Entry(**{**stored, "stage": Stage(stored["stage"])})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as exc:
        raise JournalTrouble(
            f"{folder.path / name} is not an entry of this version's journal ({exc}): use the moorage that wrote it, "
            "or look at what it names, release that claim, and remove the file"
        ) from exc


@contextmanager
def _journal_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise JournalTrouble(
            f"{path}: {exc.strerror}: is this the bridge's state folder, and are you its user or root?"
        ) from exc
