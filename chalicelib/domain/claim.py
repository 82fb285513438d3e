"""Claims: who may use a volume, and how a claim goes away.

The rules are Nomad's. A volume without claims has no mode in force; the first claim sets access and attachment mode,
the last one out clears them. Every claim counts until it is freed, one that is on its way out (a past claim) too: the
storage may still be mounted on its node, and another writer must not be let in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

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
"""Access mode and claim mode, and the volume's counters that must be zero for such a claim; else no other claim is in
its way. The one table of access modes: `has_room` and the condition of the write (store/claims.py) both read it.
"""
READ_ONLY: Final = frozenset({"single-node-reader-only", "multi-node-reader-only"})
"""Access modes that no claim writes in."""


class ClaimState(StrEnum):
    """Where a claim stands; all but TAKEN are past."""

    TAKEN = "taken"
    UNPUBLISHING = "unpublishing"
    """Released; it may still be mounted on its node."""
    NODE_DETACHED = "node-detached"
    """Proven not to be mounted on its node any more; still attached to it."""


class ClaimEvent(StrEnum):
    RELEASE = "release"
    NODE_DETACH = "node detach"


# Nomad's controller-detached and ready-to-free last for a moment between two of its writes: here the answer of the
# controller and the end of the claim are one transaction.
TRANSITIONS: Final[Mapping[tuple[ClaimState, ClaimEvent], ClaimState]] = {
    (ClaimState.TAKEN, ClaimEvent.RELEASE): ClaimState.UNPUBLISHING,
    (ClaimState.UNPUBLISHING, ClaimEvent.NODE_DETACH): ClaimState.NODE_DETACHED,
}


class IllegalTransition(Exception):
    """An event that the state does not allow; nothing was changed."""


def advance(state: ClaimState, event: ClaimEvent) -> ClaimState:
    """The state after `event`; raises IllegalTransition when there is none."""
    try:
        return TRANSITIONS[state, event]
    except KeyError as exc:
        raise IllegalTransition(f"a claim that is {state} cannot {event}") from exc


@dataclass(frozen=True, slots=True)
class Use:
    """How a volume is used on a node: what ControllerPublish, NodeStage and NodePublish are told."""

    capability: Capability
    read_only: bool
    publish_context: Mapping[str, str] = field(default_factory=dict)
    staging_path: str = ""
    target_path: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """An allocation's hold on a volume; times in seconds since the epoch unless they say otherwise."""

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
    """Whether the volume can be used on the node: attached, and mounted where that was asked for."""
    publish_context: Mapping[str, str] = field(default_factory=dict)
    staging_path: str = ""
    target_path: str = ""
    """Where the worker mounts it on the node; empty when the orchestrator does that itself."""
    lease_seconds: int = 0
    node_lost: bool = False
    """Its node is silent and nothing proves that it stopped writing: kept until something does, or somebody says so."""
    operation_id: str = ""
    volume_index: int = 0
    """CreateIndex of the volume it was taken on: a volume of the same ID that came later is another one."""
    create_index: int = 0
    modify_index: int = 0
    create_time: int = 0
    """Nanoseconds since the epoch."""

    @property
    def live(self) -> bool:
        return self.state is ClaimState.TAKEN

    @property
    def writes(self) -> bool:
        return self.mode == WRITE

    @property
    def writes_alone(self) -> bool:
        """Whether no other claim may write while this one may be writing."""
        return self.writes and "writers" in self.excludes

    @property
    def excludes(self) -> frozenset[str]:
        """Counters of the volume that must be zero for this claim."""
        return EXCLUDES.get((self.access_mode, self.mode), frozenset())

    def is_on(self, volume: Volume | None) -> bool:
        """Whether `volume` is the one that was claimed, and not a later one of its ID, or none."""
        return volume is not None and volume.exists and volume.create_index == self.volume_index

    def same_request(self, other: "Claim") -> bool:
        """Whether `other` asks for the same: then it is this claim, taken once more."""
        names = ("node_id", "mode", "access_mode", "attachment_mode", "staging_path", "target_path")
        return all(getattr(self, name) == getattr(other, name) for name in names)


def refusal(volume: Volume, claim: Claim) -> str | None:
    """Why `claim` cannot be taken on `volume` as it stands, in Nomad's words; None when it can."""
    if volume.access_mode and (volume.access_mode, volume.attachment_mode) != (
        claim.access_mode,
        claim.attachment_mode,
    ):
        in_force = f"{volume.access_mode}, {volume.attachment_mode}"
        return f"volume is claimed as {in_force}: other modes must wait for its last claim"
    if claim.writes and claim.access_mode in READ_ONLY:
        return UNSCHEDULABLE
    if Capability(claim.access_mode, claim.attachment_mode) not in volume.definition.capabilities:
        return "requested modes are not among the volume's requested capabilities"
    return None if has_room(volume, claim) else MAX_CLAIMS


def has_room(volume: Volume, claim: Claim) -> bool:
    """Whether `claim` fits beside the claims that are there; those that are being freed count."""
    return not any(getattr(volume, counter) for counter in claim.excludes)
