"""What a provider has, as its plugin lists it, registered here or not. Sizes are in bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ExternalVolume:
    """One entry of ListVolumes (CSI spec, ListVolumes)."""

    external_id: str
    capacity: int = 0
    context: Mapping[str, str] | None = None
    clone_id: str = ""
    snapshot_id: str = ""
    published: Sequence[str] = ()
    """IDs of nodes, as the provider names them."""
    abnormal: bool = False
    status: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot (CSI spec, CreateSnapshot). `create_time` is in epoch seconds, `source` is an external ID."""

    id: str
    source: str = ""
    size: int = 0
    create_time: int = 0
    ready: bool = False


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a provider's list. The token is the plugin's, and empty on the last page."""

    entries: Sequence[T]
    next_token: str
