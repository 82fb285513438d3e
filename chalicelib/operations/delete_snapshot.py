"""Delete a snapshot: DeleteSnapshot, which succeeds for one that is not there (CSI spec, DeleteSnapshot).

After a crash, before or after the call, the next attempt's call has the same effect.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from chalicelib.domain.operation import Kind, Operation
from chalicelib.errors import PluginRejected
from chalicelib.operations import starting
from chalicelib.operations.context import StepContext
from chalicelib.operations.spec import KindSpec, Step, SubjectHold
from chalicelib.operations.starting import Api

DELETE: Final = "delete"


def start(api: Api, plugin_id: str, snapshot_id: str, secrets: Mapping[str, str]) -> Operation:
    """Begin to delete a snapshot at its provider, or join the operation that does."""
    subject = f"delete snapshot\n{plugin_id}\n{snapshot_id}"
    digest = starting.digest(Kind.DELETE_SNAPSHOT.value, subject, None)
    operation = starting.new_operation(api, KIND, namespace="", volume_id="", plugin_id=plugin_id, digest=digest)
    sealed = api.seal(secrets, "", "")
    return starting.lock_or_join(
        api, replace(operation, external_id=snapshot_id, subject=subject, sealed_secrets=sealed)
    )


def delete(ctx: StepContext, operation: Operation, until: float) -> None:
    """Call DeleteSnapshot, and close the operation."""
    ctx.calls.delete_snapshot(
        operation.plugin_id,
        operation.external_id,
        call=ctx.call_options(operation, until, operation.sealed_secrets),
    )
    ctx.finish(operation, {})


def delete_rejected(ctx: StepContext, operation: Operation, error: PluginRejected) -> None:
    """Fail the operation. The snapshot is still in the provider's list, which is its only record."""
    ctx.give_up(operation, error.text)


KIND: Final = KindSpec(
    Kind.DELETE_SNAPSHOT,
    first=DELETE,
    holds=SubjectHold(),
    steps={DELETE: Step("DeleteSnapshot", delete, delete_rejected)},
)
