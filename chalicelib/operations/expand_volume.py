"""Expanding a volume: ControllerExpandVolume, then the record with the rest of the update.

Races with: claims, which may come and go meanwhile (only the definition is written, never the counters); a delete
(refused while the operation holds the volume). An expansion cannot be undone, and repeating it changes nothing more,
so every rejection closes the operation: the volume keeps the definition it had, and the provider's true size is
learnt with the next expansion.

After a crash: before the call, nothing happened; after it, the next attempt's call answers the same size.
"""

from dataclasses import replace
from typing import Final

from chalicelib.domain import outcome
from chalicelib.domain.operation import Operation
from chalicelib.errors import PluginRejected
from chalicelib.operations.context import Context, Definition, Step, sealed, the_volume
from chalicelib.store import operations, volumes
from chalicelib.store.dynamo import Write
from chalicelib.store.index import volume_scope

EXPAND: Final = "expand"


def expand(ctx: Context, operation: Operation, until: float) -> None:
    """ControllerExpandVolume, and on its answer the volume has its new size and definition."""
    params = operation.params
    merged = the_volume(operation)
    capacity = ctx.calls.expand_volume(
        operation.plugin_id,
        merged,
        required=int(params["required"]),
        limit=int(params["limit"]),
        secrets=ctx.open(operation, sealed(params, "volume_secrets")),
        until=until,
        attempt=(operation.id, operation.attempt),
    )
    now, now_ns = ctx.clock.now(), ctx.clock.now_ns()
    size = max(capacity, merged.definition.capacity)
    grown = replace(merged, definition=replace(merged.definition, capacity=size), modify_time=now_ns)

    def writes(index: int) -> list[Write]:
        result = {"index": index, "capacity": size}
        return [
            volumes.expand(grown, index, operation_id=operation.id, secrets=sealed(params, "volume_secrets")),
            operations.succeed(operation, now=now, result=result),
        ]

    ctx.record(operation, volume_scope(operation.namespace), writes=writes)


def expand_rejected(ctx: Context, operation: Operation, error: PluginRejected) -> None:
    """The volume is as it was, or larger than we know, which harms nobody."""
    now = ctx.clock.now()
    unmark = volumes.unmark(
        volumes.key(operation.namespace, operation.volume_id),
        operation_id=operation.id,
        calls_until=0.0 if outcome.is_answer(error.code) else operation.calls_until,
    )
    ctx.close(operation, unmark, operations.fail(operation, now=now, error=error.text))


DEFINITION: Final = Definition(steps={EXPAND: Step("ControllerExpandVolume", expand, expand_rejected)})
