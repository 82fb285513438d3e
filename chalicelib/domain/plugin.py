"""Plugins, the nodes that run them, and what they say they can do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from chalicelib.domain.deadlines import SILENT_AFTER


@dataclass(frozen=True, slots=True)
class Instance:
    """One plugin on one node: what its bridge registered."""

    plugin_id: str
    node_id: str
    address: str
    healthy: bool
    serial: str = ""
    """Of the bridge's certificate: hexadecimal, lower case, without leading zeros."""
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
        """Whether the plugin ever told its bridge what it is (it must have a name); before that nothing is known."""
        return bool(self.provider or self.controller or self.node)

    @property
    def topology_capable(self) -> bool:
        return "VOLUME_ACCESSIBILITY_CONSTRAINTS" in self.plugin_capabilities


@dataclass(frozen=True, slots=True)
class Patience:
    """How long and how many bridges may be silent before their nodes are marked down."""

    seconds: float = SILENT_AFTER
    few: int = 2
    """So many may fall silent together however few there are: a small cluster has to go on, too."""
    share: float = 1 / 3
    """More than this share of the nodes, and more than `few`, is too many: the fault is more likely on our side."""


USUAL_PATIENCE: Final = Patience()


@dataclass(frozen=True, slots=True)
class Plugin:
    """A CSI driver as the control plane sees it: counts always equal the instances (they change in one transaction)."""

    id: str
    provider: str = ""
    provider_version: str = ""
    controller_required: bool = False
    awaits_controller: bool = False
    """No controller has told what it can, and one is still to come: the plugin says that it has one, or has not said
    anything yet.
    """
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
    """When its first instance registered, in nanoseconds since the epoch."""

    @property
    def schedulable(self) -> bool:
        """Whether a volume of this plugin could be claimed, as far as the plugin goes."""
        return self.nodes_healthy > 0 and (not self.controller_required or self.controllers_healthy > 0)

    def can(self, capability: str) -> bool:
        """Whether the controller service supports an RPC (CSI spec, ControllerGetCapabilities)."""
        return capability in self.controller_capabilities


LEFT: Final = "left"
"""Instance ID of a node whose bridge was stopped in order while something was claimed there."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine with a bridge; `key` is the fingerprint of the public key that its ID is bound to."""

    id: str
    name: str
    address: str
    key: str
    instance_id: str
    sequence: int
    seen_at: float
    healthy: bool = True
    """False while its bridge is silent: nothing can be done on it."""
    down_since: float = 0.0
    """Since when, in seconds since the epoch; zero while it is not."""
    spared: bool = False
    """Down, with too many others for it to be its own fault: what is claimed there is kept."""
    plugin_ids: tuple[str, ...] = ()
    bridge_version: str = ""
    certificate_pem: str = ""
    create_index: int = 0
    modify_index: int = 0

    @property
    def trouble(self) -> str:
        """Why nothing can be done on it, empty while something can."""
        if self.instance_id == LEFT:
            return "the bridge was stopped"
        return "" if self.healthy else "the bridge does not answer"
