"""Which records own a storage: what a transaction adds when a record comes, goes, or is removed with its data.

Each function reads the storage and builds writes that are refused if it changed since. So the caller builds anew after
a refusal (docs/protocols.md, section 6).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from chalicelib.domain import storage as rules
from chalicelib.domain.claim import Claim
from chalicelib.domain.operation import Operation
from chalicelib.domain.storage import Storage, StorageState, external_id_of, record_of
from chalicelib.domain.volume import Volume, VolumeState
from chalicelib.errors import Refused, RequestError, StageUpgrading, StorageOutdated
from chalicelib.store import storages, volumes
from chalicelib.store.commit import Change, RefusedWrites
from chalicelib.store.dynamo import Write
from chalicelib.store.index import MEMBERS
from chalicelib.store.namespaces import DEFAULT
from chalicelib.store.stores import Stores


class Joined(NamedTuple):
    """The volume as it must be put, and what must be written with it."""

    volume: Volume
    writes: Sequence[Write]


def join(stores: Stores, volume: Volume, *, since: float) -> Joined:
    """Add a record to its storage, whose provider answered a call that began at `since` (epoch seconds).

    Raises StorageOutdated when the storage was or is being removed since then, and RequestError 409 when too many
    records name it.
    """
    storage = of_volume(stores, volume)
    if storage.outdates(since):
        raise _outdated(storage)
    if not storages.has_room_for_record(storage):
        raise RequestError(
            f"storage {storage.external_id} of plugin {storage.plugin_id} is named by {len(storage.records)} volumes, "
            "and by no more: deregister some",
            status=409,
        )
    joined, writes = _join(stores, storage, volume)
    return Joined(replace(volume, shared=joined.shared), writes)


def leave(stores: Stores, storage: Storage, volume: Volume) -> Write:
    """Take the record of a volume off its storage, which stays."""
    return _put(stores, rules.left(storage, volume))


def begin_removal(stores: Stores, storage: Storage, volume: Volume, operation_id: str) -> Write:
    """Mark the storage of a volume that is deleted. No other record may name it.

    Raises Refused when claims of a record that is gone still count, and StorageOutdated when another operation removes
    it.
    """
    if storage.state is StorageState.LEAVING:
        raise _outdated(storage)
    if storage.in_use:
        raise Refused(f"volume in use: {volume.id}")
    return _put(stores, rules.leaving(storage, operation_id, of=volume))


def end_removal(stores: Stores, storage: Storage, *, until: float) -> Write:
    """Record that the storage is gone. A call that removes it may still land `until` then (epoch seconds)."""
    return _put(stores, rules.removed(storage, until=until))


def keep(stores: Stores, storage: Storage) -> Write:
    """Give the storage back to its record, since it was not removed."""
    return _put(stores, rules.stays(storage))


def claim_removal(stores: Stores, undo: Operation, external_id: str, *, since: float) -> Write | None:
    """Mark what the undo of a create found by a call that began at `since` (epoch seconds), so that it is removed.

    Returns None when it is not the undo's to remove: a record names it, a claim is on it, or it was deregistered and
    so left on purpose. Raises StorageOutdated when the storage was or is being removed since then.
    """
    storage = stores.storages.get(undo.plugin_id, external_id)
    if storage.outdates(since):
        raise _outdated(storage)
    if storage.records or storage.kept or storage.in_use:
        return None
    return _put(stores, rules.leaving(storage, undo.id))


def take(stores: Stores, storage: Storage, claim: Claim) -> Write:
    """Count a claim at a shared storage. Its room was checked against `storage`."""
    return _put(stores, rules.claimed(storage, claim))


def free(stores: Stores, claim: Claim, volume: Volume | None) -> list[Write]:
    """Count a claim off its storage, if it counts there. `volume` is what the claim's ID names now."""
    storage: Storage | None
    if volume is not None and claim.is_on(volume):
        storage = shared_by(stores, volume)
    else:
        storage = stores.storages.get(*rules.storage_of(claim))
        if (claim.namespace, claim.volume_id, claim.volume_index) not in storage.departed:
            return []
    return [] if storage is None else [_put(stores, rules.unclaimed(storage, claim))]


def volumes_of(stores: Stores, claim: Claim) -> set[tuple[str, str]]:
    """Return the namespaces and IDs of the volumes whose claims may be on the claim's storage, its own among them."""
    storage = stores.storages.get(*rules.storage_of(claim))
    return {(claim.namespace, claim.volume_id), *storage.volumes}


def recount(stores: Stores, storage: Storage, *, readers: int, writers: int) -> Write:
    """Set the counters of a shared storage, if nothing changed since it was read. Read its claims after it."""
    return _put(stores, rules.recounted(storage, readers=readers, writers=writers))


def shared_by(stores: Stores, volume: Volume) -> Storage | None:
    """Return the storage where the volume's claims count, read strongly, or None if they count at the volume alone."""
    return of_volume(stores, volume) if volume.shared else None


def is_upgraded(stores: Stores) -> bool:
    """Return whether every record is in its storage's item. At a new stage it is, since there is none."""
    if stores.storages.upgraded():
        return True
    if stores.index.watch().of(MEMBERS) or _has_volumes(stores):
        return False
    stores.storages.end_upgrade()
    return stores.storages.upgraded()


def refuse_while_upgrading(stores: Stores) -> None:
    """Raise StageUpgrading until records may come and go."""
    if not is_upgraded(stores):
        raise StageUpgrading(
            "this stage was upgraded, and its volumes are being read once: until then none can be created, registered, "
            "deleted or deregistered; try again in some minutes"
        )


def adopt(stores: Stores, volume: Volume) -> bool:
    """Add the record of an older version to its storage, and return whether it was not there.

    Raises WriteConflict when others change both all the time.
    """

    def build(_: RefusedWrites) -> Change[bool]:
        current = stores.volumes.get(volume.namespace, volume.id)
        if current is None or not current.exists:
            return Change(False)
        storage = of_volume(stores, current)
        deleting = current.state is VolumeState.DELETING
        if record_of(current) in storage.records or (deleting and storage.records):
            return Change(False)
        if deleting:
            leaving = rules.leaving(storage, current.operation_id, of=current)
            return Change(True, lambda _: [volumes.unchanged(current), _put(stores, leaving)], visible=False)
        if storage.state is StorageState.LEAVING:
            # A record that is being deleted was adopted before. Its delete finds that the storage stays.
            storage = replace(storage, records=frozenset())
        joined, writes = _join(stores, storage, current)
        own = volumes.share(current, "volume") if joined.shared else volumes.unchanged(current)
        return Change(True, lambda _: [own, *writes], visible=False)

    return stores.committer.commit(build=build, what=f"volume {volume.id}")[1]


def of_volume(stores: Stores, volume: Volume) -> Storage:
    """Return the storage of a volume, read strongly."""
    return stores.storages.get(volume.plugin_id, external_id_of(volume))


def _join(stores: Stores, storage: Storage, volume: Volume) -> tuple[Storage, list[Write]]:
    """Return the storage with one more record, and its write, with that of the record that was alone until now."""
    first = None
    if not storage.shared:
        found = [v for v in stores.volumes.get_many(sorted(storage.records - {record_of(volume)})) if v.exists]
        first = found[0] if found else None
    joined = rules.joined(storage, volume, first=first)
    writes = [_put(stores, joined)]
    return joined, writes if first is None else [*writes, volumes.share(first, "first volume")]


def _has_volumes(stores: Stores) -> bool:
    """Return whether a namespace has any record. One that is being created counts."""
    names = {DEFAULT, *(namespace.name for namespace in stores.namespaces.all())}
    return any(next(stores.volumes.in_namespace(name, limit=1), None) for name in sorted(names))


def _put(stores: Stores, storage: Storage) -> Write:
    return storages.put(storage, version=stores.clock.new_id())


def _outdated(storage: Storage) -> StorageOutdated:
    named = f"storage {storage.external_id} of plugin {storage.plugin_id}"
    if storage.state is StorageState.LEAVING:
        return StorageOutdated(f"{named} is being removed by operation {storage.operation_id}", retry_after=30)
    return StorageOutdated(f"{named} was removed a moment ago: try again", retry_after=2)
