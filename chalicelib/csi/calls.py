"""The client of CSI plugins: one method for each RPC, named as CSI names it.

Each method makes at most one call, through the bridge of a healthy instance. It raises the PluginError that the call
ended in, with the text that a Nomad client shows for it. The methods that undo something return as usual when the
plugin answers that there is nothing to undo.

The node's calls go through the bridge too, so that no user of the machine ever sees a secret.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from google.protobuf.message import Message

from chalicelib.csi import convert
from chalicelib.csi.channel import Channels, Gone, invoke, rpc_of
from chalicelib.csi.spec import csi_pb2 as csi
from chalicelib.csi.texts import create_hints, expand_hints, list_hints, quoted, reported_as
from chalicelib.domain.call import CallOptions
from chalicelib.domain.claim import Use
from chalicelib.domain.deadlines import call_seconds
from chalicelib.domain.external import ExternalVolume, Page, Snapshot
from chalicelib.domain.outcome import UNUSABLE
from chalicelib.domain.plugin import Instance
from chalicelib.domain.volume import Made, Volume
from chalicelib.errors import PluginRejected, PluginUnreachable

A = TypeVar("A", bound=Message)


@dataclass(frozen=True, slots=True)
class CsiCalls:
    """Calls to plugins, which it finds by `instances` (of a plugin) and `instance` (of a plugin on a node)."""

    instances: Callable[[str], Sequence[Instance]]
    instance: Callable[[str, str], Instance | None]
    channels: Channels
    jitter: Callable[[], float]
    """Returns a number from 0 up to 1, which chooses among healthy controllers."""

    # Controller service: volumes

    def create_volume(self, volume: Volume, *, name: str, call: CallOptions) -> Made:
        """Create a volume, and return what the provider decided about it. Repeats find it by `name`."""
        asked = volume.definition
        request = csi.CreateVolumeRequest(
            name=name,
            capacity_range=convert.capacity_range(asked.capacity_min, asked.capacity_max),
            volume_capabilities=convert.capabilities(asked.capabilities, asked.mount_options),
            parameters=dict(asked.parameters or {}),
            secrets=call.secrets,
            volume_content_source=convert.content_source(asked),
            accessibility_requirements=convert.topology_requirement(asked.topology_request),
        )
        with reported_as("controller create volume: CSI.ControllerCreateVolume: ", create_hints(volume.id, asked)):
            made = self._controller(volume.plugin_id, request, csi.CreateVolumeResponse, call).volume
            if not made.volume_id:
                raise PluginRejected("the plugin answered without a volume ID", code=UNUSABLE)
        return convert.made(made, asked)

    def delete_volume(self, plugin_id: str, external_id: str, *, call: CallOptions) -> None:
        """Delete a volume by its external ID."""
        request = csi.DeleteVolumeRequest(volume_id=external_id, secrets=call.secrets)
        with suppress(Gone), reported_as("controller delete volume: CSI.ControllerDeleteVolume: "):
            self._controller(plugin_id, request, csi.DeleteVolumeResponse, call)

    def controller_expand_volume(self, volume: Volume, *, required: int, limit: int, call: CallOptions) -> int:
        """Expand a volume to `required` bytes, at most `limit` (0: no limit), and return its size in bytes."""
        external_id, modes = volume.definition.external_id, volume.definition.capabilities
        request = csi.ControllerExpandVolumeRequest(
            volume_id=external_id,
            capacity_range=convert.capacity_range(required, limit),
            secrets=call.secrets,
            # CSI has room for one: it tells the plugin whether the volume is a block device or a file system.
            volume_capability=convert.capability(modes[0], volume.definition.mount_options) if modes else None,
        )
        with reported_as("controller expand volume: CSI.ControllerExpandVolume: ", expand_hints(external_id)):
            answer = self._controller(volume.plugin_id, request, csi.ControllerExpandVolumeResponse, call)
        return int(answer.capacity_bytes)

    def validate_volume_capabilities(self, volume: Volume, *, call: CallOptions) -> None:
        """Raise PluginRejected unless the volume exists at its provider and can do what its definition says."""
        asked = volume.definition
        request = csi.ValidateVolumeCapabilitiesRequest(
            volume_id=asked.external_id,
            volume_context=dict(asked.context or {}),
            volume_capabilities=convert.capabilities(asked.capabilities, asked.mount_options),
            parameters=dict(asked.parameters or {}),
            secrets=call.secrets,
        )
        hints = {"NOT_FOUND": f'volume "{asked.external_id}" could not be found: '}
        with reported_as("controller validate volume: CSI.ControllerValidateVolume: ", hints):
            answer = self._controller(volume.plugin_id, request, csi.ValidateVolumeCapabilitiesResponse, call)
            if not answer.HasField("confirmed"):
                raise PluginRejected(f"volume capabilities not confirmed: {answer.message}", code="INVALID_ARGUMENT")
            problem = convert.unconfirmed(asked.capabilities, answer.confirmed.volume_capabilities)
            if problem:
                raise PluginRejected(problem, code="INVALID_ARGUMENT")

    def list_volumes(
        self, plugin_id: str, *, per_page: int, next_token: str, call: CallOptions
    ) -> Page[ExternalVolume]:
        """Return one page of the provider's volumes, registered or not. 0 per page lets the plugin choose."""
        request = csi.ListVolumesRequest(max_entries=per_page, starting_token=next_token)
        with reported_as("controller list volumes: CSI.ControllerListVolumes: ", list_hints(next_token)):
            answer = self._controller(plugin_id, request, csi.ListVolumesResponse, call)
        return Page([convert.external_volume(entry) for entry in answer.entries], answer.next_token)

    # Controller service: snapshots

    def create_snapshot(
        self, plugin_id: str, external_id: str, *, name: str, parameters: Mapping[str, str], call: CallOptions
    ) -> Snapshot:
        """Take a snapshot of a volume, and return it. Repeats find it by `name` and volume."""
        request = csi.CreateSnapshotRequest(
            source_volume_id=external_id, name=name, parameters=parameters, secrets=call.secrets
        )
        head = "could not create snapshot: controller create snapshot: CSI.ControllerCreateSnapshot: "
        taken = f"snapshot {quoted(name)} already exists but is incompatible with volume ID {quoted(external_id)}: "
        with reported_as(head, {"ALREADY_EXISTS": taken}):
            answer = self._controller(plugin_id, request, csi.CreateSnapshotResponse, call)
        return convert.snapshot(answer.snapshot)

    def delete_snapshot(self, plugin_id: str, snapshot_id: str, *, call: CallOptions) -> None:
        """Delete a snapshot."""
        request = csi.DeleteSnapshotRequest(snapshot_id=snapshot_id, secrets=call.secrets)
        head = f"could not delete {quoted(snapshot_id)}: controller delete snapshot: CSI.ControllerDeleteSnapshot: "
        with suppress(Gone), reported_as(head):
            self._controller(plugin_id, request, csi.DeleteSnapshotResponse, call)

    def list_snapshots(self, plugin_id: str, *, per_page: int, next_token: str, call: CallOptions) -> Page[Snapshot]:
        """Return one page of the provider's snapshots. 0 per page lets the plugin choose."""
        request = csi.ListSnapshotsRequest(max_entries=per_page, starting_token=next_token, secrets=call.secrets)
        with reported_as("controller list snapshots: CSI.ControllerListSnapshots: ", list_hints(next_token)):
            answer = self._controller(plugin_id, request, csi.ListSnapshotsResponse, call)
        return Page([convert.snapshot(entry.snapshot) for entry in answer.entries], answer.next_token)

    # Controller service: publishing

    def controller_publish_volume(
        self, volume: Volume, use: Use, *, external_node_id: str, call: CallOptions
    ) -> dict[str, str]:
        """Attach a volume to a node, and return the publish context that the node's calls need."""
        request = csi.ControllerPublishVolumeRequest(
            volume_id=volume.definition.external_id,
            node_id=external_node_id,
            volume_capability=convert.capability(use.capability, volume.definition.mount_options),
            readonly=use.read_only,
            secrets=call.secrets,
            volume_context=dict(volume.definition.context or {}),
        )
        with reported_as("controller publish: CSI.ControllerAttachVolume: "):
            answer = self._controller(volume.plugin_id, request, csi.ControllerPublishVolumeResponse, call)
        return dict(answer.publish_context)

    def controller_unpublish_volume(
        self, plugin_id: str, external_id: str, *, external_node_id: str, call: CallOptions
    ) -> None:
        """Detach a volume from a node."""
        request = csi.ControllerUnpublishVolumeRequest(
            volume_id=external_id, node_id=external_node_id, secrets=call.secrets
        )
        with suppress(Gone), reported_as("controller detach volume: CSI.ControllerDetachVolume: "):
            self._controller(plugin_id, request, csi.ControllerUnpublishVolumeResponse, call)

    # Node service

    def node_stage_volume(self, volume: Volume, use: Use, *, node_id: str, call: CallOptions) -> None:
        """Stage a volume on a node. A plugin that does not stage is not called."""
        instance = self._instance_on(volume.plugin_id, node_id)
        if not instance.stages:
            return
        request = csi.NodeStageVolumeRequest(
            volume_id=volume.definition.external_id,
            publish_context=use.publish_context,
            staging_target_path=use.staging_path,
            volume_capability=convert.capability(use.capability, volume.definition.mount_options),
            secrets=call.secrets,
            volume_context=dict(volume.definition.context or {}),
        )
        self._node(instance, request, csi.NodeStageVolumeResponse, call)

    def node_publish_volume(self, volume: Volume, use: Use, *, node_id: str, call: CallOptions) -> None:
        """Mount a volume at its target path on a node."""
        instance = self._instance_on(volume.plugin_id, node_id)
        request = csi.NodePublishVolumeRequest(
            volume_id=volume.definition.external_id,
            publish_context=use.publish_context,
            staging_target_path=use.staging_path if instance.stages else "",
            target_path=use.target_path,
            volume_capability=convert.capability(use.capability, volume.definition.mount_options),
            readonly=use.read_only,
            secrets=call.secrets,
            volume_context=dict(volume.definition.context or {}),
        )
        self._node(instance, request, csi.NodePublishVolumeResponse, call)

    def node_unpublish_volume(
        self, plugin_id: str, external_id: str, *, node_id: str, path: str, call: CallOptions
    ) -> None:
        """Unmount a volume from its target path on a node."""
        request = csi.NodeUnpublishVolumeRequest(volume_id=external_id, target_path=path)
        with suppress(Gone):
            self._node(self._instance_on(plugin_id, node_id), request, csi.NodeUnpublishVolumeResponse, call)

    def node_unstage_volume(
        self, plugin_id: str, external_id: str, *, node_id: str, path: str, call: CallOptions
    ) -> None:
        """Unstage a volume on a node. A plugin that does not stage is not called."""
        instance = self._instance_on(plugin_id, node_id)
        if not instance.stages:
            return
        request = csi.NodeUnstageVolumeRequest(volume_id=external_id, staging_target_path=path)
        with suppress(Gone):
            self._node(instance, request, csi.NodeUnstageVolumeResponse, call)

    def _controller(self, plugin_id: str, request: Message, answer: type[A], call: CallOptions) -> A:
        healthy = [i for i in self.instances(plugin_id) if i.controller and i.healthy]
        if not healthy:
            raise PluginUnreachable(f"no healthy controllers for CSI plugin: {plugin_id}", code="UNAVAILABLE")
        instance = healthy[int(self.jitter() * len(healthy)) % len(healthy)]
        # An operation's call has this deadline already. A query has the gateway's, which may be later.
        until = self.channels.monotonic() + call_seconds(rpc_of(request), instance.deadlines)
        call = replace(call, until=min(call.until, until))
        return invoke(self.channels, instance, request, answer, call, service="Controller")

    def _node(self, instance: Instance, request: Message, answer: type[A], call: CallOptions) -> A:
        with reported_as(f"CSI.{rpc_of(request)}: "):
            if not (instance.node and instance.healthy):
                text = f"no healthy node plugin: {instance.plugin_id} on node {instance.node_id}"
                raise PluginUnreachable(text, code="UNAVAILABLE")
            return invoke(self.channels, instance, request, answer, call, service="Node")

    def _instance_on(self, plugin_id: str, node_id: str) -> Instance:
        """Return the plugin's instance on a node, an unhealthy one if the node does not run the plugin."""
        return self.instance(plugin_id, node_id) or Instance(plugin_id, node_id, address="", healthy=False)
