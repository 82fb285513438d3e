"""Publishing and unpublishing a volume: the controller's calls, and those of the plugin on the node (CSI spec, Node
Service RPC). The node's calls go through that node's bridge, so that no secret is ever given to the machine's users.
"""

from typing import Any

from chalicelib.csi import convert
from chalicelib.csi.channel import Attempt, Channels, Gone, invoke
from chalicelib.csi.controller import Controller
from chalicelib.csi.spec import csi_pb2 as csi
from chalicelib.domain.claim import Use
from chalicelib.domain.plugin import Instance
from chalicelib.domain.volume import Volume
from chalicelib.errors import PluginError, PluginUnreachable


class NodePlugin:
    """The plugin on one node."""

    def __init__(self, plugin_id: str, node_id: str, instance: Instance | None, channels: Channels) -> None:
        self._name, self._instance, self._channels = f"{plugin_id} on node {node_id}", instance, channels

    @property
    def stages(self) -> bool:
        """Whether volumes are staged before they are published (CSI spec, NodeStageVolume)."""
        return self._instance is not None and "STAGE_UNSTAGE_VOLUME" in self._instance.node_capabilities

    def call(self, rpc: str, request: Any, answer: Any, *, until: float, attempt: Attempt) -> Any:
        """One call; raises PluginUnreachable when the node does not run the plugin, or not in health."""
        instance = self._instance
        if instance is None or not instance.node or not instance.healthy:
            raise PluginUnreachable(f"no healthy node plugin: {self._name}", code="UNAVAILABLE")
        return invoke(
            self._channels,
            instance,
            service="Node",
            rpc=rpc,
            request=request,
            answer=answer,
            until=until,
            attempt=attempt,
        )


def publish(
    controller: Controller,
    volume: Volume,
    use: Use,
    *,
    external_node_id: str,
    secrets: dict[str, str],
    until: float,
    attempt: Attempt,
) -> dict[str, str]:
    """ControllerPublishVolume: the context that the node's calls need."""
    request = csi.ControllerPublishVolumeRequest(
        volume_id=volume.definition.external_id,
        node_id=external_node_id,
        volume_capability=convert.capability(use.capability, volume.definition.mount_options),
        readonly=use.read_only,
        secrets=secrets,
        volume_context=dict(volume.definition.context or {}),
    )
    try:
        answer = controller.call(
            "ControllerPublishVolume", request, csi.ControllerPublishVolumeResponse, until=until, attempt=attempt
        )
    except PluginError as exc:
        exc.text = "controller publish: CSI.ControllerAttachVolume: " + exc.text
        raise
    return dict(answer.publish_context)


def unpublish(
    controller: Controller,
    external_id: str,
    *,
    external_node_id: str,
    secrets: dict[str, str],
    until: float,
    attempt: Attempt,
) -> None:
    """ControllerUnpublishVolume; a volume or node that is unknown to the plugin is no obstacle."""
    request = csi.ControllerUnpublishVolumeRequest(volume_id=external_id, node_id=external_node_id, secrets=secrets)
    try:
        controller.call(
            "ControllerUnpublishVolume",
            request,
            csi.ControllerUnpublishVolumeResponse,
            until=until,
            attempt=attempt,
        )
    except Gone:
        return
    except PluginError as exc:
        exc.text = "controller detach volume: CSI.ControllerDetachVolume: " + exc.text
        raise


def stage(
    node: NodePlugin, volume: Volume, use: Use, *, secrets: dict[str, str], until: float, attempt: Attempt
) -> bool:
    """NodeStageVolume; False when the plugin has no such step, and nothing was called."""
    if not node.stages:
        return False
    request = csi.NodeStageVolumeRequest(
        volume_id=volume.definition.external_id,
        publish_context=dict(use.publish_context),
        staging_target_path=use.staging_path,
        volume_capability=convert.capability(use.capability, volume.definition.mount_options),
        secrets=secrets,
        volume_context=dict(volume.definition.context or {}),
    )
    _named(node, "NodeStageVolume", request, csi.NodeStageVolumeResponse, until, attempt)
    return True


def mount(
    node: NodePlugin, volume: Volume, use: Use, *, secrets: dict[str, str], until: float, attempt: Attempt
) -> None:
    """NodePublishVolume: at the target path afterwards."""
    request = csi.NodePublishVolumeRequest(
        volume_id=volume.definition.external_id,
        publish_context=dict(use.publish_context),
        staging_target_path=use.staging_path if node.stages else "",
        target_path=use.target_path,
        volume_capability=convert.capability(use.capability, volume.definition.mount_options),
        readonly=use.read_only,
        secrets=secrets,
        volume_context=dict(volume.definition.context or {}),
    )
    _named(node, "NodePublishVolume", request, csi.NodePublishVolumeResponse, until, attempt)


def unmount(node: NodePlugin, external_id: str, *, path: str, until: float, attempt: Attempt) -> None:
    """NodeUnpublishVolume; what is not published is unpublished."""
    request = csi.NodeUnpublishVolumeRequest(volume_id=external_id, target_path=path)
    _undone(node, "NodeUnpublishVolume", request, csi.NodeUnpublishVolumeResponse, until, attempt)


def unstage(node: NodePlugin, external_id: str, *, path: str, until: float, attempt: Attempt) -> None:
    """NodeUnstageVolume, where the plugin has it; what is not staged is unstaged."""
    if not node.stages:
        return
    request = csi.NodeUnstageVolumeRequest(volume_id=external_id, staging_target_path=path)
    _undone(node, "NodeUnstageVolume", request, csi.NodeUnstageVolumeResponse, until, attempt)


def _undone(node: NodePlugin, rpc: str, request: Any, answer: Any, until: float, attempt: Attempt) -> None:
    try:
        _named(node, rpc, request, answer, until, attempt)
    except Gone:
        return


def _named(node: NodePlugin, rpc: str, request: Any, answer: Any, until: float, attempt: Attempt) -> None:
    try:
        node.call(rpc, request, answer, until=until, attempt=attempt)
    except PluginError as exc:
        exc.text = f"CSI.{rpc}: {exc.text}"
        raise
