"""Storages: what a plugin has under one external ID, which records name it, and who may remove it.

Nomad lets several records name one storage: one NFS export has several volume IDs. Some plugins answer two creates with
one ID. So the records of a storage are counted, their claims are judged together, and the data goes with the last
record (docs/protocols.md, section 6).

The functions return a storage as it is after a change. store/storages.py writes it, if it is as it was read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from chalicelib.domain.claim import Claim
from chalicelib.domain.volume import Volume

CLOCK_MARGIN: Final = 1.0
"""Seconds by which the clocks of two functions may differ."""


class StorageState(StrEnum):
    HELD = "held"
    """A record names it."""
    LEAVING = "leaving"
    """An operation removes it. No record may name it meanwhile."""
    FREE = "free"
    """No record names it."""


@dataclass(frozen=True, slots=True)
class Storage:
    """What is known of one storage. Times are in epoch seconds."""

    plugin_id: str
    external_id: str
    state: StorageState = StorageState.FREE
    records: frozenset[tuple[str, str]] = frozenset()
    """Namespaces and IDs of the volumes that name it."""
    departed: frozenset[tuple[str, str, int]] = frozenset()
    """Namespaces, IDs and create indexes of volumes that were deregistered by force while claims still counted."""
    operation_id: str = ""
    """The operation that removes it."""
    create_until: float = 0.0
    """Until when a CreateVolume call of any record that it ever had may land. Every removal waits for that."""
    until: float = 0.0
    """Until when a removal of it may have landed. An answer to a call that began before is outdated."""
    kept: bool = False
    """Whether it is left at the provider on purpose: no undo removes it."""
    shared: bool = False
    """Whether claims are judged by the counters here. They are, from the second record on, until it is removed."""
    access_mode: str = ""
    attachment_mode: str = ""
    readers: int = 0
    writers: int = 0
    version: str = ""
    """Another one after every write, and never used again. Empty: there is no item."""

    @property
    def in_use(self) -> bool:
        """Return whether claims count here, past ones too. Those of a single record count at the volume alone."""
        return bool(self.readers or self.writers)

    @property
    def volumes(self) -> frozenset[tuple[str, str]]:
        """Return the namespaces and IDs of all volumes whose claims may count here, departed ones too."""
        return self.records | {(namespace, volume_id) for namespace, volume_id, _ in self.departed}

    def outdates(self, since: float) -> bool:
        """Return whether an answer to a call that began at `since` may be older than a removal of the storage."""
        return self.state is StorageState.LEAVING or (bool(self.until) and self.until >= since - CLOCK_MARGIN)


def record_of(volume: Volume) -> tuple[str, str]:
    """Return what names the volume in `Storage.records`."""
    return volume.namespace, volume.id


def storage_of(claim: Claim) -> tuple[str, str]:
    """Return the plugin ID and the external ID of the storage that the claim is on."""
    return claim.plugin_id, claim.external_id or claim.volume_id


def external_id_of(volume: Volume) -> str:
    """Return the ID of the volume's storage. A volume without an external ID has its own ID at the provider."""
    return volume.definition.external_id or volume.id


def joined(storage: Storage, volume: Volume, *, first: Volume | None) -> Storage:
    """Return the storage with one more record. `first` is the record that it had, if the second one joins now."""
    if first is not None:
        storage = _counted(storage, first)
    if storage.shared:
        # A volume of an older version brings its claims along.
        storage = replace(
            storage,
            readers=storage.readers + volume.readers,
            writers=storage.writers + volume.writers,
            access_mode=storage.access_mode or volume.access_mode,
            attachment_mode=storage.attachment_mode or volume.attachment_mode,
        )
    return replace(
        storage,
        state=StorageState.HELD,
        records=storage.records | {record_of(volume)},
        operation_id="",
        create_until=max(storage.create_until, volume.calls_until),
        until=0.0,
        kept=False,
    )


def left(storage: Storage, volume: Volume) -> Storage:
    """Return the storage without the record of a volume that is deregistered. After the last one, it is kept.

    The claims that still count on the volume go on counting here.
    """
    if volume.in_use:
        storage = storage if storage.shared else _counted(storage, volume)
        gone = (*record_of(volume), volume.create_index)
        storage = replace(storage, departed=storage.departed | {gone})
    records = storage.records - {record_of(volume)}
    if records:
        return replace(storage, records=records)
    return replace(storage, state=StorageState.FREE, records=records, until=storage.create_until, kept=True)


def leaving(storage: Storage, operation_id: str, *, of: Volume | None = None) -> Storage:
    """Return the storage while an operation removes it: the delete `of` its only record, or the undo of a create."""
    records = frozenset[tuple[str, str]]() if of is None else frozenset({record_of(of)})
    return replace(storage, state=StorageState.LEAVING, records=records, operation_id=operation_id)


def stays(storage: Storage) -> Storage:
    """Return the storage that was not removed after all, so that its record has it again."""
    return replace(storage, state=StorageState.HELD, operation_id="")


def removed(storage: Storage, *, until: float) -> Storage:
    """Return what is kept of a storage that is gone: a removal of it may still land `until` then."""
    return Storage(storage.plugin_id, storage.external_id, until=until, version=storage.version)


def claimed(storage: Storage, claim: Claim) -> Storage:
    """Return the shared storage with one more claim."""
    return replace(
        storage,
        readers=storage.readers + (not claim.writes),
        writers=storage.writers + claim.writes,
        access_mode=claim.access_mode,
        attachment_mode=claim.attachment_mode,
    )


def unclaimed(storage: Storage, claim: Claim) -> Storage:
    """Return the shared storage with one claim less. The last claim clears the modes in use."""
    return recounted(
        storage,
        readers=max(storage.readers - (not claim.writes), 0),
        writers=max(storage.writers - claim.writes, 0),
    )


def recounted(storage: Storage, *, readers: int, writers: int) -> Storage:
    """Return the shared storage with these counters."""
    storage = replace(storage, readers=readers, writers=writers)
    if storage.in_use:
        return storage
    return replace(storage, access_mode="", attachment_mode="", departed=frozenset())


def others(storage: Storage, volume: Volume) -> Sequence[tuple[str, str]]:
    """Return the namespaces and IDs of the other records, in order."""
    return sorted(storage.records - {record_of(volume)})


def _counted(storage: Storage, volume: Volume) -> Storage:
    """Return the storage as a shared one, with the counters of its only record."""
    return replace(
        storage,
        shared=True,
        readers=volume.readers,
        writers=volume.writers,
        access_mode=volume.access_mode,
        attachment_mode=volume.attachment_mode,
    )
