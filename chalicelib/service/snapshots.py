"""Snapshots and external volumes: what the provider knows, which no record of ours repeats (as in Nomad)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

from chalicelib.domain.external import ExternalVolume, Page, Snapshot
from chalicelib.domain.operation import Kind, Operation
from chalicelib.domain.plugin import Plugin
from chalicelib.domain.secrets import encryption_context, plugin_encryption_context
from chalicelib.errors import Refused, joined
from chalicelib.service import waiting
from chalicelib.service.deps import Budget, Deps
from chalicelib.store import operations as operation_store
from chalicelib.store.dynamo import TransactionRefused

START_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    """A snapshot as a request asks for it."""

    source_volume_id: str
    plugin_id: str
    name: str
    parameters: Mapping[str, str]
    secrets: Mapping[str, str]


def create(deps: Deps, namespace: str, wanted: Sequence[Wanted], budget: Budget) -> list[Snapshot]:
    """Take the snapshots side by side; each stands alone: if one fails, the others exist."""
    errors: list[str] = []
    started: list[Operation] = []
    for item in wanted:
        try:
            started.append(_start_create(deps, namespace, item))
        except Refused as exc:
            errors.append(exc.text)
    finished = waiting.wait(deps, started, budget)
    results = []
    for operation in (finished[o.id] for o in started):
        if operation.result:
            results.append(Snapshot(**{f.name: operation.result[f.name] for f in fields(Snapshot)}))
        elif operation.answered:
            errors.append(operation.error or operation.last_error)
    if errors:
        raise Refused(joined(errors))
    pending = waiting.unanswered(finished.values())
    if pending:
        raise pending
    return results


def delete(deps: Deps, plugin_id: str, snapshot_id: str, secrets: Mapping[str, str], budget: Budget) -> None:
    """Delete a snapshot at its provider; one that is not there is deleted."""
    try:
        plugin = _known(deps, plugin_id)
        if not plugin.controllers_healthy or not plugin.can("CREATE_DELETE_SNAPSHOT"):
            raise Refused("plugin does not support snapshot")
        if not snapshot_id:
            head = 'could not delete "": controller delete snapshot: CSI.ControllerDeleteSnapshot: '
            raise Refused(head + "missing SnapshotID")
        subject = f"delete snapshot\n{plugin_id}\n{snapshot_id}"
        now = deps.clock.now()
        operation = Operation(
            id=deps.clock.new_id(),
            kind=Kind.DELETE_SNAPSHOT,
            namespace="",
            volume_id="",
            plugin_id=plugin_id,
            digest=waiting.digest(Kind.DELETE_SNAPSHOT.value, subject, None),
            step="delete",
            external_id=snapshot_id,
            subject=subject,
            create_time=now,
            update_time=now,
        )
        sealed = deps.sealer.seal_secrets(secrets, encryption_context("", ""))
        operation = _start(deps, operation, sealed)
    except Refused as exc:
        raise Refused(joined([exc.text])) from exc
    done = waiting.wait(deps, [operation], budget)[operation.id]
    if done.result:
        return
    pending = waiting.unanswered([done])
    if pending:
        raise pending
    raise Refused(joined([done.error or done.last_error]))


def list_snapshots(
    deps: Deps, plugin_id: str, *, per_page: int, next_token: str, secrets: Mapping[str, str]
) -> Page[Snapshot]:
    """One page of the provider's snapshots; paging is the plugin's own."""
    plugin = _known(deps, plugin_id)
    if not plugin.controllers_healthy or not plugin.can("LIST_SNAPSHOTS"):
        raise Refused("plugin does not support listing snapshots")
    if per_page < 0:
        raise Refused("controller list snapshots: CSI.ControllerListSnapshots: MaxEntries cannot be negative")
    sealed = deps.sealer.seal_secrets(secrets, plugin_encryption_context(plugin_id))
    return deps.plugin_queries.list_snapshots(
        plugin_id, per_page=per_page, next_token=next_token, sealed_secrets=sealed
    )


def list_external(deps: Deps, plugin_id: str, *, per_page: int, next_token: str) -> Page[ExternalVolume]:
    """One page of what the provider has, registered or not; paging is the plugin's own."""
    plugin = _known(deps, plugin_id)
    if not plugin.controllers_healthy or not plugin.can("LIST_VOLUMES"):
        raise Refused("unimplemented for this plugin")
    if per_page < 0:
        raise Refused("controller list volumes: CSI.ControllerListVolumes: MaxEntries cannot be negative")
    return deps.plugin_queries.list_volumes(plugin_id, per_page=per_page, next_token=next_token)


def _start_create(deps: Deps, namespace: str, item: Wanted) -> Operation:
    source = deps.volumes.get(namespace, item.source_volume_id) if item.source_volume_id else None
    if source is None or not source.exists:
        raise Refused(f'no such volume "{item.source_volume_id}"')
    plugin_id = item.plugin_id or source.plugin_id
    plugin = deps.plugins.get(plugin_id)
    if plugin is None:
        raise Refused(f'no such plugin "{plugin_id}"')
    if not plugin.controllers_healthy or not plugin.can("CREATE_DELETE_SNAPSHOT"):
        raise Refused(f'plugin "{plugin_id}" does not support snapshot')
    if not item.name:
        head = "could not create snapshot: controller create snapshot: CSI.ControllerCreateSnapshot: "
        raise Refused(head + "missing Name")
    now = deps.clock.now()
    subject = f"create snapshot\n{plugin_id}\n{source.definition.external_id}\n{item.name}"
    parameters = dict(item.parameters)
    operation = Operation(
        id=deps.clock.new_id(),
        kind=Kind.CREATE_SNAPSHOT,
        namespace=namespace,
        volume_id=source.id,
        plugin_id=plugin_id,
        digest=waiting.digest(Kind.CREATE_SNAPSHOT.value, subject, parameters),
        step="create",
        storage_name=item.name,
        external_id=source.definition.external_id,
        subject=subject,
        params={"parameters": parameters, "volume_secrets": waiting.text(source.sealed_secrets)},
        create_time=now,
        update_time=now,
    )
    return _start(deps, operation, deps.sealer.seal_secrets(item.secrets, encryption_context(namespace, source.id)))


def _start(deps: Deps, operation: Operation, sealed: bytes) -> Operation:
    """Lock the subject and write the operation in one transaction; or join who holds it."""
    operation = waiting.with_secrets(operation, sealed)
    for _ in range(START_TRIES):
        writes = [*operation_store.lock(operation), operation_store.open_operation(operation, now=deps.clock.now())]
        try:
            deps.dynamo.transact(writes, token=operation.id)
        except TransactionRefused as exc:
            holder = operation_store.holder(exc.old.get("lock"))
            if holder and holder != operation.id:
                found = deps.operations.get(holder)
                if found is None or not found.open:
                    continue  # it ended between the two reads: the lock is free now
                return waiting.join(
                    deps, operation.external_id, holder, operation.digest, operation.kind.value, secrets=sealed
                )
        waiting.send(deps, operation)
        return operation
    raise Refused(f"snapshot of {operation.external_id} is being changed by others: try again in a moment")


def _known(deps: Deps, plugin_id: str) -> Plugin:
    plugin = deps.plugins.get(plugin_id) if plugin_id else None
    if plugin is None:
        raise Refused("no such plugin")
    return plugin
