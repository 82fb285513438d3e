"""Check each plugin: whether it answers, and what it can do."""

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from moorage.bridge.relay import LARGEST_MESSAGE
from moorage.bridge.settings import PluginSettings
from moorage.spec import csi_pb2 as csi

ANSWER_SECONDS: Final = 5.0
CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_send_message_length", LARGEST_MESSAGE),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
)
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fingerprint:
    """What a plugin said about itself when it last answered."""

    provider: str = ""
    provider_version: str = ""
    plugin_capabilities: tuple[str, ...] = ()
    controller_capabilities: tuple[str, ...] = ()
    node_capabilities: tuple[str, ...] = ()
    controller: bool = False
    node: bool = False
    external_node_id: str = ""
    max_volumes: int = 0
    segments: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Health:
    """A plugin's health now. The fingerprint is its last one, also while it does not answer."""

    healthy: bool = False
    description: str = "has not answered yet"
    fingerprint: Fingerprint = field(default_factory=Fingerprint)


class Watch:
    """One plugin's channel and health. `changed` is called after each change that the control plane should know."""

    def __init__(self, settings: PluginSettings, changed: Callable[[], None], *, every: float) -> None:
        self.settings = settings
        self.health = Health()
        self.channel = grpc.aio.insecure_channel(settings.target, options=CHANNEL_OPTIONS)
        self._changed, self._every = changed, every
        self._look_now = asyncio.Event()

    def look_now(self) -> None:
        """Ask the plugin now instead of after the interval."""
        self._look_now.set()

    async def run(self) -> None:
        """Ask the plugin until cancelled: at intervals, when the connection changes, and after `look_now`."""
        connection = asyncio.create_task(self._follow_connection())
        try:
            while True:
                self._look_now.clear()
                await self.look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._every):
                        await self._look_now.wait()
        finally:
            connection.cancel()
            await asyncio.gather(connection, return_exceptions=True)

    async def look(self) -> Health:
        """Ask the plugin for its health and fingerprint, and return them."""
        try:
            found = Health(True, "", await self._fingerprint())
        except grpc.aio.AioRpcError as exc:
            text = f"{exc.code().name}: {exc.details() or 'no details'}"
            found = Health(False, text, self.health.fingerprint)
        except _NotReady as exc:
            found = Health(False, str(exc), exc.fingerprint)
        if found != self.health:
            before, self.health = self.health, found
            if before.healthy != found.healthy or before.description != found.description:
                extra = {"plugin": self.settings.plugin_id, "healthy": found.healthy, "text": found.description}
                log.log(logging.INFO if found.healthy else logging.WARNING, "plugin's health changed", extra=extra)
            if dataclasses.replace(before, description="") != dataclasses.replace(found, description=""):
                self._changed()
        return self.health

    async def _follow_connection(self) -> None:
        while True:
            state = self.channel.get_state(try_to_connect=True)
            await self.channel.wait_for_state_change(state)
            self._look_now.set()

    async def _fingerprint(self) -> Fingerprint:
        info = await self._ask("Identity", "GetPluginInfo")
        abilities = await self._ask("Identity", "GetPluginCapabilities")
        names = tuple(_plugin_capability(one) for one in abilities.capabilities)
        found = Fingerprint(info.name, info.vendor_version, names)
        if "CONTROLLER_SERVICE" in names:
            found = await self._with_controller(found)
        found = await self._with_node(found)
        probe = await self._ask("Identity", "Probe")
        if probe.HasField("ready") and not probe.ready.value:
            raise _NotReady(found)
        return found

    async def _with_controller(self, found: Fingerprint) -> Fingerprint:
        try:
            answer = await self._ask("Controller", "ControllerGetCapabilities")
        except grpc.aio.AioRpcError as exc:
            if exc.code() is grpc.StatusCode.UNIMPLEMENTED:  # a node's half: it has a controller elsewhere
                return found
            raise
        types = csi.ControllerServiceCapability.RPC.Type
        names = tuple(_name(types, one.rpc.type) for one in answer.capabilities)
        return dataclasses.replace(found, controller=True, controller_capabilities=names)

    async def _with_node(self, found: Fingerprint) -> Fingerprint:
        try:
            answer = await self._ask("Node", "NodeGetCapabilities")
            info = await self._ask("Node", "NodeGetInfo")
        except grpc.aio.AioRpcError as exc:
            if exc.code() is grpc.StatusCode.UNIMPLEMENTED:  # a plugin with a controller service only
                return found
            raise
        types = csi.NodeServiceCapability.RPC.Type
        return dataclasses.replace(
            found,
            node=True,
            node_capabilities=tuple(_name(types, one.rpc.type) for one in answer.capabilities),
            external_node_id=info.node_id,
            max_volumes=info.max_volumes_per_node,
            segments=tuple(sorted(info.accessible_topology.segments.items())),
        )

    async def _ask(self, service: str, rpc: str) -> Any:
        request, response = getattr(csi, f"{rpc}Request"), getattr(csi, f"{rpc}Response")
        call = self.channel.unary_unary(
            f"/csi.v1.{service}/{rpc}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return await call(request(), timeout=ANSWER_SECONDS)


class _NotReady(Exception):
    def __init__(self, fingerprint: Fingerprint) -> None:
        super().__init__("answers Probe with: not ready")
        self.fingerprint = fingerprint


def plugin_json(watch: Watch) -> dict[str, Any]:
    """Return the plugin's JSON for `PUT /v1/bridge/:node_id` (docs/interfaces.md, section 4)."""
    settings, health, found = watch.settings, watch.health, watch.health.fingerprint
    body: dict[str, Any] = {
        "ID": settings.plugin_id,
        "Healthy": health.healthy,
        "HealthDescription": health.description,
        "Provider": found.provider,
        "ProviderVersion": found.provider_version,
        "ControllerCapabilities": list(found.controller_capabilities),
        "NodeCapabilities": list(found.node_capabilities),
        "PluginCapabilities": list(found.plugin_capabilities),
        "Controller": found.controller,
        "Node": found.node,
        "NodeInfo": {
            "ID": found.external_node_id,
            "MaxVolumes": found.max_volumes,
            "AccessibleTopology": {"Segments": dict(found.segments)},
        },
        "Serialize": settings.serialize,
    }
    if settings.deadlines:
        body["DeadlineSeconds"] = dict(settings.deadlines)
    if settings.grace_seconds is not None:
        body["GraceSeconds"] = settings.grace_seconds
    return body


def _plugin_capability(one: csi.PluginCapability) -> str:
    if one.WhichOneof("type") == "volume_expansion":
        return f"VOLUME_EXPANSION_{_name(csi.PluginCapability.VolumeExpansion.Type, one.volume_expansion.type)}"
    return _name(csi.PluginCapability.Service.Type, one.service.type)


def _name(enum: Any, number: int) -> str:
    """Return the name of a capability, or its number if a later CSI added it."""
    return str(enum.Name(number)) if number in enum.values() else str(number)
