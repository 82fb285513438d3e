"""Take, renew and read claims (docs/protocols.md, section 2). service/releases.py releases them.

A claim counts from the transaction that takes it until the one that frees it. An operation publishes its volume. A
claim that needs no call at the provider is published at once.
"""

from dataclasses import dataclass, replace
from typing import Final

from chalicelib.domain import claim as rules
from chalicelib.domain.claim import Claim, NodeState
from chalicelib.domain.operation import Operation
from chalicelib.domain.plugin import Instance, Plugin
from chalicelib.domain.storage import Storage
from chalicelib.domain.volume import Capability, Volume, mode_problem
from chalicelib.errors import NotFound, Refused, RequestError
from chalicelib.operations import publish_volume, starting
from chalicelib.operations.kinds import OPEN_TO_CLAIMS
from chalicelib.operations.starting import NewOperation
from chalicelib.service import counters, waiting
from chalicelib.service.deps import Budget, Deps
from chalicelib.store import claims as claim_store
from chalicelib.store import ownership
from chalicelib.store.commit import Change, RefusedWrites
from chalicelib.store.index import volume_scope

LEASE_LIMITS: Final = (5, 24 * 3600)
ID_LIMIT: Final = 256
PUBLISH_CAPABILITY: Final = "PUBLISH_UNPUBLISH_VOLUME"


@dataclass(frozen=True, slots=True)
class IndexedClaim:
    """A claim, and the index at which it can be read."""

    index: int
    claim: Claim


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a claim is to be used: the volume as it was read, its plugin, and the plugin on the node."""

    volume: Volume
    plugin: Plugin
    instance: Instance

    @property
    def attachable(self) -> bool:
        return self.plugin.can(PUBLISH_CAPABILITY)


@dataclass(frozen=True, slots=True)
class _Publication:
    """A claim of this request or of an earlier one, and the operation that publishes its volume, if one must."""

    claim: Claim
    operation: Operation | None = None
    index: int = 0
    """At which the claim can be read. 0: at its own create index."""


def take(deps: Deps, wanted: Claim, budget: Budget) -> IndexedClaim:
    """Take the claim and publish the volume on its node. A repeat returns the claim that was taken.

    Raises Refused when the claim does not fit beside those that are there, RequestError 409 when the allocation has
    another claim on the volume, and OperationPending when publishing takes longer than the request may wait.
    """
    _check(wanted)

    def build(_: RefusedWrites) -> Change[_Publication]:
        volume = _volume(deps, wanted.namespace, wanted.volume_id)
        held = deps.claims.get(wanted.namespace, wanted.volume_id, wanted.allocation_id)
        asked = _with_modes(wanted, volume)
        if held is not None:
            return Change(_taken_already(deps, held, asked, volume))
        storage = ownership.shared_by(deps, volume)
        if rules.refusal(volume, asked, storage) == rules.MAX_CLAIMS and counters.repair(deps, volume):
            volume = _volume(deps, wanted.namespace, wanted.volume_id)
            storage = ownership.shared_by(deps, volume)
        place = _place(deps, volume, asked, storage)
        claim, new = _prepared(deps, place, asked)
        lease_until = deps.clock.now() + claim.lease_seconds
        return Change(
            _Publication(claim, new and new.operation),
            lambda index: [
                *claim_store.take(claim, volume, index, lease_until=lease_until, beside=OPEN_TO_CLAIMS),
                *([] if storage is None else [ownership.take(deps, storage, claim)]),
                *(new.writes if new else ()),
            ],
        )

    scope = volume_scope(wanted.namespace)
    index, publication = deps.committer.commit(scope, build=build, what=f"volume {wanted.volume_id}")
    if index:
        publication = replace(publication, claim=replace(publication.claim, create_index=index))
    return _published(deps, publication, budget)


def of_volume(deps: Deps, namespace: str, volume_id: str) -> tuple[int, list[Claim]]:
    """Return the volume's index and its claims.

    The volume is read first, so a change that the claims show already has a higher index.
    """
    volume = _volume(deps, namespace, volume_id)
    return volume.modify_index, claims_on(deps, volume)


def claims_on(deps: Deps, volume: Volume) -> list[Claim]:
    """Return the claims of this volume, not those of an earlier one with its ID.

    Nothing is read when the volume's counters say that there are none.
    """
    if not volume.in_use:
        return []
    found = deps.claims.of_volume(volume.namespace, volume.id)
    return [claim for claim in found if claim.is_on(volume)]


def renew(deps: Deps, namespace: str, volume_id: str, allocation_id: str, seconds: int) -> Claim:
    """Renew the claim's lease for `seconds` from now, or for as long as before if that is 0.

    Blocked reads are not woken. Raises NotFound, and RequestError 409 when the lease has run out.
    """
    claim = existing(deps, namespace, volume_id, allocation_id)
    if not claim.lease_seconds:
        raise RequestError(f"claim of allocation {allocation_id} has no lease: it lasts until it is released")
    _check_lease(seconds)
    lasts = seconds or claim.lease_seconds
    if not claim.live or not deps.claims.renew(claim, until=deps.clock.now() + lasts, seconds=lasts):
        raise RequestError(f"claim of allocation {allocation_id} has run out: take it again", status=409)
    return replace(claim, lease_seconds=lasts)


def _check(wanted: Claim) -> None:
    for name, value in (("AllocationID", wanted.allocation_id), ("NodeID", wanted.node_id)):
        if not value or len(value.encode()) > ID_LIMIT or any(ord(c) < 32 or ord(c) == 127 for c in value):
            raise RequestError(f"{name} is missing, or longer than {ID_LIMIT} bytes, or has control characters")
    if wanted.mode not in (rules.READ, rules.WRITE):
        raise RequestError('Mode must be "read" or "write"')
    for name, path in (("TargetPath", wanted.target_path), ("StagingPath", wanted.staging_path)):
        if path and (not path.startswith("/") or ".." in path.split("/") or len(path) > 4096):
            raise RequestError(f"{name} must be an absolute path without ..")
    if bool(wanted.target_path) != bool(wanted.staging_path):
        raise RequestError("TargetPath and StagingPath go together: both, or neither")
    _check_lease(wanted.lease_seconds)


def _check_lease(seconds: int) -> None:
    low, high = LEASE_LIMITS
    if seconds and not low <= seconds <= high:
        raise RequestError(f"LeaseSeconds must be between {low} and {high}, or 0 for a claim that lasts until released")


def _with_modes(wanted: Claim, volume: Volume) -> Claim:
    """Return the claim with the modes that its request leaves out: those in force, or the volume's only capability."""
    if wanted.access_mode and wanted.attachment_mode:
        return wanted
    pairs = {(c.access_mode, c.attachment_mode) for c in volume.definition.capabilities}
    if volume.access_mode:
        pairs = {(volume.access_mode, volume.attachment_mode)}
    fits = {p for p in pairs if wanted.access_mode in ("", p[0]) and wanted.attachment_mode in ("", p[1])}
    if len(fits) != 1:
        raise RequestError("AccessMode and AttachmentMode must be given: the volume has more than one capability")
    access_mode, attachment_mode = fits.pop()
    return replace(wanted, access_mode=access_mode, attachment_mode=attachment_mode)


def _volume(deps: Deps, namespace: str, volume_id: str) -> Volume:
    found = deps.volumes.get(namespace, volume_id) if volume_id else None
    if found is None or not found.exists:
        raise NotFound("volume not found")
    return found


def existing(deps: Deps, namespace: str, volume_id: str, allocation_id: str) -> Claim:
    """Return the claim of an allocation on a volume. Raises NotFound."""
    found = deps.claims.get(namespace, volume_id, allocation_id)
    if found is None:
        raise NotFound(f"allocation {allocation_id} has no claim on volume {volume_id}")
    return found


def _place(deps: Deps, volume: Volume, wanted: Claim, storage: Storage | None) -> _Place:
    if volume.operation_id and volume.operation_kind not in OPEN_TO_CLAIMS:
        raise starting.in_progress(volume)
    capability = Capability(wanted.access_mode, wanted.attachment_mode)
    problem = mode_problem([capability]) or rules.refusal(volume, wanted, storage)
    if problem:
        raise Refused(problem)
    plugin = deps.plugins.get(volume.plugin_id)
    if plugin is None:
        raise Refused(f"no CSI plugin named: {volume.plugin_id} could be found")
    node = deps.plugins.node(wanted.node_id)
    instance = deps.plugins.instance(volume.plugin_id, wanted.node_id)
    if node is None or not node.healthy:
        raise Refused(f"node {wanted.node_id} is {'down' if node else 'unknown'}: a claim needs a node with a bridge")
    if instance is None or not instance.node or not instance.healthy:
        raise Refused(f"plugin {volume.plugin_id} is not running in health on node {wanted.node_id}")
    if plugin.can(PUBLISH_CAPABILITY) and not plugin.controllers_healthy:
        raise Refused(f"no healthy controllers for CSI plugin: {volume.plugin_id}")
    if not _reachable(volume, instance):
        raise Refused(f"volume {volume.id} cannot be reached from node {wanted.node_id}: its topologies do not match")
    return _Place(volume, plugin, instance)


def _reachable(volume: Volume, instance: Instance) -> bool:
    """Return whether the node has one of the volume's topologies (CSI spec, Topology)."""
    topologies = [t for t in volume.definition.topologies or () if t]
    if not topologies or instance.topology is None:
        return True
    own = instance.topology
    return any(all(own.get(key) == value for key, value in t.items()) for t in topologies)


def _prepared(deps: Deps, place: _Place, wanted: Claim) -> tuple[Claim, NewOperation | None]:
    """Return the claim as it will be stored, and the operation that publishes the volume, if one must."""
    volume = place.volume
    claim = replace(
        wanted,
        plugin_id=volume.plugin_id,
        external_id=volume.definition.external_id,
        external_node_id=place.instance.external_node_id,
        volume_index=volume.create_index,
        node=_node_at_first(deps, wanted),
        create_time=deps.clock.now_ns(),
    )
    if not place.attachable and not claim.target_path:
        return replace(claim, published=True), None
    new = publish_volume.start(deps, claim, volume, attachable=place.attachable)
    return replace(claim, operation_id=new.operation.id), new


def _node_at_first(deps: Deps, wanted: Claim) -> NodeState:
    """Return OFF if a worker mounts the volume, and records that before. Return MOUNTED for what is unknown.

    An owner may mount the volume at any time from now on. A worker of 0.1.0, which may run until the stage is upgraded,
    records nothing.
    """
    recorded = wanted.is_mounted_by_worker and ownership.is_upgraded(deps)
    return NodeState.OFF if recorded else NodeState.MOUNTED


def _taken_already(deps: Deps, held: Claim, wanted: Claim, volume: Volume) -> _Publication:
    """Return the claim that the allocation has already. Raises RequestError 409 when it is another one."""
    if not held.live or not held.is_on(volume):
        raise RequestError(
            f"allocation {held.allocation_id} is giving up its claim on volume {held.volume_id}: try again when it "
            "is free",
            status=409,
        )
    if not held.same_request(wanted):
        raise RequestError(
            f"allocation {held.allocation_id} claims volume {held.volume_id} already, to {held.mode} on node "
            f"{held.node_id} as {held.access_mode}, {held.attachment_mode}: release that claim first",
            status=409,
        )
    if held.published:
        return _Publication(held, index=volume.modify_index)
    operation = deps.operations.get(held.operation_id)
    return _Publication(held, operation and starting.resume(deps, operation))


def _published(deps: Deps, publication: _Publication, budget: Budget) -> IndexedClaim:
    """Wait until the volume can be used, and return the claim. Raises Refused with the plugin's error."""
    claim, operation = publication.claim, publication.operation
    if operation is None:
        return IndexedClaim(publication.index or claim.create_index, claim)
    starting.send(deps, operation)
    done = waiting.wait(deps, [operation], budget)[operation.id]
    if done.result:
        found = deps.claims.get(claim.namespace, claim.volume_id, claim.allocation_id)
        return IndexedClaim(int(done.result["index"]), found or claim)
    pending = waiting.unanswered([done])
    if pending:
        raise pending
    raise Refused(done.error or done.last_error)
