"""What a bridge says to the control plane (docs/interfaces.md, section 4)."""

from dataclasses import dataclass

from chalicelib.domain.plugin import Instance


@dataclass(frozen=True, slots=True)
class Registration:
    """A bridge's node and the plugins behind it. It is also the heartbeat."""

    node_id: str
    node_name: str
    instance_id: str
    sequence: int
    address: str
    bridge_version: str
    certificate_pem: str
    instances: tuple[Instance, ...]


@dataclass(frozen=True, slots=True)
class Farewell:
    """The last message of a bridge that stops in order."""

    instance_id: str
    sequence: int
