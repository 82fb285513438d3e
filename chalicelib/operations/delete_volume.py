"""Delete a volume: DeleteVolume, then the record goes.

Races with
- claims: the mark `deleting` is written only if there are none, and refuses them from then on.
- a create of the same ID: it is refused until the tombstone is written, and has another storage name.
- a call of the volume's own create that is still in flight: the delete starts when the create's `calls_until` has
passed.

After a crash before the call, nothing happened. After the call, the DeleteVolume of the next attempt finds nothing,
which is success. A volume whose delete is in doubt stays `deleting`. Only a rejection that proves that the storage is
there makes it ready again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from chalicelib.domain import outcome
from chalicelib.domain.operation import JsonObject, Kind, Operation
from chalicelib.domain.secrets import from_base64, to_base64
from chalicelib.domain.volume import Volume, VolumeState
from chalicelib.errors import PluginRejected
from chalicelib.operations import starting
from chalicelib.operations.context import StepContext
from chalicelib.operations.spec import KindSpec, Step, VolumeHold, unmark
from chalicelib.operations.starting import Api, NewOperation
from chalicelib.store import operations, volumes
from chalicelib.store.dynamo import Write
from chalicelib.store.index import MEMBERS, volume_scope
from chalicelib.store.tables import TOMBSTONE_SECONDS

DELETE: Final = "delete"


@dataclass(frozen=True, slots=True)
class Params:
    """What the operation keeps of the volume."""

    volume_secrets: bytes = field(repr=False)
    """Sealed. The request's own secrets come before them."""

    def encode(self) -> JsonObject:
        """Return the parameters as they are stored."""
        return {"volume_secrets": to_base64(self.volume_secrets)}

    @classmethod
    def decode(cls, stored: JsonObject) -> Params:
        """Return the parameters that are stored."""
        return cls(from_base64(stored.get("volume_secrets")))


def start(api: Api, volume: Volume, secrets: Mapping[str, str]) -> NewOperation:
    """Mark the volume as `deleting`, unless a claim is on it, and delete it at its provider."""
    now = api.clock.now()
    operation = replace(
        starting.new_operation(
            api,
            KIND,
            namespace=volume.namespace,
            volume_id=volume.id,
            plugin_id=volume.plugin_id,
            digest=_digest(volume),
        ),
        external_id=volume.definition.external_id,
        params=Params(volume.sealed_secrets).encode(),
        sealed_secrets=api.seal(secrets, volume.namespace, volume.id),
        # A call of the create that may still land would make the storage anew after the delete: wait until it cannot.
        not_before=volume.calls_until if volume.calls_until > now else 0.0,
    )
    mark = volumes.mark(
        volume, operation_id=operation.id, kind=operation.kind.value, state=VolumeState.DELETING, unclaimed=True
    )
    return NewOperation(operation, [mark, operations.open_operation(operation, now=now)])


def join(api: Api, held: Volume, secrets: Mapping[str, str]) -> Operation:
    """Return the delete that holds the volume. Raises OperationInProgress when another operation holds it."""
    return starting.join(api, held, _digest(held), secrets=api.seal(secrets, held.namespace, held.id))


def delete(ctx: StepContext, operation: Operation, until: float) -> None:
    """Call DeleteVolume. Write the tombstone, the membership and the end of the operation in one transaction."""
    ctx.calls.delete_volume(
        operation.plugin_id,
        operation.external_id,
        call=ctx.call_options(
            operation, until, Params.decode(operation.params).volume_secrets, operation.sealed_secrets
        ),
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


def delete_rejected(ctx: StepContext, operation: Operation, error: PluginRejected) -> None:
    """Make the volume ready again if it is proven to be there. If not, it stays `deleting`, and is tried again."""
    now = ctx.clock.now()
    if not outcome.proves("DeleteVolume", error.code):
        ctx.retry(operation, error.text, answered=outcome.is_answer(error.code), now=now)
        return
    ctx.close(operation, unmark(operation, calls_until=0), operations.fail(operation, now=now, error=error.text))


def _digest(volume: Volume) -> str:
    return starting.digest(Kind.DELETE_VOLUME.value, volume.namespace, volume.id)


KIND: Final = KindSpec(
    Kind.DELETE_VOLUME,
    first=DELETE,
    holds=VolumeHold(),
    steps={DELETE: Step("DeleteVolume", delete, delete_rejected)},
)
