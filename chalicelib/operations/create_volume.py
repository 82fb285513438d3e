"""Create a volume: CreateVolume, then the record.

Races with
- a second create of the same ID: it loses at the reservation, in the request's own transaction.
- a delete: it is refused while the volume is `creating`.
- older attempts of this operation: the attempt's number fences them at the record and at the bridge, the storage name
at the provider.

After a crash
- before the call: the operation is pending, or its lease ends. The provider has nothing.
- after the call, before the record: the volume exists under `storage_name`. CreateVolume of the next attempt answers
the same volume.
- after the record: done.

A rejection that proves absence closes the operation. Any other (INTERNAL, PERMISSION_DENIED, …) may have left storage
behind. The client gets its answer, its volume ID is free again, and the operation undoes itself: `find` creates by the
same name until the provider answers, since DeleteVolume needs the ID, and `remove` deletes what it found
(docs/decisions/001).
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from chalicelib.domain import outcome
from chalicelib.domain.operation import Kind, Operation, retry_delay
from chalicelib.domain.volume import RECORD_LIMIT, Made, Volume, registered
from chalicelib.errors import PluginRejected, RequestError, StorageOutdated
from chalicelib.operations import starting
from chalicelib.operations.context import StepContext, the_volume
from chalicelib.operations.spec import KindSpec, Step, VolumeHold
from chalicelib.operations.starting import Api, NewOperation
from chalicelib.store import operations, ownership, volumes
from chalicelib.store.commit import Writes
from chalicelib.store.dynamo import Write
from chalicelib.store.index import MEMBERS, volume_scope
from chalicelib.store.stores import Stores
from chalicelib.store.tables import TOMBSTONE_SECONDS

CREATE: Final = "create"
FIND: Final = "find"
REMOVE: Final = "remove"
NAME_LIMIT: Final = 40
"""Characters of the volume's name in its storage name. With the operation's ID it is at most 63, as plain providers
want it.
"""
TOO_LARGE: Final = (
    "controller create volume: the plugin's answer makes the record larger than it can be: give smaller Parameters"
)


def start(api: Api, volume: Volume, secrets: Mapping[str, str]) -> NewOperation:
    """Reserve the volume's ID and create the volume at its provider."""
    asked = volumes.as_json(volume.definition)
    digest = starting.digest(Kind.CREATE_VOLUME.value, volume.namespace, volume.id, volume.plugin_id, asked)
    blank = starting.new_operation(
        api, KIND, namespace=volume.namespace, volume_id=volume.id, plugin_id=volume.plugin_id, digest=digest
    )
    operation = replace(
        blank,
        storage_name=_storage_name(volume.definition.name, blank.id),
        definition=volumes.encode(volume.definition),
        sealed_secrets=api.seal(secrets, volume.namespace, volume.id),
    )
    reserve = volumes.reserve(volume, operation_id=operation.id, kind=operation.kind.value)
    return NewOperation(operation, [reserve, operations.open_operation(operation, now=operation.create_time)])


def result(asked: Volume, operation: Operation) -> Volume:
    """Return the volume as a finished create has made it."""
    return replace(asked, definition=asked.definition.made(volumes.decode_made(operation.result)))


def create(ctx: StepContext, operation: Operation, until: float) -> None:
    """Call CreateVolume. Write the volume, what it owns and the end of the operation in one transaction.

    If the storage was being removed when the call began, its answer may be older than that: call again later.
    """
    since = ctx.clock.now()
    made = _call(ctx, operation, until)
    now = ctx.clock.now()
    asked = the_volume(operation)
    volume = registered(replace(asked, definition=asked.definition.made(made)), index=0, now_ns=ctx.clock.now_ns())
    if len(volumes.encode(volume.definition).encode()) > RECORD_LIMIT:
        # No attempt can store it, so the undo removes it.
        raise PluginRejected(TOO_LARGE, code=outcome.UNUSABLE)
    # A call that is still in flight finds the storage by its name. After a delete it would make it anew, so every
    # removal of the storage waits for it.
    volume = replace(volume, calls_until=operation.older_calls_until(now))

    def build() -> Writes:
        owner, joining = ownership.join(ctx, volume, since=since)
        return lambda index: [
            *volumes.create(owner, index, operation_id=operation.id),
            *joining,
            operations.succeed(operation, now=now, result={"index": index} | volumes.encode_made(made)),
        ]

    try:
        ctx.record(operation, volume_scope(operation.namespace), MEMBERS, build=build)
    except StorageOutdated as exc:
        ctx.retry(operation, exc.text, answered=True, now=now)
    except RequestError as exc:
        raise PluginRejected(exc.text, code=outcome.UNUSABLE) from exc


def create_rejected(ctx: StepContext, operation: Operation, error: PluginRejected) -> None:
    """Fail the operation if nothing was made. If that is unknown, fail it for the client and begin its undo."""
    now = ctx.clock.now()
    if outcome.proves("CreateVolume", error.code):
        closing = operations.fail(operation, now=now, error=error.text)
    else:
        until = max(
            now if outcome.is_answer(error.code) else operation.calls_until, now + retry_delay(1, ctx.clock.jitter())
        )
        closing = operations.undo(operation, now=now, step=FIND, error=error.text, until=until)
    ctx.close(operation, *_free(ctx, operation), closing)


def find(ctx: StepContext, operation: Operation, until: float) -> Operation | None:
    """Call CreateVolume again under the same name, to learn the ID of what may have been made."""
    since = ctx.clock.now()
    made = _call(ctx, operation, until)
    now = ctx.clock.now()
    older = operation.older_calls_until(now)
    if older:
        # It may make anew what is removed now.
        ctx.operations.postpone(operation, now=now, until=older, last_error=operation.last_error, answered=True)
        return None

    def build() -> Writes:
        removal = ownership.claim_removal(ctx, operation, made.external_id, since=since)
        if removal is None:
            return lambda _: [operations.fail(operation, now=now, error=operation.error)]
        return lambda _: [
            removal,
            operations.proceed(operation, now=now, step=REMOVE, external_id=made.external_id),
        ]

    try:
        ctx.record(operation, build=build)
    except StorageOutdated as exc:
        ctx.retry(operation, exc.text, answered=True, now=now)
        return None
    after = ctx.operations.get(operation.id)
    return after if after is not None and after.open else None


def find_rejected(ctx: StepContext, operation: Operation, error: PluginRejected) -> None:
    """Close the operation if the provider proves that there is nothing to remove. Otherwise retry later."""
    now = ctx.clock.now()
    if outcome.proves("CreateVolume", error.code):
        ctx.close(operation, operations.fail(operation, now=now, error=operation.error))
        return
    ctx.retry(operation, error.text, answered=outcome.is_answer(error.code), now=now)


def remove(ctx: StepContext, operation: Operation, until: float) -> Operation | None:
    """Call DeleteVolume for what was found, and close the operation."""
    storage = ctx.storages.get(operation.plugin_id, operation.external_id)
    if storage.operation_id != operation.id:
        # An older version found it, and did not mark it. By now it may be a volume's.
        return ctx.operations.checkpoint(operation, now=ctx.clock.now(), step=FIND)
    ctx.calls.delete_volume(
        operation.plugin_id,
        operation.external_id,
        call=ctx.call_options(operation, until, operation.sealed_secrets),
    )
    now = ctx.clock.now()
    gone = ownership.end_removal(ctx, storage, until=max(now, operation.older_calls_until(now)))
    ctx.close(operation, gone, operations.fail(operation, now=now, error=operation.error))
    return None


def remove_rejected(ctx: StepContext, operation: Operation, error: PluginRejected) -> None:
    """Retry later, since the storage is still there. After the last try, an operator has to look."""
    ctx.retry(operation, error.text, answered=outcome.is_answer(error.code), now=ctx.clock.now())


def _call(ctx: StepContext, operation: Operation, until: float) -> Made:
    return ctx.calls.create_volume(
        the_volume(operation),
        name=operation.storage_name,
        call=ctx.call_options(operation, until, operation.sealed_secrets),
    )


def _free(stores: Stores, operation: Operation) -> list[Write]:
    key, expires_at = volumes.key(operation.namespace, operation.volume_id), int(stores.clock.now()) + TOMBSTONE_SECONDS
    return [volumes.release_reservation(key, operation_id=operation.id, expires_at=expires_at)]


def _storage_name(name: str, operation_id: str) -> str:
    """Return what CreateVolume is told: readable, and unique by the operation's ID."""
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower())[:NAME_LIMIT].strip("-")
    return f"{readable}-{operation_id}" if readable else f"volume-{operation_id}"


KIND: Final = KindSpec(
    Kind.CREATE_VOLUME,
    first=CREATE,
    holds=VolumeHold(_free),
    names_storage=True,
    storage_has_id=False,
    steps={
        CREATE: Step("CreateVolume", create, create_rejected),
        FIND: Step("CreateVolume", find, find_rejected),
        REMOVE: Step("DeleteVolume", remove, remove_rejected),
    },
)
