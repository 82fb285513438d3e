"""Plugins, the nodes that run them, and their capabilities."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from chalicelib.domain.deadlines import SILENT_AFTER


@dataclass(frozen=True, slots=True)
class Instance:
    """One plugin on one node, as its bridge registered it."""

    plugin_id: str
    node_id: str
    address: str
    healthy: bool
    serial: str = ""
    """The serial of the bridge's certificate: hexadecimal, lower case, without leading zeros."""
    provider: str = ""
    provider_version: str = ""
    controller: bool = False
    node: bool = False
    health_description: str = ""
    controller_capabilities: frozenset[str] = frozenset()
    node_capabilities: frozenset[str] = frozenset()
    plugin_capabilities: frozenset[str] = frozenset()
    external_node_id: str = ""
    max_volumes: int = 0
    topology: Mapping[str, str] | None = None
    serialize: str = ""
    deadlines: Mapping[str, float] = field(default_factory=dict)
    grace: float = 0.0
    update_time: int = 0

    @property
    def answered(self) -> bool:
        """Whether the plugin has told its bridge what it is. Its name is what tells: CSI requires one."""
        return bool(self.provider or self.controller or self.node)

    @property
    def stages(self) -> bool:
        """Return whether volumes are staged before they are published (CSI spec, NodeStageVolume)."""
        return "STAGE_UNSTAGE_VOLUME" in self.node_capabilities

    @property
    def topology_capable(self) -> bool:
        return "VOLUME_ACCESSIBILITY_CONSTRAINTS" in self.plugin_capabilities


@dataclass(frozen=True, slots=True)
class LivenessPolicy:
    """When a node whose bridge sends no heartbeat is marked down, and when that counts as an outage on this side."""

    silent_after: float = SILENT_AFTER
    """Seconds without a heartbeat after which the node is marked down."""
    outage_count: int = 2
    outage_share: float = 1 / 3
    """More nodes than `outage_count` *and* than this share of all are an outage. The count is for small clusters, where
    two of three nodes may well fail together.
    """


DEFAULT_LIVENESS: Final = LivenessPolicy()


@dataclass(frozen=True, slots=True)
class Plugin:
    """A CSI driver on all its nodes. The counts equal the instances: both change in one transaction."""

    id: str
    provider: str = ""
    provider_version: str = ""
    controller_required: bool = False
    awaits_controller: bool = False
    """Whether a controller is still to register: the plugin says that it has one, or has not answered yet."""
    controllers_healthy: int = 0
    controllers_expected: int = 0
    nodes_healthy: int = 0
    nodes_expected: int = 0
    instances: int = 0
    controller_capabilities: frozenset[str] = frozenset()
    node_capabilities: frozenset[str] = frozenset()
    plugin_capabilities: frozenset[str] = frozenset()
    serialize: str = ""
    deadlines: Mapping[str, float] = field(default_factory=dict)
    grace: float = 0.0
    create_index: int = 0
    modify_index: int = 0
    create_time: int = 0
    """When the first instance registered, in nanoseconds since the epoch."""

    @property
    def schedulable(self) -> bool:
        """Whether the plugin is healthy enough for one of its volumes to be claimed."""
        return self.nodes_healthy > 0 and (not self.controller_required or self.controllers_healthy > 0)

    def can(self, capability: str) -> bool:
        """Return whether the controller service has the capability (CSI spec, ControllerGetCapabilities)."""
        return capability in self.controller_capabilities


LEFT: Final = "left"
"""Instance ID of a node whose bridge deregistered while something was claimed there."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine with a bridge. `key` is the fingerprint of the public key that its ID is bound to."""

    id: str
    name: str
    address: str
    key: str
    instance_id: str
    sequence: int
    seen_at: float
    healthy: bool = True
    """Whether its bridge sends heartbeats. While it does not, no call to the node is made."""
    down_since: float = 0.0
    """Seconds since the epoch. It is 0 while the node is not down."""
    claims_kept: bool = False
    """Whether it is down together with too many others for it to be its own fault."""
    plugin_ids: tuple[str, ...] = ()
    bridge_version: str = ""
    certificate_pem: str = ""
    create_index: int = 0
    modify_index: int = 0

    @property
    def trouble(self) -> str:
        """Why no call to the node can be made. It is empty while calls can be made."""
        if self.instance_id == LEFT:
            return "the bridge was stopped"
        return "" if self.healthy else "the bridge does not answer"


def is_heard(node: Node | None) -> bool:
    """Return whether calls to the node are made: it is known, and its bridge sends heartbeats."""
    return node is not None and node.healthy
