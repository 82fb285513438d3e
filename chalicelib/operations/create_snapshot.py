"""Taking a snapshot: CreateSnapshot under the name that the request gave, so a repeat finds the same snapshot (CSI
spec, CreateSnapshot).

Nothing is registered, as in Nomad: the provider's list is the record, and the operation only makes sure that the call
is finished. It holds a lock item for its source and name, so the same request joins it and another with that name and
source waits for its end.

After a crash, before or after the call: the next attempt's call answers the same snapshot. A call of an older attempt
that may still land would take the snapshot anew after a delete: until it cannot, the snapshot's turn is taken.
"""

from dataclasses import asdict
from typing import Final

from chalicelib.domain.operation import Operation
from chalicelib.errors import PluginRejected
from chalicelib.operations.context import Context, Definition, Step, sealed
from chalicelib.store.turns import Turn, of_storage

CREATE: Final = "create"


def create(ctx: Context, operation: Operation, until: float) -> None:
    """CreateSnapshot, and on its answer the operation is over."""
    params = operation.params
    made = ctx.calls.create_snapshot(
        operation.plugin_id,
        operation.external_id,
        name=operation.storage_name,
        parameters=params.get("parameters") or {},
        call=ctx.call_options(operation, until, sealed(params, "volume_secrets"), operation.sealed_secrets),
    )
    now = ctx.clock.now()
    if operation.unanswered > 1 and now < operation.calls_until:
        subject = of_storage(operation.plugin_id, made.id)
        ctx.turns.take(Turn(subject, operation.id, operation.attempt, operation.calls_until), now=now)
    ctx.finish(operation, asdict(made))


def create_rejected(ctx: Context, operation: Operation, error: PluginRejected) -> None:
    """The client has the plugin's answer; a snapshot that was made all the same is found by the same name again."""
    ctx.give_up(operation, error.text)


DEFINITION: Final = Definition(steps={CREATE: Step("CreateSnapshot", create, create_rejected)})
