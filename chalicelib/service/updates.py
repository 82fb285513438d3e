"""Updating a volume that is known. One that the new definition makes larger is expanded through its plugin."""

from dataclasses import replace

from chalicelib.domain.merge import VolumeUpdate, merge
from chalicelib.domain.operation import Operation
from chalicelib.domain.plugin import Plugin
from chalicelib.domain.volume import Volume
from chalicelib.errors import Refused, RequestError
from chalicelib.operations import expand_volume, starting
from chalicelib.operations.starting import Started
from chalicelib.service.batches import PendingVolume, VolumeRequest, VolumeResult
from chalicelib.service.deps import Deps
from chalicelib.store import volumes as volume_store
from chalicelib.store.commit import Change, RefusedWrites
from chalicelib.store.index import volume_scope


class UpdateRefused(Refused):
    """An update that the rules or the provider refuse. Create and register say so in different words."""


def refuse_known(known: Volume | None, request: VolumeRequest) -> None:
    """Raise RequestError 412 when the volume exists and the client wants a new one."""
    if known is not None and known.exists and request.only_new:
        raise RequestError(f"volume {known.id} exists: If-None-Match asks for a new one", status=412)


def is_held_by_another(volume: Volume) -> bool:
    """Return whether an operation holds the volume that is no update. An update may be joined."""
    return bool(volume.operation_id) and not expand_volume.is_held(volume)


def refuse_held(volume: Volume) -> None:
    """Raise OperationInProgress when an operation holds the volume that is no update."""
    if is_held_by_another(volume):
        raise starting.in_progress(volume)


def update(deps: Deps, read: Volume, request: VolumeRequest) -> VolumeResult | PendingVolume:
    """Update the volume, which was just read, or start or join its expansion.

    Raises Refused when the volume is gone, UpdateRefused when it may not change so, OperationInProgress when another
    operation holds it, and RequestError 412.
    """

    def build(refused: RefusedWrites) -> Change[VolumeResult | PendingVolume]:
        current = deps.volumes.get(read.namespace, read.id) if refused else read
        if current is None or not current.exists:
            raise Refused(f"volume not found: {read.id}")
        refuse_known(current, request)
        refuse_held(current)
        try:
            merged = merge(current, request.volume)
        except Refused as exc:
            raise UpdateRefused(exc.text) from exc
        plugin = deps.plugins.get(current.plugin_id)
        secrets = deps.seal(request.secrets, current.namespace, current.id) or current.sealed_secrets
        if merged.expansion is not None or current.operation_id:
            return _expand(deps, current, merged, plugin, secrets)
        stored = replace(merged.volume, sealed_secrets=secrets, modify_time=deps.clock.now_ns())
        return Change(
            VolumeResult(0, merged.volume, plugin),
            lambda index: [volume_store.replace_definition(stored, index, read=current)],
        )

    index, outcome = deps.committer.commit(volume_scope(read.namespace), build=build, what=f"volume {read.id}")
    return replace(outcome, index=index) if isinstance(outcome, VolumeResult) else outcome


def _expand(
    deps: Deps, read: Volume, merged: VolumeUpdate, plugin: Plugin | None, secrets: bytes
) -> Change[VolumeResult | PendingVolume]:
    if merged.expansion is None:
        raise starting.in_progress(read)
    if plugin is not None and plugin.awaits_controller:
        raise UpdateRefused(f"no healthy controllers for CSI plugin: {plugin.id}")
    if plugin is None or not plugin.can("EXPAND_VOLUME"):
        raise UpdateRefused("expand is not implemented by this controller plugin")

    def result(operation: Operation) -> VolumeResult:
        return VolumeResult(int(operation.result["index"]), expand_volume.result(merged.volume, operation), plugin)

    def error(text: str) -> UpdateRefused:
        return UpdateRefused(f"unable to expand volume: {text}")

    if read.operation_id:
        joined = expand_volume.join(deps, read, merged.volume)
        return Change(PendingVolume(Started(joined), result, error))
    operation, writes = expand_volume.start(deps, read, merged.volume, merged.expansion, secrets)
    return Change(PendingVolume(Started(operation, new=True), result, error), lambda _: writes, visible=False)
