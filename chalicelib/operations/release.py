"""The way out of a claim, which publish (its undo) and unpublish share: off the node, off its machine, and free.

Every step may be repeated: CSI's unpublish calls succeed for what is not published. A node that is down is not called.
Whether the claim may go all the same is decided at the end, by what was proven until then: that the node unmounted it
(`node-detached`), or that the controller took it away. Nothing proven, a claim that writes alone stays, as lost, until
its node is back, or until an operator says that the machine is off (protocols, section 2).
"""

import json
from typing import Any, Final

from chalicelib.domain import outcome
from chalicelib.domain.claim import Claim, ClaimEvent, ClaimState
from chalicelib.domain.operation import How, Kind, Operation
from chalicelib.errors import PluginRejected
from chalicelib.operations.context import ClaimLost, Context, Step, sealed
from chalicelib.store import claims, operations
from chalicelib.store.commit import Writes
from chalicelib.store.dynamo import Write

LOST: Final = "node lost: nothing proves that it has stopped writing"
UNMOUNT: Final = "unmount"
UNSTAGE: Final = "unstage"
DETACH: Final = "detach"


def the_claim(ctx: Context, operation: Operation) -> Claim:
    """The claim that the operation is about; raises ClaimLost when it is gone or somebody else's by now."""
    params = operation.params
    found = ctx.claims.get(operation.namespace, operation.volume_id, params["allocation_id"])
    if found is None or found.operation_id != operation.id:
        raise ClaimLost(operation.id)
    return found


def how(ctx: Context, operation: Operation, until: float) -> How:
    secrets = ctx.open(operation, sealed(operation.params, "volume_secrets"))
    return How(secrets=secrets, until=until, attempt=(operation.id, operation.attempt))


def unmount(ctx: Context, operation: Operation, until: float) -> Operation | None:
    """NodeUnpublishVolume, unless the node is down or gone."""
    claim = the_claim(ctx, operation)
    if claim.target_path and node_answers(ctx, claim):
        ctx.calls.unmount(
            operation.plugin_id,
            operation.external_id,
            node_id=claim.node_id,
            path=claim.target_path,
            how=how(ctx, operation, until),
        )
    return ctx.operations.checkpoint(operation, now=ctx.clock.now(), step=UNSTAGE)


def unstage(ctx: Context, operation: Operation, until: float) -> Operation | None:
    """NodeUnstageVolume, unless another claim may have the volume mounted on that node; then the claim is
    node-detached, if the node was there to do it.
    """
    claim = the_claim(ctx, operation)
    answers = node_answers(ctx, claim)
    if claim.staging_path and answers and not _others_on_node(ctx, claim):
        ctx.calls.unstage(
            operation.plugin_id,
            operation.external_id,
            node_id=claim.node_id,
            path=claim.staging_path,
            how=how(ctx, operation, until),
        )

    def build() -> Writes:
        current = the_claim(ctx, operation)
        proceed = operations.proceed(operation, now=ctx.clock.now(), step=DETACH)
        if current.state is not ClaimState.UNPUBLISHING or not answers:
            return lambda _: [proceed]
        volume = ctx.volumes.get(operation.namespace, operation.volume_id)
        return lambda index: [
            *claims.step(current, volume, ClaimEvent.NODE_DETACH, index, operation_id=operation.id),
            proceed,
        ]

    ctx.record_claim(operation, build=build)
    return ctx.operations.get(operation.id)


def detach(ctx: Context, operation: Operation, until: float) -> None:
    """ControllerUnpublishVolume, unless another claim needs the volume on that node; then the claim is free, or lost.

    Who publishes for a new claim there waits for this call's turn, so what is read here cannot change before it.
    """
    claim = the_claim(ctx, operation)
    answers = node_answers(ctx, claim)
    # A node that is down loses what else is claimed there, too: only taking the volume away proves anything.
    needed = _others_on_node(ctx, claim) and (answers or node_keeps_claims(ctx, claim))
    unpublishes = operation.params["attachable"] and not needed
    if unpublishes:
        ctx.calls.unpublish(
            operation.plugin_id,
            operation.external_id,
            external_node_id=claim.external_node_id,
            how=how(ctx, operation, until),
        )
    # What the worker did not mount is its owner's to unmount, who has given the claim up while the node was there.
    given_up = answers and not claim.target_path
    proven = unpublishes or given_up or claim.state is ClaimState.NODE_DETACHED
    if claim.writes_alone and not (proven or operation.params.get("forced")):
        lose(ctx, operation)
    else:
        free(ctx, operation, operation.error)


def lose(ctx: Context, operation: Operation) -> None:
    """The claim stays, as lost, and the operation is over: nothing proves that the node has stopped writing."""

    def build() -> Writes:
        claim = the_claim(ctx, operation)
        volume = ctx.volumes.get(operation.namespace, operation.volume_id)
        return lambda index: [
            *claims.lose(claim, volume, index, operation_id=operation.id),
            operations.fail(operation, now=ctx.clock.now(), error=operation.error or LOST),
        ]

    ctx.record_claim(operation, build=build)


def free(ctx: Context, operation: Operation, error: str) -> None:
    """The claim is gone and the operation over: failed with `error`, if there is one."""

    def build() -> Writes:
        claim = the_claim(ctx, operation)
        volume = ctx.volumes.get(operation.namespace, operation.volume_id)
        now = ctx.clock.now()

        def writes(index: int) -> list[Write]:
            closing = (
                operations.fail(operation, now=now, error=error)
                if error
                else operations.succeed(operation, now=now, result={"index": index})
            )
            return [*claims.free(claim, volume, index, operation_id=operation.id), closing]

        return writes

    ctx.record_claim(operation, build=build)


def refused(ctx: Context, operation: Operation, error: PluginRejected) -> None:
    """It may still be there: later again, until the tries are used up and somebody looks; the claim stays."""
    ctx.retry(operation, error.text, answered=outcome.is_answer(error.code), now=ctx.clock.now())


def over(ctx: Context, operation: Operation) -> None:
    """The claim is not this operation's any more: nothing is left to do."""
    now = ctx.clock.now()
    if operation.kind is Kind.UNPUBLISH_VOLUME:
        closing = operations.succeed(operation, now=now, result={"index": 0})
    else:
        closing = operations.fail(operation, now=now, error=operation.error or "the claim was released meanwhile")
    ctx.close(operation, closing)


def node_answers(ctx: Context, claim: Claim) -> bool:
    """Whether the node is there to be called, as far as the sweeper knows."""
    node = ctx.plugins.node(claim.node_id)
    return node is not None and node.healthy


def node_keeps_claims(ctx: Context, claim: Claim) -> bool:
    """Whether the node fell silent with too many others for it to be its own fault: what is claimed there is kept."""
    node = ctx.plugins.node(claim.node_id)
    return node is not None and node.claims_kept


def remember(operation: Operation, **fields: Any) -> str:
    """The operation's parameters with what was learnt, as they are stored."""
    return json.dumps({**operation.params, **fields}, separators=(",", ":"), ensure_ascii=False)


def _others_on_node(ctx: Context, claim: Claim) -> bool:
    """Another claim that holds this very volume on this very node, is about to, or may still have it mounted there."""
    return any(
        other.node_id == claim.node_id
        and other.state is not ClaimState.NODE_DETACHED
        and other.allocation_id != claim.allocation_id
        and other.volume_index == claim.volume_index
        for other in ctx.claims.of_volume(claim.namespace, claim.volume_id)
    )


STEPS: Final = {
    UNMOUNT: Step("NodeUnpublishVolume", unmount, refused),
    UNSTAGE: Step("NodeUnstageVolume", unstage, refused),
    DETACH: Step("ControllerUnpublishVolume", detach, refused),
}
