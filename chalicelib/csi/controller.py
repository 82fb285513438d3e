"""The controller service of a plugin, as operations and questions use it (CSI spec, Controller Service RPC).

Each function makes one call through a healthy instance and raises the PluginError it ended in, in the words in which
a Nomad client reports that error.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chalicelib.csi import convert
from chalicelib.csi.channel import Attempt, Channels, Gone, invoke
from chalicelib.csi.spec import csi_pb2 as csi
from chalicelib.domain.deadlines import call_seconds
from chalicelib.domain.external import ExternalVolume, Page, Snapshot
from chalicelib.domain.outcome import UNUSABLE
from chalicelib.domain.plugin import Instance
from chalicelib.domain.volume import Capability, Made, Volume
from chalicelib.errors import PluginError, PluginRejected, PluginUnreachable


@dataclass(frozen=True, slots=True)
class Controller:
    """The healthy controllers of one plugin."""

    plugin_id: str
    instances: Sequence[Instance]
    channels: Channels
    pick: Callable[[int], int]

    def call(self, rpc: str, request: Any, answer: Any, *, until: float, attempt: Attempt | None = None) -> Any:
        healthy = [i for i in self.instances if i.controller and i.healthy]
        if not healthy:
            raise PluginUnreachable(f"no healthy controllers for CSI plugin: {self.plugin_id}", code="UNAVAILABLE")
        instance = healthy[self.pick(len(healthy)) % len(healthy)]
        # An operation's call has this deadline already, a question's the gateway's.
        until = min(until, self.channels.monotonic() + call_seconds(rpc, instance.deadlines))
        return invoke(
            self.channels,
            instance,
            service="Controller",
            rpc=rpc,
            request=request,
            answer=answer,
            until=until,
            attempt=attempt,
        )


def create_volume(
    controller: Controller, volume: Volume, *, name: str, secrets: Mapping[str, str], until: float, attempt: Attempt
) -> Made:
    """CreateVolume: the fields of the volume that the provider decided."""
    request = csi.CreateVolumeRequest(
        name=name,
        capacity_range=convert.capacity_range(volume.definition.capacity_min, volume.definition.capacity_max),
        volume_capabilities=convert.capabilities(volume.definition.capabilities, volume.definition.mount_options),
        parameters=dict(volume.definition.parameters or {}),
        secrets=dict(secrets),
        volume_content_source=convert.content_source(volume.definition),
        accessibility_requirements=convert.topology_requirement(volume.definition.topology_request),
    )
    try:
        made = controller.call("CreateVolume", request, csi.CreateVolumeResponse, until=until, attempt=attempt).volume
    except PluginError as exc:
        exc.text = "controller create volume: CSI.ControllerCreateVolume: " + _create_text(volume, exc)
        raise
    if not made.volume_id:
        text = "controller create volume: CSI.ControllerCreateVolume: the plugin answered without a volume ID"
        raise PluginRejected(text, code=UNUSABLE)
    return Made(
        external_id=made.volume_id,
        capacity=int(made.capacity_bytes),
        context=dict(made.volume_context),
        topologies=tuple(dict(t.segments) for t in made.accessible_topology),
        # The provider's word on the source replaces the request's only when it gives one.
        snapshot_id=made.content_source.snapshot.snapshot_id or volume.definition.snapshot_id,
        clone_id=made.content_source.volume.volume_id or volume.definition.clone_id,
    )


def delete_volume(
    controller: Controller, external_id: str, *, secrets: Mapping[str, str], until: float, attempt: Attempt
) -> None:
    """DeleteVolume; a volume that is not there is deleted."""
    request = csi.DeleteVolumeRequest(volume_id=external_id, secrets=dict(secrets))
    try:
        controller.call("DeleteVolume", request, csi.DeleteVolumeResponse, until=until, attempt=attempt)
    except Gone:
        return
    except PluginError as exc:
        exc.text = "controller delete volume: CSI.ControllerDeleteVolume: " + exc.text
        raise


def validate_volume(controller: Controller, volume: Volume, *, secrets: Mapping[str, str], until: float) -> None:
    """ValidateVolumeCapabilities: the volume exists at the provider and can do what is asked; raises PluginRejected
    if not.
    """
    request = csi.ValidateVolumeCapabilitiesRequest(
        volume_id=volume.definition.external_id,
        volume_context=dict(volume.definition.context or {}),
        volume_capabilities=convert.capabilities(volume.definition.capabilities, volume.definition.mount_options),
        parameters=dict(volume.definition.parameters or {}),
        secrets=dict(secrets),
    )
    head = "controller validate volume: CSI.ControllerValidateVolume: "
    try:
        answer = controller.call(
            "ValidateVolumeCapabilities", request, csi.ValidateVolumeCapabilitiesResponse, until=until
        )
    except PluginError as exc:
        missing = f'volume "{volume.definition.external_id}" could not be found: ' if exc.code == "NOT_FOUND" else ""
        exc.text = head + missing + exc.text
        raise
    if not answer.HasField("confirmed"):
        raise PluginRejected(f"{head}volume capabilities not confirmed: {answer.message}", code="INVALID_ARGUMENT")
    problem = _unconfirmed(volume.definition.capabilities, answer.confirmed.volume_capabilities)
    if problem:
        raise PluginRejected(head + problem, code="INVALID_ARGUMENT")


def expand_volume(
    controller: Controller,
    volume: Volume,
    *,
    required: int,
    limit: int,
    secrets: Mapping[str, str],
    until: float,
    attempt: Attempt,
) -> int:
    """ControllerExpandVolume: the new capacity in bytes; repeating it changes nothing more."""
    request = csi.ControllerExpandVolumeRequest(
        volume_id=volume.definition.external_id,
        capacity_range=convert.capacity_range(required, limit),
        secrets=dict(secrets),
        volume_capability=convert.capability(volume.definition.capabilities[0], volume.definition.mount_options)
        if volume.definition.capabilities
        else None,
    )
    try:
        answer = controller.call(
            "ControllerExpandVolume", request, csi.ControllerExpandVolumeResponse, until=until, attempt=attempt
        )
    except PluginError as exc:
        heads = {
            "OUT_OF_RANGE": f"unsupported capacity_range for volume {quoted(volume.definition.external_id)}: ",
            "NOT_FOUND": f"volume {quoted(volume.definition.external_id)} could not be found: ",
            "FAILED_PRECONDITION": f"volume {quoted(volume.definition.external_id)} cannot be expanded while in use: ",
        }
        exc.text = "controller expand volume: CSI.ControllerExpandVolume: " + heads.get(exc.code, "") + exc.text
        raise
    return int(answer.capacity_bytes)


def create_snapshot(
    controller: Controller,
    external_id: str,
    *,
    name: str,
    parameters: Mapping[str, str],
    secrets: Mapping[str, str],
    until: float,
    attempt: Attempt,
) -> Snapshot:
    """CreateSnapshot: the snapshot; the same source and name answer the same one."""
    request = csi.CreateSnapshotRequest(
        source_volume_id=external_id, name=name, parameters=dict(parameters), secrets=dict(secrets)
    )
    try:
        answer = controller.call("CreateSnapshot", request, csi.CreateSnapshotResponse, until=until, attempt=attempt)
    except PluginError as exc:
        head = "could not create snapshot: controller create snapshot: CSI.ControllerCreateSnapshot: "
        taken = f"snapshot {quoted(name)} already exists but is incompatible with volume ID {quoted(external_id)}: "
        exc.text = head + (taken if exc.code == "ALREADY_EXISTS" else "") + exc.text
        raise
    return _snapshot(answer.snapshot)


def delete_snapshot(
    controller: Controller, snapshot_id: str, *, secrets: Mapping[str, str], until: float, attempt: Attempt
) -> None:
    """DeleteSnapshot; a snapshot that is not there is deleted."""
    request = csi.DeleteSnapshotRequest(snapshot_id=snapshot_id, secrets=dict(secrets))
    try:
        controller.call("DeleteSnapshot", request, csi.DeleteSnapshotResponse, until=until, attempt=attempt)
    except Gone:
        return
    except PluginError as exc:
        head = f"could not delete {quoted(snapshot_id)}: controller delete snapshot: CSI.ControllerDeleteSnapshot: "
        exc.text = head + exc.text
        raise


def list_volumes(controller: Controller, *, per_page: int, next_token: str, until: float) -> Page[ExternalVolume]:
    """ListVolumes: one page of what the provider has, registered or not."""
    request = csi.ListVolumesRequest(max_entries=per_page, starting_token=next_token)
    try:
        answer = controller.call("ListVolumes", request, csi.ListVolumesResponse, until=until)
    except PluginError as exc:
        exc.text = "controller list volumes: CSI.ControllerListVolumes: " + _token_text(exc, next_token)
        raise
    return Page([_external(entry) for entry in answer.entries], answer.next_token)


def list_snapshots(
    controller: Controller, *, per_page: int, next_token: str, secrets: Mapping[str, str], until: float
) -> Page[Snapshot]:
    """ListSnapshots: one page of the provider's snapshots."""
    request = csi.ListSnapshotsRequest(max_entries=per_page, starting_token=next_token, secrets=dict(secrets))
    try:
        answer = controller.call("ListSnapshots", request, csi.ListSnapshotsResponse, until=until)
    except PluginError as exc:
        exc.text = "controller list snapshots: CSI.ControllerListSnapshots: " + _token_text(exc, next_token)
        raise
    return Page([_snapshot(entry.snapshot) for entry in answer.entries], answer.next_token)


def quoted(text: str) -> str:
    """Text as Go's %q shows it."""
    return json.dumps(text, ensure_ascii=False)


def _token_text(error: PluginError, token: str) -> str:
    return (f"invalid starting token {quoted(token)}: " if error.code == "ABORTED" else "") + error.text


def _snapshot(made: Any) -> Snapshot:
    return Snapshot(
        id=made.snapshot_id,
        source=made.source_volume_id,
        size=int(made.size_bytes),
        create_time=convert.seconds(made.creation_time),
        ready=bool(made.ready_to_use),
    )


def _external(entry: Any) -> ExternalVolume:
    volume, status = entry.volume, entry.status
    return ExternalVolume(
        external_id=volume.volume_id,
        capacity=int(volume.capacity_bytes),
        context=dict(volume.volume_context),
        clone_id=volume.content_source.volume.volume_id,
        snapshot_id=volume.content_source.snapshot.snapshot_id,
        published=list(status.published_node_ids),
        abnormal=bool(status.volume_condition.abnormal),
        status=status.volume_condition.message,
    )


def _unconfirmed(wanted: Sequence[Capability], confirmed: Sequence[Any]) -> str:
    """What the plugin confirmed beside what was asked, empty if nothing.

    As recorded: every confirmed access type is held against every requested one, so a request for both is refused.
    """
    asked = {c.attachment_mode for c in wanted}
    for capability in confirmed:
        kind = "block-device" if capability.WhichOneof("access_type") == "block" else "file-system"
        if asked - {kind}:
            text = f"'{kind}' access type was not requested but was validated by the controller"
            return f"volume capability validation failed: 1 error occurred:\n\t* {text}\n\n"
    return ""


def _create_text(volume: Volume, error: PluginError) -> str:
    source = "&{" + f"{quoted(volume.definition.snapshot_id)} {quoted(volume.definition.clone_id)}" + "}"
    name = quoted(volume.id)
    heads = {
        "OUT_OF_RANGE": f"unsupported capacity_range for volume {name}: ",
        "ALREADY_EXISTS": f"volume {name} already exists but is incompatible with these parameters: ",
        "INVALID_ARGUMENT": f"volume {name} snapshot source {source} is not compatible with these parameters: ",
        "NOT_FOUND": f"volume {name} content source {source} does not exist: ",
    }
    return heads.get(error.code, "") + error.text
