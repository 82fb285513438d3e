"""What the API does with volumes: one public function for each action."""

from collections.abc import Mapping
from dataclasses import dataclass

from chalicelib.domain.claim import Claim
from chalicelib.domain.operation import Kind, Operation
from chalicelib.domain.plugin import Plugin
from chalicelib.domain.secrets import encryption_context
from chalicelib.domain.volume import Volume, VolumeState
from chalicelib.errors import NotFound, OperationInProgress, Refused
from chalicelib.service import counters, waiting
from chalicelib.service.claims import its_claims, let_go
from chalicelib.service.deps import Budget, Deps
from chalicelib.service.waiting import Begun
from chalicelib.store import operations as operation_store
from chalicelib.store import volumes as volume_store
from chalicelib.store.commit import Change, RefusedWrites
from chalicelib.store.index import MEMBERS, volume_scope
from chalicelib.store.tables import TOMBSTONE_SECONDS


@dataclass(frozen=True, slots=True)
class Read:
    index: int
    volume: Volume | None
    plugin: Plugin | None = None
    claims: tuple[Claim, ...] = ()


def read(deps: Deps, namespace: str, volume_id: str) -> Read:
    """One volume, read strongly, and its index: that of the tombstone when it is gone."""
    found, floor = deps.volumes.get(namespace, volume_id), 0
    if found is None or not found.modify_index:
        # An ID that never was has no index of its own: one that its create will be above, read before it is looked for.
        floor = deps.index.watch().floor(volume_scope(namespace))
        found = deps.volumes.get(namespace, volume_id)
    if found is None or not found.exists:
        return Read((found.modify_index if found else 0) or floor, None)
    plugin = deps.plugins.get(found.plugin_id, consistent=False)
    return Read(found.modify_index, found, plugin, tuple(its_claims(deps, found)))


def current(deps: Deps, namespace: str, volume_id: str, index: int = 0) -> int:
    """What a blocked read of this volume waits on: its own index.

    A larger `index` than that came from a list, or from a read before the ID was ever used: a change that is under way
    may bear a smaller number, so the scope's publications count too.
    """
    found = deps.volumes.get(namespace, volume_id, consistent=False)
    own = found.modify_index if found else 0
    return own if own >= index else max(own, deps.index.watch(consistent=False).of_volumes(namespace))


def delete(deps: Deps, namespace: str, volume_id: str, secrets: Mapping[str, str], budget: Budget) -> int:
    """Destroy the volume at its provider, then forget it; returns the index. Refused before anything is touched if it
    is in use.
    """

    wanted = waiting.digest(Kind.DELETE_VOLUME.value, namespace, volume_id)

    def build(_: RefusedWrites) -> Change[Begun]:
        found = _existing(deps, namespace, volume_id)
        if not found.operation_id:
            return _start_delete(deps, found, secrets, wanted)
        sealed = deps.sealer.seal_secrets(secrets, encryption_context(namespace, volume_id))
        joined = waiting.join(deps, volume_id, found.operation_id, wanted, found.operation_kind, secrets=sealed)
        return Change(Begun(joined))

    _, begun = deps.committer.commit(build=build, what=f"volume {volume_id}")
    operation = waiting.sent(deps, begun)
    return _deleted(waiting.wait(deps, [operation], budget)[operation.id])


def deregister(deps: Deps, namespace: str, volume_id: str, *, force: bool = False) -> int:
    """Forget the volume and leave its storage alone; returns the index.

    `force` drops past claims, never a live one; what is under way to detach them goes on without the volume.
    """

    def is_kept(volume: Volume) -> bool:
        return volume.in_use and not (force and volume.readers + volume.writers == volume.past_claims)

    def build(_: RefusedWrites) -> Change[None]:
        found = _existing(deps, namespace, volume_id)
        if found.operation_id:
            raise OperationInProgress(f"volume {volume_id} has an operation in progress: {found.operation_kind}")
        if is_kept(found) and counters.repair(deps, found):
            found = _existing(deps, namespace, volume_id)
        if is_kept(found):
            raise Refused(f"volume in use: {volume_id}")
        for claim in its_claims(deps, found):
            let_go(deps, claim, force=True)
        expires_at = int(deps.clock.now()) + TOMBSTONE_SECONDS
        return Change(None, lambda index: volume_store.deregister(found, index, expires_at=expires_at, force=force))

    scopes = (volume_scope(namespace), MEMBERS)
    index, _ = deps.committer.commit(*scopes, build=build, what=f"volume {volume_id}")
    return index


def _start_delete(deps: Deps, found: Volume, secrets: Mapping[str, str], wanted: str) -> Change[Begun]:
    """Mark the volume and write the operation in one transaction."""
    if found.in_use and counters.repair(deps, found):
        found = _existing(deps, found.namespace, found.id)
    if found.in_use:
        raise Refused(f"volume in use: {found.id}")
    plugin = deps.plugins.get(found.plugin_id)
    if plugin is None or not (plugin.controller_required or plugin.awaits_controller):
        raise Refused(f'plugin "{found.plugin_id}" for volume "{found.id}" not found')
    if not plugin.controllers_healthy:
        raise Refused(f'controller delete volume: failed to find instances of controller plugin "{found.plugin_id}"')
    now, operation_id = deps.clock.now(), deps.clock.new_id()
    operation = Operation(
        id=operation_id,
        kind=Kind.DELETE_VOLUME,
        namespace=found.namespace,
        volume_id=found.id,
        plugin_id=found.plugin_id,
        digest=wanted,
        step="delete",
        external_id=found.definition.external_id,
        params={"volume_secrets": waiting.text(found.sealed_secrets)},
        sealed_secrets=deps.sealer.seal_secrets(secrets, encryption_context(found.namespace, found.id)),
        # A call of the create that may still land would make the storage anew after the delete: wait until it cannot.
        not_before=found.calls_until if found.calls_until > now else 0.0,
        create_time=now,
        update_time=now,
    )
    mark = volume_store.mark(
        found, operation_id=operation_id, kind=Kind.DELETE_VOLUME.value, state=VolumeState.DELETING, unclaimed=True
    )
    record = operation_store.open_operation(operation, now=now)
    return Change(Begun(operation, new=True), lambda _: [mark, record], visible=False)


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
