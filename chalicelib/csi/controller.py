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
from chalicelib.domain.plugin import Instance
from chalicelib.domain.volume import Capability, Volume
from chalicelib.errors import PluginError, PluginRejected, PluginUnreachable


@dataclass(frozen=True, slots=True)
class Controller:
    """The healthy controllers of one plugin."""

    plugin_id: str
    instances: Sequence[Instance]
    channels: Channels
    pick: Callable[[int], int]

    def call(self, rpc: str, request: Any, answer: Any, *, seconds: float, attempt: Attempt | None = None) -> Any:
        healthy = [i for i in self.instances if i.controller and i.healthy]
        if not healthy:
            raise PluginUnreachable(f"no healthy controllers for CSI plugin: {self.plugin_id}", code="UNAVAILABLE")
        instance = healthy[self.pick(len(healthy)) % len(healthy)]
        return invoke(
            self.channels,
            instance,
            service="Controller",
            rpc=rpc,
            request=request,
            answer=answer,
            seconds=seconds,
            attempt=attempt,
        )


def create_volume(
    controller: Controller, volume: Volume, *, name: str, secrets: Mapping[str, str], seconds: float, attempt: Attempt
) -> dict[str, Any]:
    """CreateVolume: the fields of the volume that the provider decided."""
    request = csi.CreateVolumeRequest(
        name=name,
        capacity_range=convert.capacity_range(volume.capacity_min, volume.capacity_max),
        volume_capabilities=convert.capabilities(volume.capabilities, volume.mount_options),
        parameters=dict(volume.parameters or {}),
        secrets=dict(secrets),
        volume_content_source=convert.content_source(volume),
        accessibility_requirements=convert.topology_requirement(volume.topology_request),
    )
    try:
        made = controller.call(
            "CreateVolume", request, csi.CreateVolumeResponse, seconds=seconds, attempt=attempt
        ).volume
    except PluginError as exc:
        exc.text = "controller create volume: CSI.ControllerCreateVolume: " + _create_text(volume, exc)
        raise
    return {
        "external_id": made.volume_id,
        "capacity": int(made.capacity_bytes),
        "context": dict(made.volume_context),
        "topologies": tuple(dict(t.segments) for t in made.accessible_topology),
        # The provider's word on the source replaces the request's only when it gives one.
        "snapshot_id": made.content_source.snapshot.snapshot_id or volume.snapshot_id,
        "clone_id": made.content_source.volume.volume_id or volume.clone_id,
    }


def delete_volume(
    controller: Controller, external_id: str, *, secrets: Mapping[str, str], seconds: float, attempt: Attempt
) -> None:
    """DeleteVolume; a volume that is not there is deleted."""
    request = csi.DeleteVolumeRequest(volume_id=external_id, secrets=dict(secrets))
    try:
        controller.call("DeleteVolume", request, csi.DeleteVolumeResponse, seconds=seconds, attempt=attempt)
    except Gone:
        return
    except PluginError as exc:
        exc.text = "controller delete volume: CSI.ControllerDeleteVolume: " + exc.text
        raise


def validate_volume(controller: Controller, volume: Volume, *, secrets: Mapping[str, str], seconds: float) -> None:
    """ValidateVolumeCapabilities: the volume exists at the provider and can do what is asked; raises PluginRejected
    if not.
    """
    request = csi.ValidateVolumeCapabilitiesRequest(
        volume_id=volume.external_id,
        volume_context=dict(volume.context or {}),
        volume_capabilities=convert.capabilities(volume.capabilities, volume.mount_options),
        parameters=dict(volume.parameters or {}),
        secrets=dict(secrets),
    )
    head = "controller validate volume: CSI.ControllerValidateVolume: "
    try:
        answer = controller.call(
            "ValidateVolumeCapabilities", request, csi.ValidateVolumeCapabilitiesResponse, seconds=seconds
        )
    except PluginError as exc:
        missing = f'volume "{volume.external_id}" could not be found: ' if exc.code == "NOT_FOUND" else ""
        exc.text = head + missing + exc.text
        raise
    if not answer.HasField("confirmed"):
        raise PluginRejected(f"{head}volume capabilities not confirmed: {answer.message}", code="INVALID_ARGUMENT")
    problem = _unconfirmed(volume.capabilities, answer.confirmed.volume_capabilities)
    if problem:
        raise PluginRejected(head + problem, code="INVALID_ARGUMENT")


def _unconfirmed(wanted: Sequence[Capability], confirmed: Sequence[Any]) -> str:
    """What the plugin confirmed otherwise than asked, empty if nothing (CSI spec: `confirmed` must be a superset of
    the request).
    """
    asked = {c.attachment_mode for c in wanted}
    for capability in confirmed:
        kind = "block-device" if capability.WhichOneof("access_type") == "block" else "file-system"
        if kind not in asked:
            text = f"'{kind}' access type was not requested but was validated by the controller"
            return f"volume capability validation failed: 1 error occurred:\n\t* {text}\n\n"
    return ""


def _create_text(volume: Volume, error: PluginError) -> str:
    source = "&{" + f"{json.dumps(volume.snapshot_id)} {json.dumps(volume.clone_id)}" + "}"
    name = json.dumps(volume.id, ensure_ascii=False)
    heads = {
        "OUT_OF_RANGE": f"unsupported capacity_range for volume {name}: ",
        "ALREADY_EXISTS": f"volume {name} already exists but is incompatible with these parameters: ",
        "INVALID_ARGUMENT": f"volume {name} snapshot source {source} is not compatible with these parameters: ",
        "NOT_FOUND": f"volume {name} content source {source} does not exist: ",
    }
    return heads.get(error.code, "") + error.text
