"""The root folder: records, data, and the repair at a start after a kill.

    ROOT/volumes/<id>/     the data of a volume
    ROOT/snapshots/<id>/   the data of a snapshot
    ROOT/state/<kind>/     one record per object: volumes, snapshots, groups, uses
    ROOT/making, trash     data on its way in or out

The order of steps decides what a kill leaves. Making: record "making", data in `making`, moved into place, record
"ready". Dropping: record "dropping", data moved to `trash`, record removed, trash emptied. At a start, "making" is
undone, since no caller got the ID, and "dropping" is finished, since a caller asked for it.
"""

import dataclasses
import fcntl
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, TypeVar

from moorage_devplugin import disk
from moorage_devplugin.records import Group, Record, Snapshot, Use, Volume

R = TypeVar("R", bound=Record)
D = TypeVar("D", Volume, Snapshot)
SAFE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
log: Final = logging.getLogger(__name__)


class Unusable(Exception):
    """The root cannot be served. The text says what to do."""


@dataclass
class RecordStore(Generic[R]):
    """All records of one kind, in memory and on disk. The disk is written first."""

    folder: Path
    kind: type[R]
    reached: disk.Reached
    records: dict[str, R] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def load(self) -> None:
        """Read all records. Raises Unusable for one that cannot be read."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(self.folder.iterdir()):
            if path.name.endswith(".tmp"):
                path.unlink()
                continue
            try:
                record = self.kind.from_json(path.read_text())
            except (ValueError, KeyError, TypeError) as exc:
                raise Unusable(f"{path} cannot be read ({exc}): repair it, or move it and its data away") from exc
            self.records[record.id] = record

    def put(self, record: R) -> R:
        """Write `record` durably, and return it."""
        with self._lock:
            disk.write_whole(self._path(record.id), record.to_json(), self.reached)
            self.records[record.id] = record
        return record

    def forget(self, record_id: str) -> None:
        """Remove a record durably. Safe to repeat."""
        with self._lock:
            self._path(record_id).unlink(missing_ok=True)
            disk.sync_folder(self.folder)
            self.records.pop(record_id, None)
        self.reached("forgot-record")

    def get(self, record_id: str) -> R | None:
        """Return the record if it is ready, or else None."""
        record = self.records.get(record_id)
        return record if record is not None and record.state == "ready" else None

    def by_name(self, name: str) -> R | None:
        return next((record for record in self.ready() if record.name == name), None)

    def ready(self) -> list[R]:
        """Return all records that are ready, in order of creation."""
        with self._lock:
            found = [record for record in self.records.values() if record.state == "ready"]
        return sorted(found, key=lambda record: record.seq)

    def _path(self, record_id: str) -> Path:
        if SAFE_ID.fullmatch(record_id) is None:
            raise ValueError(f"{record_id!r} cannot be the name of a file")
        return self.folder / f"{record_id}.json"


class Vault:
    """One root, served by one process at a time."""

    def __init__(self, root: Path, reached: Callable[[str], None], now: Callable[[], float] = time.time) -> None:
        self.root = root.resolve()
        self.reached, self.now = reached, now
        state = self.root / "state"
        self.volumes = RecordStore(state / "volumes", Volume, reached)
        self.snapshots = RecordStore(state / "snapshots", Snapshot, reached)
        self.groups = RecordStore(state / "groups", Group, reached)
        self.uses = RecordStore(state / "uses", Use, reached)
        self._seq = 0
        self._seq_lock = threading.Lock()

    def open(self) -> None:
        """Lock the root, and repair what a kill left. Raises Unusable."""
        try:
            for name in ("volumes", "snapshots", "state", "making", "trash"):
                (self.root / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            lock = os.open(self.root / "lock", flags, 0o600)  # held until this process ends
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise Unusable(f"another moorage-devplugin serves {self.root}: stop it, or choose another --root") from exc
        except OSError as exc:
            raise Unusable(f"{self.root} cannot be used as root: {exc.strerror}") from exc
        for store in (self.volumes, self.snapshots, self.groups, self.uses):
            store.load()
        self._repair()
        every: list[Record] = [*self.volumes.ready(), *self.snapshots.ready(), *self.groups.ready(), *self.uses.ready()]
        self._seq = max((record.seq for record in every), default=0)

    def next_seq(self) -> int:
        with self._seq_lock:
            self._seq += 1
            return self._seq

    def data(self, record: Volume | Snapshot) -> Path:
        """Return the folder of a volume or snapshot. It is in the root, since IDs are checked when they are made."""
        return self.root / ("volumes" if isinstance(record, Volume) else "snapshots") / record.id

    def make(self, store: RecordStore[D], record: D, fill: Callable[[Path], None]) -> D:
        """Make a volume or snapshot, and return its record. `fill` gets the path at which it makes the folder.

        Raises what `fill` raises, and OSError (FileExistsError if a folder that is not ours is in the way). Nothing of
        the object is left then.
        """
        left = store.records.get(record.id)
        if left is not None:
            self._finish_drop(store, left)
        data, making = self.data(record), self.root / "making" / record.id
        disk.require_absent(data)  # so that a repair of "making" removes nothing that is not ours
        store.put(record)
        placed = False
        try:
            disk.remove(making)
            fill(making)
            self.reached("made-data")
            disk.move(making, data)
            placed = True
            self.reached("placed-data")
            return store.put(dataclasses.replace(record, state="ready"))
        except BaseException:
            disk.remove(making)
            if placed:
                disk.remove(data)
            store.forget(record.id)
            raise

    def drop(self, store: RecordStore[R], record: R) -> None:
        """Remove a record and its data. Safe to repeat. The next start finishes what was interrupted."""
        dropping = store.put(dataclasses.replace(record, state="dropping"))
        self._finish_drop(store, dropping)

    def _finish_drop(self, store: RecordStore[R], record: R) -> None:
        trash = self.root / "trash" / f"{record.id}.{uuid.uuid4().hex}"
        if isinstance(record, Volume | Snapshot) and os.path.lexists(self.data(record)):
            disk.move(self.data(record), trash)
            self.reached("trashed-data")
        store.forget(record.id)
        disk.remove(trash)

    def _repair(self) -> None:
        for folder in ("making", "trash"):
            for path in (self.root / folder).iterdir():
                disk.remove(path)
        self._repair_records(self.volumes)
        self._repair_records(self.snapshots)
        self._repair_records(self.groups)
        self._repair_records(self.uses)

    def _repair_records(self, store: RecordStore[R]) -> None:
        for record in [one for one in store.records.values() if one.state != "ready"]:
            log.info("finishing what was interrupted", extra={"id": record.id, "was": record.state})
            self._finish_drop(store, record)
