"""Release claims: for their owners, for operators (detach) and for the sweeper (docs/protocols.md, section 2).

A past claim counts until it is free. An operation takes the volume off the node, and only then frees the claim. For a
volume that its owner mounted, the owner's own release is the proof that it is off the node, if the node is up then.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from chalicelib.domain.claim import Claim, NodeState
from chalicelib.domain.operation import Operation, Status
from chalicelib.domain.plugin import is_heard
from chalicelib.domain.volume import Volume
from chalicelib.errors import Refused
from chalicelib.operations import claim_steps, starting, unpublish_volume
from chalicelib.operations.starting import NewOperation
from chalicelib.service import waiting
from chalicelib.service.claims import PUBLISH_CAPABILITY, claims_on, existing
from chalicelib.service.deps import Budget, Deps
from chalicelib.store import claims as claim_store
from chalicelib.store import plugins as plugin_store
from chalicelib.store.claims import Lease
from chalicelib.store.commit import Change, RefusedWrites
from chalicelib.store.dynamo import Write
from chalicelib.store.index import volume_scope


def release(deps: Deps, namespace: str, volume_id: str, allocation_id: str, budget: Budget) -> int:
    """Release the claim, wait until it is free, and return the index.

    Raises NotFound when there is none, and Refused when nothing proves that its node has stopped writing.
    """
    claim = existing(deps, namespace, volume_id, allocation_id)
    operation = begin_release(deps, claim, by_owner=True)
    index = wait_until_free(deps, [operation] if operation else [], budget)
    _refuse_lost(deps, [claim])
    if index:
        return index
    volume = deps.volumes.get(namespace, volume_id)
    return volume.modify_index if volume else 0


def detach(deps: Deps, namespace: str, volume_id: str, node: str, budget: Budget, *, force: bool) -> int:
    """Release the claims that a node has on the volume, wait until they are free, and return the index.

    `node` is an ID, or the beginning of one node's ID. With `force`, an operator says that the node is off, so claims
    are freed though nothing else proves that they stopped writing. The stale mounts of earlier claims are forgotten, as
    nothing is mounted on a machine that was off. What these claims leave is kept: the machine may come back as it was.
    Raises Refused when the node is up and one of its claims is live.
    """
    volume = deps.volumes.get(namespace, volume_id)
    if volume is None or not volume.exists:
        raise Refused("no such volume")
    held = claims_on(deps, volume)
    node_id = _node_named(deps, node, held)
    on_node = [claim for claim in held if claim.node_id == node_id]
    if any(claim.live for claim in on_node) and is_heard(deps.plugins.node(node_id)):
        raise Refused(f"volume in use: {volume_id}")
    if force:
        deps.claims.forget_stale_mounts(volume.plugin_id, volume.definition.external_id, node_id)
    started = [begin_release(deps, claim, force=force, take_over=force) for claim in on_node]
    index = wait_until_free(deps, [operation for operation in started if operation is not None], budget)
    _refuse_lost(deps, on_node)
    return max(index, volume.modify_index)


def _refuse_lost(deps: Deps, claims: Sequence[Claim]) -> None:
    """Raise Refused, and say what to do, when one of these claims is lost: it stays, since nothing proves its end."""
    for claim in claims:
        found = deps.claims.get(claim.namespace, claim.volume_id, claim.allocation_id)
        if found is not None and found.create_index == claim.create_index and found.node_lost:
            raise Refused(
                f"node lost: nothing proves that allocation {claim.allocation_id} on node {claim.node_id} has stopped "
                "writing; when the machine is off for certain, detach with force=true"
            )


def begin_release(
    deps: Deps,
    claim: Claim,
    *,
    by_owner: bool = False,
    force: bool = False,
    take_over: bool = False,
    lease: Lease | None = None,
) -> Operation | None:
    """Start to free the claim, and return the operation that does it, or None if there is none.

    A claim that excludes others is only marked as lost if nothing could prove now that its node has let go. Another
    claim may come when the node is back, or when an operator says that it is off (`force`). With `take_over`, an
    operation that frees the claim without that word gives way to the new one. With `lease`, nothing happens if the
    claim was renewed since the lease was read.
    """

    def build(refused: RefusedWrites) -> Change[_Release]:
        current = _still_there(deps, claim, lease) if refused else claim
        if current is None:
            return Change(_Release())
        under_way = deps.operations.get(current.operation_id) if current.operation_id and not current.live else None
        if under_way is not None and not (take_over and not claim_steps.is_forced(under_way)):
            return Change(_Release(starting.resume(deps, under_way)))
        up = is_heard(deps.plugins.node(current.node_id))
        given_up = by_owner and up and not current.is_mounted_by_worker
        plugin = deps.plugins.get(current.plugin_id)
        attachable = plugin is not None and plugin.can(PUBLISH_CAPABILITY)
        by_node = given_up or current.node is NodeState.OFF or (up and current.is_mounted_by_worker)
        lost = current.needs_proof and not (force or attachable or by_node)
        if lost and not current.live:
            return Change(_Release())
        volume = deps.volumes.get(current.namespace, current.volume_id)
        new = None if lost else unpublish_volume.start(deps, current, volume, attachable=attachable, forced=force)
        return Change(
            _Release(new and new.operation, instead_of=current.operation_id),
            lambda index: _release_writes(current, volume, new, index, given_up=given_up, lease=lease),
        )

    scope = volume_scope(claim.namespace)
    index, released = deps.committer.commit(scope, build=build, what=f"volume {claim.volume_id}")
    if index:
        _resume_in_doubt(deps, released.instead_of)
        if released.operation is not None:
            starting.send(deps, released.operation)
    return released.operation


@dataclass(frozen=True, slots=True)
class _Release:
    """The operation that frees a claim, if one does, and the ID of the operation that had the claim until now."""

    operation: Operation | None = None
    instead_of: str = ""


def _still_there(deps: Deps, claim: Claim, lease: Lease | None) -> Claim | None:
    """Return the claim as it is now, or None if it is gone or was renewed since `lease` was read."""
    found = deps.claims.get(claim.namespace, claim.volume_id, claim.allocation_id)
    if found is None or found.create_index != claim.create_index:
        return None
    return found if lease is None or deps.claims.lease(found) == lease else None


def _resume_in_doubt(deps: Deps, operation_id: str) -> None:
    """Resume an operation that was left in doubt, so that it notices that it has lost its claim, and ends."""
    found = deps.operations.get(operation_id) if operation_id else None
    if found is not None and found.status is Status.IN_DOUBT:
        starting.resume(deps, found)


def wait_until_free(deps: Deps, operations: Sequence[Operation], budget: Budget) -> int:
    """Wait until the claims of these operations are free. Return the highest index, or 0 if none is known.

    Raises Refused with the last error of an operation in doubt, and OperationPending. A publish that failed has
    answered its client before its claim is free, so an error is not the end here.
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
    claim: Claim, volume: Volume | None, new: NewOperation | None, index: int, *, given_up: bool, lease: Lease | None
) -> list[Write]:
    operation_id = new.operation.id if new else ""
    if not claim.live:
        writes = claim_store.reclaim(claim, volume, index, operation_id=operation_id, given_up=given_up)
    else:
        writes = claim_store.release(
            claim, volume, index, operation_id=operation_id, given_up=given_up, node_lost=new is None, lease=lease
        )
    if new is not None:
        return [*writes, *new.writes]
    # A claim is lost only while its node is silent: what the node's return begins again was lost before it.
    return [*writes, plugin_store.still_down(claim.node_id)] if claim.is_mounted_by_worker else writes


def _node_named(deps: Deps, node: str, held: Sequence[Claim]) -> str:
    """The node that is meant by an ID or by the beginning of one."""
    ids = {claim.node_id for claim in held} | {found.id for found in deps.plugins.nodes(prefix=node)}
    if node in ids:
        return node
    fits = sorted(node_id for node_id in ids if node_id.startswith(node))
    if len(fits) > 1:
        raise Refused(f"node {node} is not one node: it begins the IDs of {', '.join(fits[:5])}")
    return fits[0] if fits else node
