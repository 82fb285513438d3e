"""Claims: taking, renewing, releasing and detaching (protocols, section 2).

A claim counts from the transaction that takes it until the one that frees it. What happens at the provider in between
is an operation's business; a claim that needs no call there is complete, or free, at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from chalicelib.domain import claim as rules
from chalicelib.domain.claim import Claim
from chalicelib.domain.operation import Kind, Operation, Status
from chalicelib.domain.plugin import Instance, Plugin
from chalicelib.domain.volume import Capability, Volume, mode_problem
from chalicelib.errors import NotFound, OperationInProgress, Refused, RequestError
from chalicelib.service import counters, waiting
from chalicelib.service.deps import Budget, Deps
from chalicelib.store import claims as claim_store
from chalicelib.store import operations as operation_store
from chalicelib.store import volumes as volume_store
from chalicelib.store.claims import Lease
from chalicelib.store.commit import Change, RefusedWrites
from chalicelib.store.dynamo import Write
from chalicelib.store.index import volume_scope

LEASE_LIMITS: Final = (5, 24 * 3600)
ID_LIMIT: Final = 256
PUBLISH_CAPABILITY: Final = "PUBLISH_UNPUBLISH_VOLUME"


@dataclass(frozen=True, slots=True)
class Held:
    """A claim with the index at which it can be read."""

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
class _Taken:
    """A claim of this request or of an earlier one, and the operation that publishes its volume, if one must."""

    claim: Claim
    operation: Operation | None = None
    index: int = 0
    """At which the claim can be read, where that is not its own."""


def take(deps: Deps, wanted: Claim, budget: Budget) -> Held:
    """Take the claim and publish the volume on its node; the same claim taken again is the same claim.

    Raises Refused in Nomad's words when it does not fit beside the claims that are there, RequestError 409 when the
    allocation holds another claim on the volume, OperationPending when publishing takes longer than a request may.
    """
    _check(wanted)

    def build(_: RefusedWrites) -> Change[_Taken]:
        volume = _volume(deps, wanted.namespace, wanted.volume_id)
        held = deps.claims.get(wanted.namespace, wanted.volume_id, wanted.allocation_id)
        asked = _with_modes(wanted, volume)
        if held is not None:
            return Change(_taken_already(deps, held, asked, volume))
        if rules.refusal(volume, asked) == rules.MAX_CLAIMS and counters.repair(deps, volume):
            volume = _volume(deps, wanted.namespace, wanted.volume_id)
        place = _place(deps, volume, asked)
        claim, operation = _prepared(deps, place, asked)
        now = deps.clock.now()
        record = [] if operation is None else [operation_store.open_operation(operation, now=now)]
        return Change(
            _Taken(claim, operation),
            lambda index: [*claim_store.take(claim, volume, index, lease_until=now + claim.lease_seconds), *record],
        )

    index, taken = deps.committer.commit(volume_scope(wanted.namespace), build=build, what=f"volume {wanted.volume_id}")
    if index:
        taken = replace(taken, claim=replace(taken.claim, create_index=index))
    return _settled(deps, taken, budget)


def of_volume(deps: Deps, namespace: str, volume_id: str) -> tuple[int, list[Claim]]:
    """The volume's index and its claims; the volume is read first, so a change after it has a higher index."""
    volume = _volume(deps, namespace, volume_id)
    return volume.modify_index, its_claims(deps, volume)


def its_claims(deps: Deps, volume: Volume) -> list[Claim]:
    """Claims of this volume, not of an earlier one of that ID; no read when its counters say that there are none."""
    if not volume.in_use:
        return []
    found = deps.claims.of_volume(volume.namespace, volume.id)
    return [claim for claim in found if claim.is_on(volume)]


def renew(deps: Deps, namespace: str, volume_id: str, allocation_id: str, seconds: int) -> Claim:
    """The claim lasts `seconds` from now (0: as long as before); nobody is woken. Raises NotFound, RequestError 409."""
    claim = _claim(deps, namespace, volume_id, allocation_id)
    if not claim.lease_seconds:
        raise RequestError(f"claim of allocation {allocation_id} has no lease: it lasts until it is released")
    _check_lease(seconds)
    lasts = seconds or claim.lease_seconds
    if not claim.live or not deps.claims.renew(claim, until=deps.clock.now() + lasts, seconds=lasts):
        raise RequestError(f"claim of allocation {allocation_id} has run out: take it again", status=409)
    return replace(claim, lease_seconds=lasts)


def release(deps: Deps, namespace: str, volume_id: str, allocation_id: str, budget: Budget) -> int:
    """Give the claim up and wait until it is free; returns the index. Raises NotFound when there is none, and Refused
    when nothing proves that its node has stopped writing.
    """
    claim = _claim(deps, namespace, volume_id, allocation_id)
    node = deps.plugins.node(claim.node_id)
    operation = let_go(deps, claim, node_up=node is not None and node.healthy)
    index = finished(deps, [operation] if operation else [], budget)
    _refuse_lost(deps, [claim])
    if index:
        return index
    volume = deps.volumes.get(namespace, volume_id)
    return volume.modify_index if volume else 0


def detach(deps: Deps, namespace: str, volume_id: str, node: str, budget: Budget, *, force: bool) -> int:
    """Release the past claims of a node and wait; live ones of a node that is up are refused. Returns the index.

    `node` may be the beginning of an ID if only one node has it. With `force` the operator says that the node is off:
    what nothing else proves to have stopped writing is then let go.
    """
    volume = deps.volumes.get(namespace, volume_id)
    if volume is None or not volume.exists:
        raise Refused("no such volume")
    held = its_claims(deps, volume)
    node_id = _node_named(deps, node, held)
    on_node = [claim for claim in held if claim.node_id == node_id]
    known = deps.plugins.node(node_id)
    up = known is not None and known.healthy
    if any(claim.live for claim in on_node) and up:
        raise Refused(f"volume in use: {volume_id}")
    # A node that is back unmounts what the worker mounted there; what somebody else mounted it knows nothing of.
    started = [let_go(deps, claim, force=force, node_up=up and bool(claim.target_path)) for claim in on_node]
    index = finished(deps, [operation for operation in started if operation is not None], budget)
    _refuse_lost(deps, on_node)
    return max(index, volume.modify_index)


def _refuse_lost(deps: Deps, claims: Sequence[Claim]) -> None:
    """Say so, and what can be done, when one of these is still there because nothing could be proven."""
    for claim in claims:
        found = deps.claims.get(claim.namespace, claim.volume_id, claim.allocation_id)
        if found is not None and found.create_index == claim.create_index and found.node_lost:
            raise Refused(
                f"node lost: nothing proves that allocation {claim.allocation_id} on node {claim.node_id} has stopped "
                "writing; when the machine is surely off, detach with force=true"
            )


def let_go(
    deps: Deps, claim: Claim, *, force: bool = False, node_up: bool = True, lease: Lease | None = None
) -> Operation | None:
    """Start whatever frees the claim; the operation that does it, or None when there is none.

    A claim that writes alone, on a node that is not up, without a controller that could take the volume away from it,
    is only marked as lost: another writer may come when the node is back, or when an operator says that it is off
    (`force`). With `lease`, nothing happens if the claim was renewed since that was read.
    """

    def build(refused: RefusedWrites) -> Change[_LetGo]:
        current = _still_there(deps, claim, lease) if refused else claim
        if current is None:
            return Change(_LetGo())
        if not current.live and current.operation_id:
            return Change(_LetGo(_resumed(deps, current.operation_id)))
        plugin = deps.plugins.get(current.plugin_id)
        attachable = plugin is not None and plugin.can(PUBLISH_CAPABILITY)
        lost = current.writes_alone and not (node_up or force or attachable)
        if lost and not current.live:
            return Change(_LetGo())
        volume = deps.volumes.get(current.namespace, current.volume_id)
        operation = None if lost else _release_operation(deps, current, volume, attachable=attachable, forced=force)
        return Change(
            _LetGo(operation, instead_of=current.operation_id),
            lambda index: _release_writes(deps, current, volume, operation, index, lease),
        )

    index, gone = deps.committer.commit(volume_scope(claim.namespace), build=build, what=f"volume {claim.volume_id}")
    if index:
        _end(deps, gone.instead_of)
        if gone.operation is not None:
            waiting.send(deps, gone.operation)
    return gone.operation


@dataclass(frozen=True, slots=True)
class _LetGo:
    """The operation that frees a claim, if there is one, and the one that had the claim until now."""

    operation: Operation | None = None
    instead_of: str = ""


def _still_there(deps: Deps, claim: Claim, lease: Lease | None) -> Claim | None:
    """The claim as it is now; None when it is gone, or was renewed since `lease` was read."""
    found = deps.claims.get(claim.namespace, claim.volume_id, claim.allocation_id)
    if found is None or found.create_index != claim.create_index:
        return None
    return found if lease is None or deps.claims.lease(found) == lease else None


def _end(deps: Deps, operation_id: str) -> None:
    """Resume a publish that was left in doubt, so that it notices that it has lost its claim, and ends."""
    found = deps.operations.get(operation_id) if operation_id else None
    if found is not None and found.status is Status.IN_DOUBT:
        waiting.taken_up(deps, found)


def finished(deps: Deps, operations: Sequence[Operation], budget: Budget) -> int:
    """Wait until their claims are free; the highest index, 0 if none is known. Raises Refused with the last error of
    one that was given up, or OperationPending.

    A publish that failed has answered its client long before the claim is free: here only the end counts.
    """
    done = waiting.wait(deps, operations, budget, over=_is_over).values()
    given_up = next((o for o in done if o.status is Status.IN_DOUBT), None)
    if given_up is not None:
        raise Refused(given_up.last_error)
    pending = waiting.unanswered(done, over=_is_over)
    if pending:
        raise pending
    return max((int(o.result.get("index") or 0) for o in done), default=0)


def _is_over(operation: Operation) -> bool:
    return not operation.open or operation.status is Status.IN_DOUBT


def _release_writes(
    deps: Deps, claim: Claim, volume: Volume | None, operation: Operation | None, index: int, lease: Lease | None
) -> list[Write]:
    operation_id = operation.id if operation else ""
    writes = (
        claim_store.release(claim, volume, index, operation_id=operation_id, node_lost=operation is None, lease=lease)
        if claim.live
        else claim_store.reclaim(claim, volume, index, operation_id=operation_id)
    )
    if operation is not None:
        writes.append(operation_store.open_operation(operation, now=deps.clock.now()))
    return writes


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
    """Modes that the request leaves out: those in force, or the volume's only capability."""
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


def _claim(deps: Deps, namespace: str, volume_id: str, allocation_id: str) -> Claim:
    found = deps.claims.get(namespace, volume_id, allocation_id)
    if found is None:
        raise NotFound(f"allocation {allocation_id} has no claim on volume {volume_id}")
    return found


def _place(deps: Deps, volume: Volume, wanted: Claim) -> _Place:
    if volume.operation_id and volume.operation_kind != Kind.EXPAND_VOLUME.value:
        raise OperationInProgress(f"volume {volume.id} has an operation in progress: {volume.operation_kind}")
    capability = Capability(wanted.access_mode, wanted.attachment_mode)
    problem = mode_problem([capability]) or rules.refusal(volume, wanted)
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
    """Whether one of the volume's topologies holds on the node (CSI spec, Topology)."""
    topologies = [t for t in volume.definition.topologies or () if t]
    if not topologies or instance.topology is None:
        return True
    own = instance.topology
    return any(all(own.get(key) == value for key, value in t.items()) for t in topologies)


def _prepared(deps: Deps, place: _Place, wanted: Claim) -> tuple[Claim, Operation | None]:
    """The claim as it will be stored, and the operation that publishes the volume, if one is needed."""
    volume = place.volume
    claim = replace(
        wanted,
        plugin_id=volume.plugin_id,
        external_id=volume.definition.external_id,
        external_node_id=place.instance.external_node_id,
        volume_index=volume.create_index,
        create_time=deps.clock.now_ns(),
    )
    if not place.attachable and not claim.target_path:
        return replace(claim, published=True), None
    step = "attach" if place.attachable else "stage"
    operation = _operation(deps, Kind.PUBLISH_VOLUME, claim, volume, step=step, attachable=place.attachable)
    return replace(claim, operation_id=operation.id), operation


def _release_operation(deps: Deps, claim: Claim, volume: Volume | None, *, attachable: bool, forced: bool) -> Operation:
    volume = volume if claim.is_on(volume) else None
    step = "unmount" if claim.target_path else "detach"
    operation = _operation(deps, Kind.UNPUBLISH_VOLUME, claim, volume, step=step, attachable=attachable)
    return replace(operation, params={**operation.params, "forced": forced})


def _operation(
    deps: Deps, kind: Kind, claim: Claim, volume: Volume | None, *, step: str, attachable: bool
) -> Operation:
    now = deps.clock.now()
    return Operation(
        id=deps.clock.new_id(),
        kind=kind,
        namespace=claim.namespace,
        volume_id=claim.volume_id,
        plugin_id=claim.plugin_id,
        digest=waiting.digest(kind.value, claim.namespace, claim.volume_id, claim.allocation_id),
        step=step,
        external_id=claim.external_id,
        definition=volume_store.encode(volume.definition) if volume is not None else "",
        params={
            "allocation_id": claim.allocation_id,
            "node_id": claim.node_id,
            "access_mode": claim.access_mode,
            "attachment_mode": claim.attachment_mode,
            "read_only": not claim.writes,
            "staging_path": claim.staging_path,
            "target_path": claim.target_path,
            "attachable": attachable,
            "volume_secrets": waiting.text(volume.sealed_secrets if volume is not None else b""),
        },
        create_time=now,
        update_time=now,
    )


def _taken_already(deps: Deps, held: Claim, wanted: Claim, volume: Volume) -> _Taken:
    """The claim that is there: the same one, or in the way."""
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
        return _Taken(held, index=volume.modify_index)
    operation = deps.operations.get(held.operation_id)
    return _Taken(held, operation and waiting.taken_up(deps, operation))


def _settled(deps: Deps, taken: _Taken, budget: Budget) -> Held:
    """The claim once the volume can be used; raises Refused with the plugin's word when it cannot."""
    claim, operation = taken.claim, taken.operation
    if operation is None:
        return Held(taken.index or claim.create_index, claim)
    waiting.send(deps, operation)
    done = waiting.wait(deps, [operation], budget)[operation.id]
    if done.result:
        found = deps.claims.get(claim.namespace, claim.volume_id, claim.allocation_id)
        return Held(int(done.result["index"]), found or claim)
    pending = waiting.unanswered([done])
    if pending:
        raise pending
    raise Refused(done.error or done.last_error)


def _resumed(deps: Deps, operation_id: str) -> Operation | None:
    """The operation that frees the claim, taken up again."""
    found = deps.operations.get(operation_id)
    return found and waiting.taken_up(deps, found)


def _node_named(deps: Deps, node: str, held: Sequence[Claim]) -> str:
    """The node that is meant by an ID or by the beginning of one."""
    ids = {claim.node_id for claim in held} | {found.id for found in deps.plugins.nodes(prefix=node)}
    if node in ids:
        return node
    fits = sorted(node_id for node_id in ids if node_id.startswith(node))
    if len(fits) > 1:
        raise Refused(f"node {node} is not one node: it begins the IDs of {', '.join(fits[:5])}")
    return fits[0] if fits else node
