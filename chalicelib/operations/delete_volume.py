"""Delete a volume: DeleteVolume, then the record goes.

A delete of one of several volumes that name a storage only takes the record away, and is no operation: the data goes
with the last record.

Races with
- claims: the mark `deleting` is written only if there are none, and refuses them from then on.
- a volume that is registered or created for the same storage: the storage's item names either the records that hold
it or the operation that removes it.
- a create of the same ID: it is refused until the tombstone is written, and has another storage name.
- a call of the volume's own create that is still in flight: the delete starts when the create's `calls_until` has
passed.

After a crash before the call, nothing happened. After the call, the DeleteVolume of the next attempt finds nothing,
which is success. A volume whose delete is in doubt stays `deleting`. Only a rejection that proves that the storage is
there makes it ready again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from chalicelib.domain import outcome
from chalicelib.domain import storage as rules
from chalicelib.domain.operation import JsonObject, Kind, Operation
from chalicelib.domain.secrets import from_base64, to_base64
from chalicelib.domain.storage import Storage
from chalicelib.domain.volume import Volume, VolumeState
from chalicelib.errors import LeaseLost, PluginRejected, PluginUnreachable, RequestError
from chalicelib.operations import starting
from chalicelib.operations.context import StepContext
from chalicelib.operations.spec import KindSpec, Step, VolumeHold, unmark
from chalicelib.operations.starting import Api, NewOperation
from chalicelib.store import operations, ownership, volumes
from chalicelib.store.commit import Writes
from chalicelib.store.dynamo import Write
from chalicelib.store.index import MEMBERS, volume_scope
from chalicelib.store.stores import Stores
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


def start(api: Api, volume: Volume, storage: Storage, secrets: Mapping[str, str]) -> NewOperation:
    """Mark the volume as `deleting`, unless a claim is on it, and delete its storage, which no other volume names."""
    now = api.clock.now()
    # A call of a create that may still land would make the storage anew after the delete: wait until it cannot.
    landing = max(volume.calls_until, storage.create_until)
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
        not_before=landing if landing > now else 0.0,
    )
    mark = volumes.mark(
        volume, operation_id=operation.id, kind=operation.kind.value, state=VolumeState.DELETING, unclaimed=True
    )
    removal = ownership.begin_removal(api, storage, volume, operation.id)
    return NewOperation(operation, [mark, removal, operations.open_operation(operation, now=now)])


def join(api: Api, held: Volume, secrets: Mapping[str, str]) -> Operation:
    """Return the delete that holds the volume. Raises OperationInProgress when another operation holds it."""
    return starting.join(api, held, _digest(held), secrets=api.seal(secrets, held.namespace, held.id))


def delete(ctx: StepContext, operation: Operation, until: float) -> None:
    """Call DeleteVolume. Write the tombstone, what it owned and the end of the operation in one transaction."""
    storage = _storage(ctx, operation)
    if storage.operation_id != operation.id:
        _leave(ctx, operation)
        return
    secrets = Params.decode(operation.params).volume_secrets, operation.sealed_secrets
    ctx.calls.delete_volume(
        operation.plugin_id, operation.external_id, call=ctx.call_options(operation, until, *secrets)
    )
    now = ctx.clock.now()
    _deleted(
        ctx, operation, lambda: ownership.end_removal(ctx, storage, until=max(now, operation.older_calls_until(now)))
    )


def _leave(ctx: StepContext, operation: Operation) -> None:
    """End a delete that an older version began for one of several volumes of a storage, which stays for the others.

    Raises PluginUnreachable when there are no others any more. The storage is this delete's to remove from then on.
    """
    volume = ctx.volumes.get(operation.namespace, operation.volume_id)
    if volume is None or volume.operation_id != operation.id:
        raise LeaseLost(operation.id)

    def leave() -> Write:
        storage = _storage(ctx, operation)
        if rules.others(storage, volume):
            return ownership.leave(ctx, storage, volume)
        ownership.adopt(ctx, volume)
        raise PluginUnreachable("no other volume names the storage any more: it is deleted next", code="UNAVAILABLE")

    _deleted(ctx, operation, leave)


def _deleted(ctx: StepContext, operation: Operation, gone: Callable[[], Write]) -> None:
    now = ctx.clock.now()

    def build() -> Writes:
        left = gone()
        return lambda index: [
            *volumes.delete(
                operation.namespace,
                operation.volume_id,
                operation.plugin_id,
                index,
                expires_at=int(now) + TOMBSTONE_SECONDS,
                operation_id=operation.id,
            ),
            left,
            operations.succeed(operation, now=now, result={"index": index}),
        ]

    ctx.record(operation, volume_scope(operation.namespace), MEMBERS, build=build)


def delete_rejected(ctx: StepContext, operation: Operation, error: PluginRejected) -> None:
    """Make the volume ready again if it is proven to be there. If not, it stays `deleting`, and is tried again."""
    now = ctx.clock.now()
    if not outcome.proves("DeleteVolume", error.code):
        ctx.retry(operation, error.text, answered=outcome.is_answer(error.code), now=now)
        return
    closing = operations.fail(operation, now=now, error=error.text)
    ctx.close(operation, unmark(operation, calls_until=0), ownership.keep(ctx, _storage(ctx, operation)), closing)


def _free(stores: Stores, operation: Operation) -> list[Write]:
    storage = _storage(stores, operation)
    if storage.operation_id != operation.id:
        raise RequestError(
            f"operation {operation.id} was begun by an older version, for one of several volumes of a storage: it "
            "cannot be cancelled, only finished",
            status=409,
        )
    return [unmark(operation), ownership.keep(stores, storage)]


def _storage(stores: Stores, operation: Operation) -> Storage:
    return stores.storages.get(operation.plugin_id, operation.external_id or operation.volume_id)


def _digest(volume: Volume) -> str:
    return starting.digest(Kind.DELETE_VOLUME.value, volume.namespace, volume.id)


KIND: Final = KindSpec(
    Kind.DELETE_VOLUME,
    first=DELETE,
    holds=VolumeHold(_free),
    names_storage=True,
    steps={DELETE: Step("DeleteVolume", delete, delete_rejected)},
)
