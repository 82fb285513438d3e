"""Create, delete and list snapshots, and list external volumes. Only the provider has records of them, as in Nomad."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chalicelib.domain.external import ExternalVolume, Page, Snapshot
from chalicelib.domain.operation import Operation
from chalicelib.domain.plugin import Plugin
from chalicelib.domain.secrets import plugin_encryption_context
from chalicelib.errors import Refused, joined
from chalicelib.operations import create_snapshot, delete_snapshot
from chalicelib.service import waiting
from chalicelib.service.deps import Budget, Deps


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """One snapshot that a request asks for."""

    source_volume_id: str
    plugin_id: str
    name: str
    parameters: Mapping[str, str]
    secrets: Mapping[str, str]


def create(deps: Deps, namespace: str, wanted: Sequence[SnapshotRequest], budget: Budget) -> list[Snapshot]:
    """Take the snapshots side by side. If one fails, the others exist.

    Raises Refused with all errors in one text, and OperationPending.
    """
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
            results.append(create_snapshot.result(operation))
        elif operation.answered:
            errors.append(operation.error or operation.last_error)
    if errors:
        raise Refused(joined(errors))
    pending = waiting.unanswered(finished.values())
    if pending:
        raise pending
    return results


def delete(deps: Deps, plugin_id: str, snapshot_id: str, secrets: Mapping[str, str], budget: Budget) -> None:
    """Delete a snapshot at its provider. This succeeds if it is not there. Raises Refused, OperationPending."""
    try:
        plugin = _known(deps, plugin_id)
        if not plugin.controllers_healthy or not plugin.can("CREATE_DELETE_SNAPSHOT"):
            raise Refused("plugin does not support snapshot")
        if not snapshot_id:
            head = 'could not delete "": controller delete snapshot: CSI.ControllerDeleteSnapshot: '
            raise Refused(head + "missing SnapshotID")
        operation = delete_snapshot.start(deps, plugin_id, snapshot_id, secrets)
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
    """Return one page of the provider's snapshots. The token is the plugin's. Raises Refused."""
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
    """Return one page of the provider's volumes, registered or not. The token is the plugin's. Raises Refused."""
    plugin = _known(deps, plugin_id)
    if not plugin.controllers_healthy or not plugin.can("LIST_VOLUMES"):
        raise Refused("unimplemented for this plugin")
    if per_page < 0:
        raise Refused("controller list volumes: CSI.ControllerListVolumes: MaxEntries cannot be negative")
    return deps.plugin_queries.list_volumes(plugin_id, per_page=per_page, next_token=next_token)


def _start_create(deps: Deps, namespace: str, item: SnapshotRequest) -> Operation:
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
    return create_snapshot.start(deps, source, plugin_id, item.name, item.parameters, item.secrets)


def _known(deps: Deps, plugin_id: str) -> Plugin:
    plugin = deps.plugins.get(plugin_id) if plugin_id else None
    if plugin is None:
        raise Refused("no such plugin")
    return plugin
