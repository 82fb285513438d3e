"""Publish a claimed volume: attach it to its node, and stage and mount it there if the claim has a target path.

Races with
- the release of the claim: it takes the claim over, and the claim's condition refuses what this operation still learns.
- the unpublish of another claim on that node: a volume gets one call at a time.

What earlier claims left mounted of the volume on that node is unmounted and unstaged first: attaching the volume would
bring such a mount back to life. Before NodeStageVolume the claim records that the volume may be staged, and before
NodePublishVolume that it may be mounted. From then on other claims may leave the stage to it. Its release takes back
what was recorded and no more: a bridge may refuse to unmount what it has not mounted.

After a crash, every call is repeated and answers the same. A failure that proves that nothing happened frees the claim
at once, if it answers the only call that was ever sent. Any other failure releases the claim, and the operation undoes
itself: the claim is free when the volume is off the node. The undo begins at once, unless the call that failed may
still land.
"""

import json
from dataclasses import replace
from typing import Final

from chalicelib.domain import outcome
from chalicelib.domain.claim import Claim, NodeState, Use
from chalicelib.domain.operation import Kind, Operation
from chalicelib.domain.volume import Capability, Volume
from chalicelib.errors import PluginRejected
from chalicelib.operations import claim_steps
from chalicelib.operations.claim_steps import ATTACH, STAGE, Params
from chalicelib.operations.context import ClaimLost, StepContext, the_volume
from chalicelib.operations.spec import ClaimHold, KindSpec, Step
from chalicelib.operations.starting import Api, NewOperation
from chalicelib.store import claims, operations
from chalicelib.store.commit import Writes
from chalicelib.store.dynamo import Write

CONTEXT_LIMIT: Final = 16 * 1024
"""Bytes of a publish context at most, as JSON. CSI allows 4 KB (CSI spec, Size Limits)."""
MOUNT: Final = "mount"


def start(api: Api, claim: Claim, volume: Volume, *, attachable: bool) -> NewOperation:
    """Publish the volume for a claim on it: from the controller's call if the plugin has one, else on the node."""
    step = ATTACH if attachable else STAGE
    return claim_steps.new_operation(api, KIND, claim, volume, step=step, attachable=attachable)


def attach(ctx: StepContext, operation: Operation, until: float) -> Operation | None:
    """Call ControllerPublishVolume, whose publish context the node's calls need."""
    claim, params = claim_steps.the_claim(ctx, operation), Params.decode(operation.params)
    turned = claim_steps.turn_to_stale_mount(ctx, operation, claim)
    if turned is not None:
        return turned
    context = ctx.calls.controller_publish_volume(
        the_volume(operation),
        _use(params),
        external_node_id=claim.external_node_id,
        call=claim_steps.call_options(ctx, operation, until),
    )
    if len(json.dumps(context)) > CONTEXT_LIMIT:
        raise PluginRejected(
            "controller publish: the plugin's publish context is larger than can be kept", code=outcome.UNUSABLE
        )
    if params.target_path:
        # Over what is stored, so that a parameter of a newer version is kept while both versions run.
        learnt = {**operation.params, **replace(params, publish_context=context).encode()}
        return ctx.operations.checkpoint(operation, now=ctx.clock.now(), step=STAGE, params=learnt)
    _published(ctx, operation, context)
    return None


def stage(ctx: StepContext, operation: Operation, until: float) -> Operation | None:
    """Call NodeStageVolume, if the plugin has it and nothing is left mounted by an earlier claim."""
    claim, params = claim_steps.the_claim(ctx, operation), Params.decode(operation.params)
    turned = claim_steps.turn_to_stale_mount(ctx, operation, claim)
    if turned is not None:
        return turned
    if claim_steps.stages(ctx, claim):
        _begin_on_node(ctx, claim, NodeState.STAGED)
        call = claim_steps.call_options(ctx, operation, until)
        ctx.calls.node_stage_volume(the_volume(operation), _use(params), node_id=claim.node_id, call=call)
    return ctx.operations.checkpoint(operation, now=ctx.clock.now(), step=MOUNT)


def mount(ctx: StepContext, operation: Operation, until: float) -> None:
    """Call NodePublishVolume, which puts the volume at its target path."""
    claim, params = claim_steps.the_claim(ctx, operation), Params.decode(operation.params)
    _begin_on_node(ctx, claim, NodeState.MOUNTED)
    call = claim_steps.call_options(ctx, operation, until)
    ctx.calls.node_publish_volume(the_volume(operation), _use(params), node_id=claim.node_id, call=call)
    _published(ctx, operation, dict(params.publish_context))


def _begin_on_node(ctx: StepContext, claim: Claim, node: NodeState) -> None:
    """Record that the call which is due may stage or mount the volume. Raises ClaimLost when it must not be made."""
    if not ctx.claims.begin_on_node(claim, node):
        raise ClaimLost(claim.operation_id)


def attach_rejected(ctx: StepContext, operation: Operation, error: PluginRejected) -> Operation | None:
    """Free the claim if the volume is proven not to be attached. Otherwise release it.

    Only the answer to the only call proves that: an earlier one, whose answer was lost, may have attached it.
    """
    if operation.attempt == 1 and outcome.proves("ControllerPublishVolume", error.code):
        claim_steps.free(ctx, operation, error.text)
        return None
    return claim_steps.undo(ctx, operation, error)


def _published(ctx: StepContext, operation: Operation, context: dict[str, str]) -> None:
    def build() -> Writes:
        claim = claim_steps.the_claim(ctx, operation)
        return lambda index: [
            *claims.publish(claim, index, publish_context=context, operation_id=operation.id),
            operations.succeed(operation, now=ctx.clock.now(), result={"index": index}),
        ]

    ctx.record_claim(operation, build=build)


def _use(params: Params) -> Use:
    return Use(
        capability=Capability(params.access_mode, params.attachment_mode),
        read_only=params.read_only,
        publish_context=dict(params.publish_context),
        staging_path=params.staging_path,
        target_path=params.target_path,
    )


def _claim_lost(operation: Operation, now: float) -> Write:
    return operations.fail(operation, now=now, error=operation.error or "the claim was released meanwhile")


KIND: Final = KindSpec(
    Kind.PUBLISH_VOLUME,
    first=ATTACH,
    holds=ClaimHold(claim_steps.node_of, _claim_lost),
    steps={
        ATTACH: Step("ControllerPublishVolume", attach, attach_rejected),
        STAGE: Step("NodeStageVolume", stage, claim_steps.undo),
        MOUNT: Step("NodePublishVolume", mount, claim_steps.undo),
        **claim_steps.STEPS,
    },
)
