"""The worker's side of plugins: finds a healthy controller and makes the call. Imports grpc, so only the worker's
functions load it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chalicelib import tracing
from chalicelib.clock import Clock
from chalicelib.csi import controller
from chalicelib.csi.channel import Attempt, Channels
from chalicelib.domain.volume import Volume
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
        seconds: float,
        attempt: tuple[str, int],
    ) -> dict[str, Any]:
        with tracing.subsegment("CreateVolume", plugin_id=plugin_id, operation_id=attempt[0]):
            return controller.create_volume(
                self.controller(plugin_id),
                volume,
                name=name,
                secrets=secrets,
                seconds=seconds,
                attempt=Attempt(*attempt),
            )

    def delete_volume(
        self, plugin_id: str, external_id: str, *, secrets: Mapping[str, str], seconds: float, attempt: tuple[str, int]
    ) -> None:
        with tracing.subsegment("DeleteVolume", plugin_id=plugin_id, operation_id=attempt[0]):
            controller.delete_volume(
                self.controller(plugin_id), external_id, secrets=secrets, seconds=seconds, attempt=Attempt(*attempt)
            )

    def expand_volume(
        self,
        plugin_id: str,
        volume: Volume,
        *,
        required: int,
        limit: int,
        secrets: Mapping[str, str],
        seconds: float,
        attempt: tuple[str, int],
    ) -> int:
        with tracing.subsegment("ControllerExpandVolume", plugin_id=plugin_id, operation_id=attempt[0]):
            return controller.expand_volume(
                self.controller(plugin_id),
                volume,
                required=required,
                limit=limit,
                secrets=secrets,
                seconds=seconds,
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
        seconds: float,
        attempt: tuple[str, int],
    ) -> dict[str, Any]:
        with tracing.subsegment("CreateSnapshot", plugin_id=plugin_id, operation_id=attempt[0]):
            return controller.create_snapshot(
                self.controller(plugin_id),
                external_id,
                name=name,
                parameters=parameters,
                secrets=secrets,
                seconds=seconds,
                attempt=Attempt(*attempt),
            )

    def delete_snapshot(
        self,
        plugin_id: str,
        external_id: str,
        *,
        secrets: Mapping[str, str],
        seconds: float,
        attempt: tuple[str, int],
    ) -> None:
        with tracing.subsegment("DeleteSnapshot", plugin_id=plugin_id, operation_id=attempt[0]):
            controller.delete_snapshot(
                self.controller(plugin_id), external_id, secrets=secrets, seconds=seconds, attempt=Attempt(*attempt)
            )

    def controller(self, plugin_id: str) -> controller.Controller:
        """The plugin's controllers as they are registered now."""
        return controller.Controller(
            plugin_id, self.plugins.instances(plugin_id), self.channels, lambda count: int(self.clock.jitter() * count)
        )
