"""The worker's side of plugins: finds a healthy controller and makes the call. Imports grpc, so only the worker's
functions load it.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from chalicelib import tracing
from chalicelib.clock import Clock
from chalicelib.csi import controller, publishing
from chalicelib.csi.channel import Attempt, Channels
from chalicelib.domain.claim import Use
from chalicelib.domain.external import Snapshot
from chalicelib.domain.operation import How
from chalicelib.domain.volume import Made, Volume
from chalicelib.store.plugins import PluginStore


@dataclass(frozen=True)
class Worker:
    """Calls to the controllers of plugins; each raises the PluginError it ended in."""

    plugins: PluginStore
    channels: Channels
    clock: Clock

    def create_volume(
        self,
        plugin_id: str,
        volume: Volume,
        *,
        name: str,
        secrets: Mapping[str, str],
        until: float,
        attempt: tuple[str, int],
    ) -> Made:
        with tracing.subsegment("CreateVolume", plugin_id=plugin_id, operation_id=attempt[0]):
            return controller.create_volume(
                self.controller(plugin_id),
                volume,
                name=name,
                secrets=secrets,
                until=until,
                attempt=Attempt(*attempt),
            )

    def delete_volume(
        self, plugin_id: str, external_id: str, *, secrets: Mapping[str, str], until: float, attempt: tuple[str, int]
    ) -> None:
        with tracing.subsegment("DeleteVolume", plugin_id=plugin_id, operation_id=attempt[0]):
            controller.delete_volume(
                self.controller(plugin_id), external_id, secrets=secrets, until=until, attempt=Attempt(*attempt)
            )

    def expand_volume(
        self,
        plugin_id: str,
        volume: Volume,
        *,
        required: int,
        limit: int,
        secrets: Mapping[str, str],
        until: float,
        attempt: tuple[str, int],
    ) -> int:
        with tracing.subsegment("ControllerExpandVolume", plugin_id=plugin_id, operation_id=attempt[0]):
            return controller.expand_volume(
                self.controller(plugin_id),
                volume,
                required=required,
                limit=limit,
                secrets=secrets,
                until=until,
                attempt=Attempt(*attempt),
            )

    def create_snapshot(
        self,
        plugin_id: str,
        external_id: str,
        *,
        name: str,
        parameters: Mapping[str, str],
        secrets: Mapping[str, str],
        until: float,
        attempt: tuple[str, int],
    ) -> Snapshot:
        with tracing.subsegment("CreateSnapshot", plugin_id=plugin_id, operation_id=attempt[0]):
            return controller.create_snapshot(
                self.controller(plugin_id),
                external_id,
                name=name,
                parameters=parameters,
                secrets=secrets,
                until=until,
                attempt=Attempt(*attempt),
            )

    def delete_snapshot(
        self,
        plugin_id: str,
        external_id: str,
        *,
        secrets: Mapping[str, str],
        until: float,
        attempt: tuple[str, int],
    ) -> None:
        with tracing.subsegment("DeleteSnapshot", plugin_id=plugin_id, operation_id=attempt[0]):
            controller.delete_snapshot(
                self.controller(plugin_id), external_id, secrets=secrets, until=until, attempt=Attempt(*attempt)
            )

    def publish(self, volume: Volume, use: Use, *, external_node_id: str, how: How) -> dict[str, str]:
        with self._traced("ControllerPublishVolume", volume.plugin_id, how):
            controller = self.controller(volume.plugin_id)
            return publishing.publish(controller, volume, use, external_node_id=external_node_id, **_parts(how))

    def unpublish(self, plugin_id: str, external_id: str, *, external_node_id: str, how: How) -> None:
        with self._traced("ControllerUnpublishVolume", plugin_id, how):
            controller = self.controller(plugin_id)
            publishing.unpublish(controller, external_id, external_node_id=external_node_id, **_parts(how))

    def stage(self, volume: Volume, use: Use, *, node_id: str, how: How) -> bool:
        with self._traced("NodeStageVolume", volume.plugin_id, how):
            return publishing.stage(self.node_plugin(volume.plugin_id, node_id), volume, use, **_parts(how))

    def mount(self, volume: Volume, use: Use, *, node_id: str, how: How) -> None:
        with self._traced("NodePublishVolume", volume.plugin_id, how):
            publishing.mount(self.node_plugin(volume.plugin_id, node_id), volume, use, **_parts(how))

    def unmount(self, plugin_id: str, external_id: str, *, node_id: str, path: str, how: How) -> None:
        with self._traced("NodeUnpublishVolume", plugin_id, how):
            node, attempt = self.node_plugin(plugin_id, node_id), Attempt(*how.attempt)
            publishing.unmount(node, external_id, path=path, until=how.until, attempt=attempt)

    def unstage(self, plugin_id: str, external_id: str, *, node_id: str, path: str, how: How) -> None:
        with self._traced("NodeUnstageVolume", plugin_id, how):
            node, attempt = self.node_plugin(plugin_id, node_id), Attempt(*how.attempt)
            publishing.unstage(node, external_id, path=path, until=how.until, attempt=attempt)

    def node_plugin(self, plugin_id: str, node_id: str) -> publishing.NodePlugin:
        """The plugin on that node as it is registered now."""
        instance = self.plugins.instance(plugin_id, node_id)
        return publishing.NodePlugin(plugin_id, node_id, instance, self.channels)

    def _traced(self, rpc: str, plugin_id: str, how: How) -> AbstractContextManager[None]:
        return tracing.subsegment(rpc, plugin_id=plugin_id, operation_id=how.attempt[0])

    def controller(self, plugin_id: str) -> controller.Controller:
        """The plugin's controllers as they are registered now."""
        return controller.Controller(
            plugin_id, self.plugins.instances(plugin_id), self.channels, lambda count: int(self.clock.jitter() * count)
        )


def _parts(how: How) -> dict[str, Any]:
    return {"secrets": dict(how.secrets), "until": how.until, "attempt": Attempt(*how.attempt)}
