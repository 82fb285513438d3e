"""Read, delete and deregister volumes. service/definitions.py creates, registers and updates them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chalicelib.domain.claim import Claim
from chalicelib.domain.operation import Operation
from chalicelib.domain.plugin import Plugin
from chalicelib.domain.storage import Storage, others
from chalicelib.domain.volume import Volume
from chalicelib.errors import NotFound, Refused
from chalicelib.operations import delete_volume, starting
from chalicelib.operations.starting import Started
from chalicelib.service import counters, waiting
from chalicelib.service.claims import claims_on
from chalicelib.service.deps import Budget, Deps
from chalicelib.service.releases import begin_release
from chalicelib.store import ownership
from chalicelib.store import volumes as volume_store
from chalicelib.store.commit import Change, RefusedWrites, Writes
from chalicelib.store.index import MEMBERS, volume_scope
from chalicelib.store.tables import TOMBSTONE_SECONDS


@dataclass(frozen=True, slots=True)
class VolumeRead:
    """A volume with what is shown beside it, and the index of the answer."""

    index: int
    volume: Volume | None
    plugin: Plugin | None = None
    claims: tuple[Claim, ...] = ()


def read(deps: Deps, namespace: str, volume_id: str) -> VolumeRead:
    """Return one volume, read consistently, with its index. If it is gone, the index is that of its tombstone."""
    found, floor = deps.volumes.get(namespace, volume_id), 0
    if found is None or not found.modify_index:
        # An ID that was never used has no index. Take one that its create will exceed, before looking for the ID again.
        floor = deps.index.watch().floor(volume_scope(namespace))
        found = deps.volumes.get(namespace, volume_id)
    if found is None or not found.exists:
        return VolumeRead((found.modify_index if found else 0) or floor, None)
    plugin = deps.plugins.get(found.plugin_id, consistent=False)
    return VolumeRead(found.modify_index, found, plugin, tuple(claims_on(deps, found)))


def shared_with(deps: Deps, volume: Volume) -> Sequence[tuple[str, str]]:
    """Return the namespaces and IDs of the other volumes that name the volume's storage."""
    storage = ownership.shared_by(deps, volume)
    return () if storage is None else others(storage, volume)


def current(deps: Deps, namespace: str, volume_id: str, index: int = 0) -> int:
    """Return the index that a blocked read of this volume waits on: the volume's own.

    An `index` above that came from a list, or from a read before the ID was ever used. A change that is under way may
    have a smaller number, so the publications of the volume's scope count, too.
    """
    found = deps.volumes.get(namespace, volume_id, consistent=False)
    own = found.modify_index if found else 0
    return own if own >= index else max(own, deps.index.watch(consistent=False).of_volumes(namespace))


def delete(deps: Deps, namespace: str, volume_id: str, secrets: Mapping[str, str], budget: Budget) -> int:
    """Delete the volume at its provider, then its record, and return the index.

    A storage that another volume names, too, stays: only the record goes. Raises NotFound, OperationInProgress,
    OperationPending, and Refused, before anything is touched, if it is in use.
    """
    ownership.refuse_while_upgrading(deps)

    def build(_: RefusedWrites) -> Change[Started | None]:
        volume = _existing(deps, namespace, volume_id)
        if volume.operation_id:
            return Change(Started(delete_volume.join(deps, volume, secrets)))
        volume = _deletable(deps, volume)
        storage = ownership.of_volume(deps, volume)
        if others(storage, volume):
            return Change(None, _deregistered(deps, volume, storage))
        operation, writes = delete_volume.start(deps, volume, storage, secrets)
        return Change(Started(operation, new=True), lambda _: writes, visible=False)

    index, started = deps.committer.commit(*_scopes(namespace), build=build, what=f"volume {volume_id}")
    if started is None:
        return index
    operation = starting.send_new(deps, started)
    return _deleted(waiting.wait(deps, [operation], budget)[operation.id])


def deregister(deps: Deps, namespace: str, volume_id: str, *, force: bool = False) -> int:
    """Delete the volume's record, leave its storage alone, and return the index.

    `force` drops past claims, but never a live one. Operations that detach them go on without the volume. Raises
    NotFound, OperationInProgress, and Refused when the volume is in use.
    """

    def is_kept(volume: Volume) -> bool:
        return volume.in_use and not (force and volume.readers + volume.writers == volume.past_claims)

    def build(_: RefusedWrites) -> Change[None]:
        found = _existing(deps, namespace, volume_id)
        if found.operation_id:
            raise starting.in_progress(found)
        if is_kept(found) and counters.repair(deps, found):
            found = _existing(deps, namespace, volume_id)
        if is_kept(found):
            raise Refused(f"volume in use: {volume_id}")
        for claim in claims_on(deps, found):
            begin_release(deps, claim, force=True)
        return Change(None, _deregistered(deps, found, ownership.of_volume(deps, found), force=force))

    ownership.refuse_while_upgrading(deps)
    index, _ = deps.committer.commit(*_scopes(namespace), build=build, what=f"volume {volume_id}")
    return index


def _deregistered(deps: Deps, volume: Volume, storage: Storage, *, force: bool = False) -> Writes:
    """Return what replaces the volume by a tombstone, and takes its record off its storage."""
    expires_at = int(deps.clock.now()) + TOMBSTONE_SECONDS
    left = ownership.leave(deps, storage, volume)
    return lambda index: [*volume_store.deregister(volume, index, expires_at=expires_at, force=force), left]


def _scopes(namespace: str) -> tuple[str, ...]:
    return volume_scope(namespace), MEMBERS


def _deletable(deps: Deps, found: Volume) -> Volume:
    """Return the volume if it may be deleted. Raises Refused when it is in use or its plugin cannot be called."""
    if found.in_use and counters.repair(deps, found):
        found = _existing(deps, found.namespace, found.id)
    if found.in_use:
        raise Refused(f"volume in use: {found.id}")
    plugin = deps.plugins.get(found.plugin_id)
    if plugin is None or not (plugin.controller_required or plugin.awaits_controller):
        raise Refused(f'plugin "{found.plugin_id}" for volume "{found.id}" not found')
    if not plugin.controllers_healthy:
        raise Refused(f'controller delete volume: failed to find instances of controller plugin "{found.plugin_id}"')
    return found


def _deleted(operation: Operation) -> int:
    if operation.result:
        return int(operation.result["index"])
    pending = waiting.unanswered([operation])
    if pending:
        raise pending
    raise Refused(operation.error or operation.last_error)


def _existing(deps: Deps, namespace: str, volume_id: str) -> Volume:
    found = deps.volumes.get(namespace, volume_id) if volume_id else None
    if found is None or not found.exists:
        raise NotFound(f"volume not found: {volume_id}", status=500)
    return found
