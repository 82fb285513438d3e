"""What publish and unpublish share: their parameters, and the steps that release a claim.

The steps are unmount, unstage and detach; then the claim is free. They are the undo of a publish, too. Each may be
repeated, since CSI's unpublish calls succeed for what is not published.

The claim remembers how far its node has let go (`Claim.node`), and only an answered call moves that. Each step looks at
it anew, and at whether the node is heard: if the volume is not off the node and the node is heard, the node's next call
is due, and otherwise the controller's. So it does not matter when a node falls silent or comes back. At the end the
claim is free with proof: the volume is off the node, or the controller has taken it away, or an operator says that the
machine is off. Without proof, a claim that excludes others stays, as lost, until its node is heard again
(docs/protocols.md, section 2).

A claim that is freed while the volume is not off its node leaves a stale mount. The next publish there takes it away
first, by the same steps. Calls that may still land need no record of their own: the turn at the storage is kept until
they cannot, and the next publish waits for it.

Races with
- other claims of the volume on that node: every step decides and calls in the volume's turn. A worker whose turn is
over may still write. So what it leaves to another claim, the stage or the attachment, it leaves only while that claim
is there to take it away.
- the return of the node: a claim is lost only while the node is silent, in the transaction that says so.

After a crash, the next attempt looks again, and repeats a call whose answer was not recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Final, NamedTuple

from chalicelib.domain import outcome
from chalicelib.domain.call import CallOptions
from chalicelib.domain.claim import Claim, NodeState, StaleMount
from chalicelib.domain.operation import JsonObject, Operation, Status, retry_delay
from chalicelib.domain.plugin import Node, is_heard
from chalicelib.domain.secrets import from_base64, to_base64
from chalicelib.domain.storage import storage_of
from chalicelib.domain.volume import Volume
from chalicelib.errors import PluginRejected
from chalicelib.operations import starting
from chalicelib.operations.context import ClaimLost, StepContext
from chalicelib.operations.spec import KindSpec, Step
from chalicelib.operations.starting import Api, NewOperation
from chalicelib.store import claims, operations, ownership, plugins, stale_mounts, volumes
from chalicelib.store.commit import Change, RefusedWrites, Writes
from chalicelib.store.dynamo import Write
from chalicelib.store.index import volume_scope

LOST: Final = "node lost: nothing proves that it has stopped writing"
ATTACH: Final = "attach"
STAGE: Final = "stage"
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


def is_forced(operation: Operation) -> bool:
    """Return whether an operator says that the machine of the operation's claim is off."""
    return Params.decode(operation.params).forced


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


class Due(NamedTuple):
    """The step that is due, and what its call takes away from the node."""

    step: str
    mounted: Claim | StaleMount
    stage_left_to: Sequence[Claim] = ()
    """Other claims that have the volume staged on the node, and will unstage it."""


def due(ctx: StepContext, operation: Operation, claim: Claim, node: Node | None) -> Due:
    """Return the step that is due for a claim that takes stale mounts away or is released. `node` is the claim's."""
    if claim.live:
        begin = ATTACH if Params.decode(operation.params).attachable else STAGE
        return due_to_stale_mount(ctx, claim) or Due(begin, claim)
    # A forced release is not sent back to a node that has refused it.
    over = operation.step == DETACH and is_forced(operation)
    step = DETACH if over or not is_heard(node) else first(claim)
    if step != UNSTAGE:
        return Due(step, claim)
    others = _staged_beside(ctx, claim)
    if others:
        return Due(UNSTAGE, claim, others)
    # Some plugins refuse to unstage a volume that is still mounted somewhere.
    return due_to_stale_mount(ctx, claim) or Due(UNSTAGE, claim)


def due_to_stale_mount(ctx: StepContext, claim: Claim) -> Due | None:
    """Return the step that takes away what an earlier claim left mounted on the claim's node, or None."""
    found = ctx.claims.stale_mounts(claim.plugin_id, claim.external_id, claim.node_id)
    mounted = [mount for mount in found if mount.node is NodeState.MOUNTED]
    if mounted:
        return Due(UNMOUNT, mounted[0])
    return Due(UNSTAGE, found[0], _staged_beside(ctx, claim)) if found else None


def turn_to_stale_mount(ctx: StepContext, operation: Operation, claim: Claim) -> Operation | None:
    """Continue with the step that takes a stale mount away, or return None if there is none."""
    stale = due_to_stale_mount(ctx, claim)
    return None if stale is None else _turn_to(ctx, operation, stale.step)


def stages(ctx: StepContext, claim: Claim) -> bool:
    """Return whether the claim's plugin stages volumes on its node. A plugin that is gone may have staged this one."""
    instance = ctx.plugins.instance(claim.plugin_id, claim.node_id)
    return instance is None or instance.stages


def unmount(ctx: StepContext, operation: Operation, until: float) -> Operation:
    """Call NodeUnpublishVolume."""
    claim = the_claim(ctx, operation)
    step, mounted, _ = due(ctx, operation, claim, ctx.plugins.node(claim.node_id))
    if step != UNMOUNT:
        return _turn_to(ctx, operation, step)
    ctx.calls.node_unpublish_volume(
        operation.plugin_id,
        operation.external_id,
        node_id=claim.node_id,
        path=mounted.target_path,
        call=call_options(ctx, operation, until),
    )
    if stages(ctx, claim):
        return _record_staged(ctx, operation, mounted)
    return _record_off(ctx, operation, mounted, ())


def unstage(ctx: StepContext, operation: Operation, until: float) -> Operation:
    """Call NodeUnstageVolume, unless the stage is left to another claim on the node."""
    claim = the_claim(ctx, operation)
    step, mounted, others = due(ctx, operation, claim, ctx.plugins.node(claim.node_id))
    if step != UNSTAGE:
        return _turn_to(ctx, operation, step)
    if not others:
        ctx.calls.node_unstage_volume(
            operation.plugin_id,
            operation.external_id,
            node_id=claim.node_id,
            path=mounted.staging_path,
            call=call_options(ctx, operation, until),
        )
    return _record_off(ctx, operation, mounted, others)


def _turn_to(ctx: StepContext, operation: Operation, step: str) -> Operation:
    """Continue with another step than the operation is at. No call was made."""
    return ctx.operations.checkpoint(operation, now=ctx.clock.now(), step=step)


def _record_staged(ctx: StepContext, operation: Operation, mounted: Claim | StaleMount) -> Operation:
    """Record that what was mounted is unmounted and still staged."""

    def build() -> Writes:
        claim = the_claim(ctx, operation)
        moved = stale_mounts.unmounted(mounted) if isinstance(mounted, StaleMount) else claims.staged(claim)
        proceed = operations.proceed(operation, now=ctx.clock.now(), step=UNSTAGE)
        return lambda _: [moved, proceed]

    ctx.record_claim(operation, build=build, visible=False)
    return _proceeded(operation, UNSTAGE)


def _record_off(
    ctx: StepContext, operation: Operation, mounted: Claim | StaleMount, others: Sequence[Claim]
) -> Operation:
    """Record that what was mounted is off the node, or that its stage is left to the first of the other claims."""
    stale = isinstance(mounted, StaleMount)
    # The next step looks anew at what is due, so it does no harm that it may be another one.
    step = UNSTAGE if stale else DETACH

    def build() -> Writes:
        claim = the_claim(ctx, operation)
        volume = None if stale else ctx.volumes.get(operation.namespace, operation.volume_id)
        also = [operations.proceed(operation, now=ctx.clock.now(), step=step), *map(claims.still_staged, others[:1])]
        if isinstance(mounted, StaleMount):
            return lambda _: [stale_mounts.forget(mounted), *also]
        return lambda index: [*claims.off(claim, volume, index), *also]

    ctx.record_claim(operation, build=build, visible=not stale)
    return _proceeded(operation, step)


def _proceeded(operation: Operation, step: str) -> Operation:
    """Return the operation as `operations.proceed` has written it, for the same attempt to continue with."""
    return replace(operation, step=step, unanswered=max(operation.unanswered - 1, 0), tries=0)


def detach(ctx: StepContext, operation: Operation, until: float) -> Operation | None:
    """Call ControllerUnpublishVolume, unless another claim needs the volume on that node. Free the claim, or lose it.

    A new claim on that node waits for this call's turn, so what is read here cannot change before the call.
    """
    claim, params = the_claim(ctx, operation), Params.decode(operation.params)
    node = ctx.plugins.node(claim.node_id)
    step = due(ctx, operation, claim, node).step
    if step != DETACH:
        return _turn_to(ctx, operation, step)
    others = _attached_beside(ctx, claim) if params.attachable else []
    # Other claims on a node that is down are lost with it. Only taking the volume away proves that it stopped writing.
    if not (is_heard(node) or (node is not None and node.claims_kept)):
        others = []
    unpublishes = params.attachable and not others
    if unpublishes:
        ctx.calls.controller_unpublish_volume(
            operation.plugin_id,
            operation.external_id,
            external_node_id=claim.external_node_id,
            call=call_options(ctx, operation, until),
        )
        for other in _beside(ctx, claim):
            if other.is_lost:
                _free_lost(ctx, other)
    proven = unpublishes or params.forced or claim.node is NodeState.OFF
    if proven or not claim.needs_proof:
        free(ctx, operation, operation.error, left_to=others)
    else:
        lose(ctx, operation, attached_for=others)
    return None


def lose(ctx: StepContext, operation: Operation, *, attached_for: Sequence[Claim]) -> None:
    """Keep the claim as lost and fail the operation, since nothing proves that the node has let go.

    The return of the node begins again what is lost then (service/liveness.py). So the claim is lost only while the
    node is silent, or if its owner mounted it. Then its owner or an operator can say that it is unmounted, or the
    volume stays `attached_for` another claim, whose release takes it away and frees this claim.
    """

    def build() -> Writes:
        claim = the_claim(ctx, operation)
        volume = ctx.volumes.get(operation.namespace, operation.volume_id)
        silent = [plugins.still_down(claim.node_id)] if claim.is_mounted_by_worker else []
        return lambda index: [
            *claims.lose(claim, volume, index, operation_id=operation.id),
            operations.fail(operation, now=ctx.clock.now(), error=operation.error or LOST),
            *silent,
            *map(claims.still_there, attached_for[:1]),
        ]

    ctx.record_claim(operation, build=build)


def _free_lost(ctx: StepContext, lost: Claim) -> None:
    """Free a lost claim on the storage that the controller has just taken away from the claim's node."""

    def build(refused: RefusedWrites) -> Change[None]:
        claim = ctx.claims.get(lost.namespace, lost.volume_id, lost.allocation_id) if refused else lost
        if claim is None or not claim.is_lost or claim.create_index != lost.create_index:
            return Change(None)
        volume = ctx.volumes.get(claim.namespace, claim.volume_id)
        counted_off = ownership.free(ctx, claim, volume)
        return Change(None, lambda index: [*claims.free(claim, volume, index), *counted_off])

    ctx.committer.commit(volume_scope(lost.namespace), build=build, what=f"volume {lost.volume_id}")


def free(ctx: StepContext, operation: Operation, error: str, *, left_to: Sequence[Claim] = ()) -> None:
    """Free the claim and close the operation, as failed if there is an `error`.

    If the volume stays attached, it is left to the first of these claims, which must still be there.
    """

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
            freed = claims.free(claim, volume, index)
            return [*freed, *counted_off, closing, *map(claims.still_there, left_to[:1])]

        return writes

    ctx.record_claim(operation, build=build)


def undo(ctx: StepContext, operation: Operation, error: PluginRejected) -> Operation | None:
    """Answer the client with the error, make the claim past, and continue the publish as its own undo."""
    now = ctx.clock.now()
    answered = outcome.is_answer(error.code)
    until = now if answered else max(operation.calls_until, now + retry_delay(1, ctx.clock.jitter()))
    step = first(the_claim(ctx, operation))

    def build() -> Writes:
        claim = the_claim(ctx, operation)
        volume = ctx.volumes.get(operation.namespace, operation.volume_id)
        begun = operations.undo(operation, now=now, step=step, error=error.text, until=until, answered=answered)
        return lambda index: [*claims.release(claim, volume, index, operation_id=operation.id), begun]

    ctx.record_claim(operation, build=build)
    begun = replace(_proceeded(operation, step), status=Status.PENDING, error=error.text, lease_until=0.0)
    return begun if answered else None


def first(claim: Claim) -> str:
    """Return the step with which the claim's release begins, while its node is heard."""
    if claim.node is NodeState.OFF or not claim.is_mounted_by_worker:
        return DETACH
    return UNMOUNT if claim.node is NodeState.MOUNTED else UNSTAGE


def refused(ctx: StepContext, operation: Operation, error: PluginRejected) -> Operation | None:
    """Retry later, since the volume may still be there. The claim stays. After the last try, an operator must look.

    A publish that cannot take a stale mount away is undone. A forced release goes on without its node.
    """
    answered = outcome.is_answer(error.code)
    if the_claim(ctx, operation).live:
        return undo(ctx, operation, error)
    if answered and operation.step != DETACH and is_forced(operation):
        return _turn_to(ctx, operation, DETACH)
    ctx.retry(operation, error.text, answered=answered, now=ctx.clock.now())
    return None


def _beside(ctx: StepContext, claim: Claim) -> Iterator[Claim]:
    """Yield the other claims of the same storage on the same node, of all volumes that name it."""
    own = claim.namespace, claim.volume_id, claim.allocation_id
    volumes_of_storage = ownership.volumes_of(ctx, claim)
    for place in ctx.claims.on_node(claim.node_id):
        other = ctx.claims.get(*place) if place[:2] in volumes_of_storage and place != own else None
        if other is not None and other.node_id == claim.node_id and storage_of(other) == storage_of(claim):
            yield other


def _staged_beside(ctx: StepContext, claim: Claim) -> list[Claim]:
    """Return the other claims on the node that began to stage the volume and have not let go."""
    return [o for o in _beside(ctx, claim) if o.is_mounted_by_worker and o.node is not NodeState.OFF]


def _attached_beside(ctx: StepContext, claim: Claim) -> list[Claim]:
    """Return the other claims on the node that need the volume attached, and will detach it."""
    return [o for o in _beside(ctx, claim) if (_has_begun(ctx, o) if o.live else _will_detach(o))]


def _will_detach(past: Claim) -> bool:
    """Return whether an operation releases the past claim. One that is lost has none, until something is proven."""
    return past.node is not NodeState.OFF and not past.is_lost


def _has_begun(ctx: StepContext, claim: Claim) -> bool:
    """Return whether a call was sent for a live claim. One without any may be freed at once, and would detach nothing.

    Its operation counts the attempt before the call.
    """
    if claim.published:
        return True
    operation = ctx.operations.get(claim.operation_id)
    return operation is not None and operation.attempt > 0


STEPS: Final = {
    UNMOUNT: Step("NodeUnpublishVolume", unmount, refused),
    UNSTAGE: Step("NodeUnstageVolume", unstage, refused),
    DETACH: Step("ControllerUnpublishVolume", detach, refused),
}
