"""What publish and unpublish share: their parameters, and the steps that release a claim.

The steps are unmount, unstage and detach; then the claim is free. They are the undo of a publish, too. Each may be
repeated, since CSI's unpublish calls succeed for what is not published.

A node that is down is not called. Whether the claim may be freed all the same is decided at the end, by what is proven
then: that the node has unmounted the volume (`node-detached`), or that the controller has taken it away. If nothing is
proven, a claim that writes alone stays, as lost, until its node is back or an operator says that the machine is off
(docs/protocols.md, section 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Final

from chalicelib.domain import outcome
from chalicelib.domain.call import CallOptions
from chalicelib.domain.claim import Claim, ClaimEvent, ClaimState
from chalicelib.domain.operation import JsonObject, Operation
from chalicelib.domain.secrets import from_base64, to_base64
from chalicelib.domain.volume import Volume
from chalicelib.errors import PluginRejected
from chalicelib.operations import starting
from chalicelib.operations.context import ClaimLost, StepContext
from chalicelib.operations.spec import KindSpec, Step
from chalicelib.operations.starting import Api, NewOperation
from chalicelib.store import claims, operations, ownership, volumes
from chalicelib.store.commit import Writes
from chalicelib.store.dynamo import Write

LOST: Final = "node lost: nothing proves that it has stopped writing"
UNMOUNT: Final = "unmount"
UNSTAGE: Final = "unstage"
DETACH: Final = "detach"


@dataclass(frozen=True, slots=True)
class Params:
    """The claim as it was when the operation began, and what was learnt since."""

    allocation_id: str
    node_id: str
    access_mode: str
    attachment_mode: str
    read_only: bool
    staging_path: str
    target_path: str
    attachable: bool
    """Whether the plugin has ControllerPublishVolume and ControllerUnpublishVolume."""
    volume_secrets: bytes = field(repr=False)
    """Sealed."""
    forced: bool = False
    """Whether an operator says that the node is off, so that the claim may go though nothing proves it."""
    publish_context: Mapping[str, str] = field(default_factory=dict)
    """What ControllerPublishVolume answered, for the node's calls."""

    def encode(self) -> JsonObject:
        """Return the parameters as they are stored."""
        return {**asdict(self), "volume_secrets": to_base64(self.volume_secrets)}

    @classmethod
    def decode(cls, stored: JsonObject) -> Params:
        """Return the parameters that are stored. What an older version did not store has its default."""
        known = {f.name: stored[f.name] for f in fields(cls) if f.name in stored}
        return cls(**{**known, "volume_secrets": from_base64(stored.get("volume_secrets"))})


def node_of(operation: Operation) -> str:
    """Return the ID of the node that the operation's claim is on."""
    return Params.decode(operation.params).node_id


def new_operation(
    api: Api, spec: KindSpec, claim: Claim, volume: Volume | None, *, step: str, attachable: bool, forced: bool = False
) -> NewOperation:
    """Begin an operation on a claim, whose own record is written by the caller. `volume` is None when it is gone."""
    digest = starting.digest(spec.kind.value, claim.namespace, claim.volume_id, claim.allocation_id)
    operation = starting.new_operation(
        api, spec, namespace=claim.namespace, volume_id=claim.volume_id, plugin_id=claim.plugin_id, digest=digest
    )
    params = Params(
        allocation_id=claim.allocation_id,
        node_id=claim.node_id,
        access_mode=claim.access_mode,
        attachment_mode=claim.attachment_mode,
        read_only=not claim.writes,
        staging_path=claim.staging_path,
        target_path=claim.target_path,
        attachable=attachable,
        volume_secrets=volume.sealed_secrets if volume is not None else b"",
        forced=forced,
    )
    operation = replace(
        operation,
        step=step,
        external_id=claim.external_id,
        definition=volumes.encode(volume.definition) if volume is not None else "",
        params=params.encode(),
    )
    return NewOperation(operation, [operations.open_operation(operation, now=operation.create_time)])


def the_claim(ctx: StepContext, operation: Operation) -> Claim:
    """Return the claim that the operation is about. Raises ClaimLost when it is gone or another operation has it."""
    allocation_id = Params.decode(operation.params).allocation_id
    found = ctx.claims.get(operation.namespace, operation.volume_id, allocation_id)
    if found is None or found.operation_id != operation.id:
        raise ClaimLost(operation.id)
    return found


def call_options(ctx: StepContext, operation: Operation, until: float) -> CallOptions:
    """Return the options of one call of this attempt, with the volume's secrets. Raises PluginUnreachable."""
    return ctx.call_options(operation, until, Params.decode(operation.params).volume_secrets)


def unmount(ctx: StepContext, operation: Operation, until: float) -> Operation | None:
    """Call NodeUnpublishVolume, unless the node is down or gone."""
    claim = the_claim(ctx, operation)
    if claim.target_path and node_answers(ctx, claim):
        ctx.calls.node_unpublish_volume(
            operation.plugin_id,
            operation.external_id,
            node_id=claim.node_id,
            path=claim.target_path,
            call=call_options(ctx, operation, until),
        )
    return ctx.operations.checkpoint(operation, now=ctx.clock.now(), step=UNSTAGE)


def unstage(ctx: StepContext, operation: Operation, until: float) -> Operation | None:
    """Call NodeUnstageVolume, unless the node is down or another claim may have the volume mounted there.

    If the node is there, the claim is node-detached from now on.
    """
    claim = the_claim(ctx, operation)
    answers = node_answers(ctx, claim)
    if claim.staging_path and answers and not _others_on_node(ctx, claim):
        ctx.calls.node_unstage_volume(
            operation.plugin_id,
            operation.external_id,
            node_id=claim.node_id,
            path=claim.staging_path,
            call=call_options(ctx, operation, until),
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


def detach(ctx: StepContext, operation: Operation, until: float) -> None:
    """Call ControllerUnpublishVolume, unless another claim needs the volume on that node. Free the claim, or lose it.

    A new claim on that node waits for this call's turn, so what is read here cannot change before the call.
    """
    claim, params = the_claim(ctx, operation), Params.decode(operation.params)
    answers = node_answers(ctx, claim)
    # Other claims on a node that is down are lost with it. Only taking the volume away proves that it stopped writing.
    needed = _others_on_node(ctx, claim) and (answers or node_keeps_claims(ctx, claim))
    unpublishes = params.attachable and not needed
    if unpublishes:
        ctx.calls.controller_unpublish_volume(
            operation.plugin_id,
            operation.external_id,
            external_node_id=claim.external_node_id,
            call=call_options(ctx, operation, until),
        )
    # The worker did not mount it: the claim's owner did, and released the claim while the node was there.
    given_up = answers and not claim.target_path
    proven = unpublishes or given_up or claim.state is ClaimState.NODE_DETACHED
    if claim.writes_alone and not (proven or params.forced):
        lose(ctx, operation)
    else:
        free(ctx, operation, operation.error)


def lose(ctx: StepContext, operation: Operation) -> None:
    """Keep the claim as lost and fail the operation, since nothing proves that the node has stopped writing."""

    def build() -> Writes:
        claim = the_claim(ctx, operation)
        volume = ctx.volumes.get(operation.namespace, operation.volume_id)
        return lambda index: [
            *claims.lose(claim, volume, index, operation_id=operation.id),
            operations.fail(operation, now=ctx.clock.now(), error=operation.error or LOST),
        ]

    ctx.record_claim(operation, build=build)


def free(ctx: StepContext, operation: Operation, error: str) -> None:
    """Free the claim and close the operation, as failed if there is an `error`."""

    def build() -> Writes:
        claim = the_claim(ctx, operation)
        volume = ctx.volumes.get(operation.namespace, operation.volume_id)
        counted_off = ownership.free(ctx, claim, volume)
        now = ctx.clock.now()

        def writes(index: int) -> list[Write]:
            closing = (
                operations.fail(operation, now=now, error=error)
                if error
                else operations.succeed(operation, now=now, result={"index": index})
            )
            return [*claims.free(claim, volume, index, operation_id=operation.id), *counted_off, closing]

        return writes

    ctx.record_claim(operation, build=build)


def refused(ctx: StepContext, operation: Operation, error: PluginRejected) -> None:
    """Retry later, since the volume may still be there. The claim stays. After the last try, an operator must look."""
    ctx.retry(operation, error.text, answered=outcome.is_answer(error.code), now=ctx.clock.now())


def node_answers(ctx: StepContext, claim: Claim) -> bool:
    """Return whether the node can be called, as far as the sweeper knows."""
    node = ctx.plugins.node(claim.node_id)
    return node is not None and node.healthy


def node_keeps_claims(ctx: StepContext, claim: Claim) -> bool:
    """Whether the node fell silent with too many others for it to be its own fault: what is claimed there is kept."""
    node = ctx.plugins.node(claim.node_id)
    return node is not None and node.claims_kept


def _others_on_node(ctx: StepContext, claim: Claim) -> bool:
    """Return whether another claim has, will have or may still have the same volume mounted on the same node."""
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
