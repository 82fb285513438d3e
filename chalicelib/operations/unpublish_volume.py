"""Release a claim: unmount and unstage the volume on its node, detach it by the controller, and free the claim.

Races with
- another claim on that node: it waits for the turn, and is then published anew.
- the claim's own publish: the release waits for the turn, which is kept until no call of the publish can land.
- a delete of the volume: it is refused as long as the claim counts.

After a crash, every call is repeated, and succeeds for what is not published any more.
"""

from typing import Final

from chalicelib.domain.claim import Claim
from chalicelib.domain.operation import Kind, Operation
from chalicelib.domain.volume import Volume
from chalicelib.operations import claim_steps
from chalicelib.operations.spec import ClaimHold, KindSpec
from chalicelib.operations.starting import Api, NewOperation
from chalicelib.store import operations
from chalicelib.store.dynamo import Write


def start(api: Api, claim: Claim, volume: Volume | None, *, attachable: bool, forced: bool) -> NewOperation:
    """Release the claim: from its node if it may be mounted there by the worker, else by the controller's call.

    `volume` is what the claim's ID names now, if anything. `forced`: an operator says that the node is off.
    """
    step = claim_steps.first(claim)
    claimed = volume if claim.is_on(volume) else None
    return claim_steps.new_operation(api, KIND, claim, claimed, step=step, attachable=attachable, forced=forced)


def _claim_lost(operation: Operation, now: float) -> Write:
    return operations.succeed(operation, now=now, result={"index": 0})


KIND: Final = KindSpec(
    Kind.UNPUBLISH_VOLUME,
    first=claim_steps.UNMOUNT,
    holds=ClaimHold(claim_steps.node_of, _claim_lost),
    steps=claim_steps.STEPS,
)
