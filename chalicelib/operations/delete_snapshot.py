"""Deleting a snapshot: DeleteSnapshot, for which one that is not there is deleted (CSI spec, DeleteSnapshot).

After a crash, before or after the call: the next attempt's call has the same effect.
"""

from typing import Final

from chalicelib.domain.operation import Operation
from chalicelib.errors import PluginRejected
from chalicelib.operations.context import Context, Definition, Step

DELETE: Final = "delete"


def delete(ctx: Context, operation: Operation, until: float) -> None:
    """DeleteSnapshot, and on its answer the operation is over."""
    ctx.calls.delete_snapshot(
        operation.plugin_id,
        operation.external_id,
        call=ctx.call_options(operation, until, operation.sealed_secrets),
    )
    ctx.finish(operation, {})


def delete_rejected(ctx: Context, operation: Operation, error: PluginRejected) -> None:
    """The snapshot is still in the provider's list, which is its only record."""
    ctx.give_up(operation, error.text)


DEFINITION: Final = Definition(steps={DELETE: Step("DeleteSnapshot", delete, delete_rejected)})
