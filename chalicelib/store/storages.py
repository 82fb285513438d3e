"""Storages in their table: one item for each external ID of a plugin that a record names, or named.

Every change puts the whole item, if it is as it was read. `version` is a new ID with every put, so an item that came
anew is never taken for the one that was read.
"""

from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from chalicelib.domain.storage import Storage, StorageState
from chalicelib.store import dynamo, tables
from chalicelib.store.dynamo import Dynamo, Write
from chalicelib.store.tables import TOMBSTONE_SECONDS, StorageRow, UpgradeRow

LABEL = "storage"
"""The label of a storage's write in a transaction."""
RECORDS_LIMIT = 200 * 1024
"""Bytes of the names of one storage's records at most: an item ends at 400 KB (AWS: DynamoDB quotas)."""
_SK = "-"
_UPGRADE = ("sweep", "storages")


class StorageStore:
    """The storages of one stage."""

    def __init__(self, store: Dynamo) -> None:
        self._dynamo = store
        self._upgraded = False

    def get(self, plugin_id: str, external_id: str) -> Storage:
        """Return the storage, read strongly. One without an item is free, and has no version."""
        row = self._dynamo.get(StorageRow, tables.storage_pk(plugin_id, external_id), _SK)
        return Storage(plugin_id, external_id) if row is None else _storage(row)

    def upgraded(self) -> bool:
        """Return whether every record is known to be in its storage's item. Once it is, no more is read."""
        if not self._upgraded:
            row = self._dynamo.get(UpgradeRow, *_UPGRADE)
            self._upgraded = row is not None and bool(row.done)
        return self._upgraded

    def begin_upgrade(self, now: float) -> tuple[float, str]:
        """Return since when (epoch seconds) the upgrade is known of, `now` the first time, and where it has come to."""
        row = self._write(UpgradeRow.since.set(UpgradeRow.since | now))
        return float(row.since), row.after or ""

    def advance_upgrade(self, after: str) -> None:
        """Record that every record up to this one (as tables.member_sk names it) is in its storage's item."""
        self._write(UpgradeRow.after.set(after))

    def end_upgrade(self) -> None:
        """Record that every record is in its storage's item."""
        self._write(UpgradeRow.done.set(True))

    def _write(self, action: Action) -> UpgradeRow:
        return self._dynamo.update(UpgradeRow, *_UPGRADE, [action, UpgradeRow.schema.set(tables.SCHEMA)])


def put(storage: Storage, *, version: str) -> Write:
    """Put the storage, if it is still at the version that was read, under a version of its own.

    A storage that was removed is forgotten after a day, when no call that began before the removal can be answered.
    """
    condition: Condition = StorageRow.pk.does_not_exist()
    if storage.version:
        condition = StorageRow.version == storage.version
    forgotten = storage.state is StorageState.FREE and not (storage.kept or storage.in_use)
    row = StorageRow(
        tables.storage_pk(storage.plugin_id, storage.external_id),
        _SK,
        plugin_id=storage.plugin_id,
        external_id=storage.external_id,
        state=storage.state.value,
        records={tables.member_sk(*record) for record in storage.records} or None,
        departed={_departed_text(*record) for record in storage.departed} or None,
        operation_id=storage.operation_id or None,
        create_until=storage.create_until or None,
        until=storage.until or None,
        kept=storage.kept or None,
        shared=storage.shared or None,
        access_mode=storage.access_mode or None,
        attachment_mode=storage.attachment_mode or None,
        readers=storage.readers,
        writers=storage.writers,
        version=version,
        expires_at=int(storage.until) + TOMBSTONE_SECONDS if forgotten else None,
    )
    return dynamo.put(LABEL, row, condition)


def has_room_for_record(storage: Storage) -> bool:
    """Return whether one more record can name the storage."""
    size = sum(len(namespace.encode()) + len(volume_id.encode()) for namespace, volume_id in storage.records)
    return size < RECORDS_LIMIT


def _departed_text(namespace: str, volume_id: str, create_index: int) -> str:
    return f"{tables.member_sk(namespace, volume_id)}\n{create_index}"


def _departed(text: str) -> tuple[str, str, int]:
    record, _, create_index = text.rpartition("\n")
    return (*tables.member_of(record), int(create_index))


def _storage(row: StorageRow) -> Storage:
    return Storage(
        plugin_id=row.plugin_id,
        external_id=row.external_id,
        state=StorageState(row.state),
        records=frozenset(tables.member_of(text) for text in row.records or ()),
        departed=frozenset(_departed(text) for text in row.departed or ()),
        operation_id=row.operation_id or "",
        create_until=float(row.create_until or 0),
        until=float(row.until or 0),
        kept=bool(row.kept),
        shared=bool(row.shared),
        access_mode=row.access_mode or "",
        attachment_mode=row.attachment_mode or "",
        readers=int(row.readers),
        writers=int(row.writers),
        version=row.version,
    )
