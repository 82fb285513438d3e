"""What the services share: the profile, the vault, this node's name, and the keys in use."""

import hashlib
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from moorage.spec import csi_pb2 as csi
from moorage_devplugin.holds import Holds
from moorage_devplugin.profile import Profile
from moorage_devplugin.refusal import Refused, invalid
from moorage_devplugin.vault import Vault

LONGEST_SLUG: Final = 63
T = TypeVar("T", bound="InOrder")


class InOrder(Protocol):
    """An item with a place in a list."""

    @property
    def seq(self) -> int: ...


@dataclass
class Plugin:
    """One running plugin."""

    profile: Profile
    vault: Vault
    node_id: str
    nodes: frozenset[str]
    """Every node that volumes can be published to, this one included."""
    capacity: int = 0
    """Bytes that all volumes together may have, or 0 for as much as the disk has free."""
    holds: Holds = field(default_factory=Holds)

    @property
    def topology(self) -> csi.Topology:
        return csi.Topology(segments={self.profile.topology_key: self.node_id})

    def new_id(self, name: str) -> str:
        """Return the ID of a new object. The "named" scheme gives the same name the same readable ID."""
        if self.profile.ids == "uuid":
            return str(uuid.uuid1())
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:LONGEST_SLUG].strip("._-")
        return "-".join(filter(None, (slug, hashlib.sha256(name.encode()).hexdigest()[:10])))


def page(items: Sequence[T], *, token: str, size: int) -> tuple[Sequence[T], str]:
    """Return one page of `items` and the token of the next. Tokens stay valid while items come and go.

    Raises Refused (ABORTED) for a token that was never given out (CSI spec, ListVolumes errors).
    """
    if size < 0:
        raise invalid("max_entries cannot be negative")
    if token and not re.fullmatch(r"after-[0-9]{1,18}", token):
        raise Refused(
            grpc.StatusCode.ABORTED, f'starting_token "{token}" was not given out by this plugin: start again without'
        )
    after = int(token.removeprefix("after-")) if token else 0
    rest = [item for item in items if item.seq > after]
    shown = rest[:size] if size else rest
    return shown, f"after-{shown[-1].seq}" if len(shown) < len(rest) else ""


def timestamp(seconds: float) -> Timestamp:
    """Return seconds since the epoch as a protobuf Timestamp."""
    return Timestamp(seconds=int(seconds), nanos=int(seconds % 1 * 1_000_000) * 1000)


def is_block(capabilities: Iterable[csi.VolumeCapability], mixed: str) -> bool:
    """Return whether all ask for a block device.

    Raises Refused (INVALID_ARGUMENT) if one is incomplete, or, with the text `mixed`, if they differ.
    """
    kinds = set()
    for capability in capabilities:
        kind = capability.WhichOneof("access_type")
        if kind is None:
            raise invalid("access_type of a volume capability is missing: ask for block or mount")
        mode = capability.access_mode.mode
        if mode == csi.VolumeCapability.AccessMode.UNKNOWN or mode not in csi.VolumeCapability.AccessMode.Mode.values():
            raise invalid("access_mode of a volume capability is missing or unknown")
        kinds.add(kind)
    if not kinds:
        raise invalid("volume_capabilities is missing in the request")
    if len(kinds) > 1:
        raise invalid(mixed)
    return kinds == {"block"}
