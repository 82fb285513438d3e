"""Deleting a volume: DeleteVolume, then the record goes.

Races with: claims (refused by the condition that marked the volume `deleting`, and from then on by the mark); a
create of the same ID (refused until the tombstone is written; it has another storage name); a create's call that is
still in flight (the delete starts only when `calls_until` of the create has passed).

After a crash: before the call, nothing happened; after it, the next attempt's DeleteVolume finds nothing, which is
success. A volume whose delete is in doubt stays `deleting`, never back to ready; only a rejection that proves
presence brings it back.
"""

from typing import Final

from chalicelib.domain import outcome
from chalicelib.domain.operation import Operation
from chalicelib.errors import PluginRejected
from chalicelib.operations.context import Context, Definition, Step, sealed
from chalicelib.store import operations, volumes
from chalicelib.store.dynamo import Write
from chalicelib.store.index import MEMBERS, volume_scope
from chalicelib.store.tables import TOMBSTONE_SECONDS

DELETE: Final = "delete"


def delete(ctx: Context, operation: Operation, until: float) -> None:
    """DeleteVolume, and on its answer a tombstone: volume, membership and operation in one transaction."""
    ctx.calls.delete_volume(
        operation.plugin_id,
        operation.external_id,
        secrets=ctx.open(operation, sealed(operation.params, "volume_secrets"), operation.sealed_secrets),
        until=until,
        attempt=(operation.id, operation.attempt),
    )
    now = ctx.clock.now()

    def writes(index: int) -> list[Write]:
        return [
            *volumes.delete(
                operation.namespace,
                operation.volume_id,
                operation.plugin_id,
                index,
                expires_at=int(now) + TOMBSTONE_SECONDS,
                operation_id=operation.id,
            ),
            operations.succeed(operation, now=now, result={"index": index}),
        ]

    ctx.record(operation, volume_scope(operation.namespace), MEMBERS, writes=writes)


def delete_rejected(ctx: Context, operation: Operation, error: PluginRejected) -> None:
    """The volume is still there: ready again. Or nobody knows: it stays `deleting`, and the delete is tried again."""
    now = ctx.clock.now()
    if not outcome.proves("DeleteVolume", error.code):
        ctx.retry(operation, error.text, answered=outcome.is_answer(error.code), now=now)
        return
    unmark = volumes.unmark(
        volumes.key(operation.namespace, operation.volume_id), operation_id=operation.id, calls_until=0
    )
    ctx.close(operation, unmark, operations.fail(operation, now=now, error=error.text))


DEFINITION: Final = Definition(steps={DELETE: Step("DeleteVolume", delete, delete_rejected)})
