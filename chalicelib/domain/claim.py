"""Claims: who may use a volume, and the states of a claim.

The rules are Nomad's. The first claim on a volume sets the access mode and the attachment mode in force, and the last
one to be freed clears them. A past claim counts until it is free: the storage may still be mounted on its node, and
another writer must not be let in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from chalicelib.domain.volume import Capability, Volume

READ: Final = "read"
WRITE: Final = "write"

MAX_CLAIMS: Final = "volume max claims reached"
UNSCHEDULABLE: Final = "volume is currently unschedulable"
EXCLUDES: Final[Mapping[tuple[str, str], frozenset[str]]] = {
    ("single-node-reader-only", READ): frozenset({"readers"}),
    ("single-node-writer", READ): frozenset({"readers", "writers"}),
    ("single-node-writer", WRITE): frozenset({"readers", "writers"}),
    ("multi-node-single-writer", WRITE): frozenset({"writers"}),
}
"""Access mode and claim mode, and the volume's counters that must be zero for such a claim. A pair without a row
excludes no other claim. `has_room` and the condition of the write (store/claims.py) both read this table.

The table counts claims, not nodes. A single-node mode stays on one node only because it admits one claim at a time. So
a claim that excludes others is freed only with proof that its node has let go (`Claim.needs_proof`).
"""
READ_ONLY: Final = frozenset({"single-node-reader-only", "multi-node-reader-only"})
"""Access modes that no claim writes in."""


class ClaimState(StrEnum):
    """State of a claim. All but TAKEN are past."""

    TAKEN = "taken"
    UNPUBLISHING = "unpublishing"
    """Released, but the volume may still be mounted on the node."""
    NODE_DETACHED = "node-detached"
    """Not mounted on the node any more, but still attached to it. `Claim.node` is the proof. In a row of 0.1.0, which
    has no `node`, this state is none: its NodeUnpublishVolume may have been skipped.
    """


class NodeState(StrEnum):
    """Where a claim's volume may be on its node. A publish only moves it up, and a release only down.

    A publish moves it before its call: to STAGED before NodeStageVolume, to MOUNTED before NodePublishVolume. A release
    moves it by an answered call: NodeUnpublishVolume from MOUNTED, NodeUnstageVolume from STAGED. A silent node and a
    call that was left out move nothing. A plugin that does not stage has no STAGED.
    """

    MOUNTED = "mounted"
    """The worker may have published it, or its owner may have mounted it."""
    STAGED = "staged"
    """The worker may have staged it, and it is not published."""
    OFF = "off"


class ClaimEvent(StrEnum):
    RELEASE = "release"
    NODE_DETACH = "node detach"


# Nomad has two more states, controller-detached and ready-to-free, for the moments between its writes. Here one
# transaction writes the controller's answer and the end of the claim.
TRANSITIONS: Final[Mapping[tuple[ClaimState, ClaimEvent], ClaimState]] = {
    (ClaimState.TAKEN, ClaimEvent.RELEASE): ClaimState.UNPUBLISHING,
    (ClaimState.UNPUBLISHING, ClaimEvent.NODE_DETACH): ClaimState.NODE_DETACHED,
    (ClaimState.NODE_DETACHED, ClaimEvent.NODE_DETACH): ClaimState.NODE_DETACHED,  # a claim of 0.1.0, unmounted again
}


class IllegalTransition(Exception):
    """An event that the state does not allow. Nothing was changed."""


def advance(state: ClaimState, event: ClaimEvent) -> ClaimState:
    """Return the state after `event`. Raises IllegalTransition when there is none."""
    try:
        return TRANSITIONS[state, event]
    except KeyError as exc:
        raise IllegalTransition(f"a claim that is {state} cannot {event}") from exc


@dataclass(frozen=True, slots=True)
class Use:
    """How a volume is used on a node: what ControllerPublishVolume, NodeStageVolume and NodePublishVolume are told."""

    capability: Capability
    read_only: bool
    publish_context: Mapping[str, str] = field(default_factory=dict)
    staging_path: str = ""
    target_path: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """An allocation's hold on a volume. Times are in epoch seconds unless they say otherwise."""

    namespace: str
    volume_id: str
    allocation_id: str
    node_id: str
    mode: str
    access_mode: str
    attachment_mode: str
    plugin_id: str = ""
    external_id: str = ""
    external_node_id: str = ""
    name: str = ""
    job_id: str = ""
    task_group: str = ""
    state: ClaimState = ClaimState.TAKEN
    published: bool = False
    """Whether the volume can be used on the node: it is attached, and mounted if that was asked for."""
    publish_context: Mapping[str, str] = field(default_factory=dict)
    staging_path: str = ""
    target_path: str = ""
    """Where the worker mounts the volume on the node. Empty when the orchestrator mounts it itself."""
    lease_seconds: int = 0
    node: NodeState = NodeState.MOUNTED
    """How far the node has let go. MOUNTED also stands for what is unknown, like a claim that 0.1.0 has taken."""
    node_lost: bool = False
    """Whether the claim is kept because nothing proves that its node has let go. It is freed when something does, or
    when an operator says that the node is off.
    """
    operation_id: str = ""
    volume_index: int = 0
    """CreateIndex of the claimed volume. A later volume with the same ID has another."""
    create_index: int = 0
    modify_index: int = 0
    create_time: int = 0
    """Nanoseconds since the epoch."""

    @property
    def live(self) -> bool:
        return self.state is ClaimState.TAKEN

    @property
    def is_lost(self) -> bool:
        """Return whether the claim stays until something is proven of its node: no operation releases it."""
        return self.node_lost and not self.operation_id

    @property
    def writes(self) -> bool:
        return self.mode == WRITE

    @property
    def is_mounted_by_worker(self) -> bool:
        """Return whether the worker stages and mounts the volume. If not, the claim's owner does."""
        return bool(self.target_path)

    @property
    def needs_proof(self) -> bool:
        """Return whether the claim is freed only with proof that its node has let go, because it excludes others.

        In single-node modes that is every claim. A reader, too, has staged the file system, and the mode promises that
        no other node has it.
        """
        return bool(self.excludes)

    @property
    def excludes(self) -> frozenset[str]:
        """Return the volume's counters that must be zero for this claim."""
        return EXCLUDES.get((self.access_mode, self.mode), frozenset())

    def is_on(self, volume: Volume | None) -> bool:
        """Return whether `volume` is the one that was claimed, not None and not a later one with its ID."""
        return volume is not None and volume.exists and volume.create_index == self.volume_index

    def same_request(self, other: "Claim") -> bool:
        """Return whether `other` asks for the same, so that it is this claim, taken again."""
        names = ("node_id", "mode", "access_mode", "attachment_mode", "staging_path", "target_path")
        return all(getattr(self, name) == getattr(other, name) for name in names)


@dataclass(frozen=True, slots=True)
class StaleMount:
    """Paths on a node at which a volume may be mounted though its claim is free.

    The next publish of that volume there takes it away first.
    """

    plugin_id: str
    external_id: str
    node_id: str
    name: str
    """Tells it from others of that volume and node."""
    staging_path: str
    target_path: str
    node: NodeState


class InUse(Protocol):
    """Where claims count: a volume, or a storage that several volumes share."""

    @property
    def access_mode(self) -> str: ...
    @property
    def attachment_mode(self) -> str: ...
    @property
    def readers(self) -> int: ...
    @property
    def writers(self) -> int: ...


def refusal(volume: Volume, claim: Claim, used: InUse | None = None) -> str | None:
    """Return why the claim cannot be taken on the volume as it is, in Nomad's words, or None if it can.

    `used` is where the claims count beside the volume, if other volumes name its storage.
    """
    places = [volume] if used is None else [used, volume]
    for place in places:
        in_force = place.access_mode, place.attachment_mode
        if place.access_mode and in_force != (claim.access_mode, claim.attachment_mode):
            return f"volume is claimed as {', '.join(in_force)}: other modes must wait for its last claim"
    if claim.writes and claim.access_mode in READ_ONLY:
        return UNSCHEDULABLE
    if Capability(claim.access_mode, claim.attachment_mode) not in volume.definition.capabilities:
        return "requested modes are not among the volume's requested capabilities"
    return None if all(has_room(place, claim) for place in places) else MAX_CLAIMS


def has_room(used: InUse, claim: Claim) -> bool:
    """Return whether the claim fits beside those that are there. Past claims count until they are free."""
    return not any(getattr(used, counter) for counter in claim.excludes)


def fit_together(claims: Sequence[Claim]) -> bool:
    """Return whether these claims, of all volumes of one storage, may be there at the same time."""
    if len({(claim.access_mode, claim.attachment_mode) for claim in claims}) > 1:
        return False
    counts = {"readers": sum(not c.writes for c in claims), "writers": sum(c.writes for c in claims)}
    return not any(
        counts[counter] > (counter == ("writers" if claim.writes else "readers"))
        for claim in claims
        for counter in claim.excludes
    )
