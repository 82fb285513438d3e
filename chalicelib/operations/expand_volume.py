"""Expand a volume: ControllerExpandVolume, then the record with the rest of the update.

Races with
- claims, which may come and go meanwhile: only the definition is written, never the counters.
- a delete, which is refused while the operation holds the volume.

An expansion cannot be undone, and a repeated one changes nothing more. So every rejection closes the operation. The
volume keeps its old definition, and the next expansion learns its true size.

After a crash before the call, nothing happened. After the call, the next attempt's call answers the same size.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from chalicelib.domain import outcome
from chalicelib.domain.merge import Expansion
from chalicelib.domain.operation import JsonObject, Kind, Operation
from chalicelib.domain.secrets import from_base64, to_base64
from chalicelib.domain.volume import Definition, MountOptions, Volume, VolumeState
from chalicelib.errors import PluginRejected
from chalicelib.operations import starting
from chalicelib.operations.context import StepContext, the_volume
from chalicelib.operations.spec import KindSpec, Step, VolumeHold, unmark
from chalicelib.operations.starting import Api, NewOperation
from chalicelib.store import operations, volumes
from chalicelib.store.dynamo import Write
from chalicelib.store.index import volume_scope

EXPAND: Final = "expand"
EXPANDS: Final = "expand"
"""What holds a volume that only grows: claims may come and go meanwhile."""
UPDATES: Final = "update"
"""What holds a volume that grows and changes its modes: claims are judged by modes that end, so none may come."""


@dataclass(frozen=True, slots=True)
class Params:
    """What the plugin is asked for."""

    required: int
    limit: int
    """Bytes, as above. 0 is no limit."""
    volume_secrets: bytes = field(repr=False)
    """Sealed. The volume keeps them when it has grown."""

    def encode(self) -> JsonObject:
        """Return the parameters as they are stored."""
        return {
            "required": self.required,
            "limit": self.limit,
            "volume_secrets": to_base64(self.volume_secrets),
        }

    @classmethod
    def decode(cls, stored: JsonObject) -> Params:
        """Return the parameters that are stored."""
        return cls(int(stored["required"]), int(stored["limit"]), from_base64(stored.get("volume_secrets")))


def is_held(volume: Volume) -> bool:
    """Return whether an expansion holds the volume."""
    return volume.operation_kind in (EXPANDS, UPDATES)


def start(api: Api, read: Volume, updated: Volume, expansion: Expansion, secrets: bytes) -> NewOperation:
    """Expand the volume that was `read` so that it becomes `updated`. The secrets are sealed."""
    now = api.clock.now()
    operation = replace(
        starting.new_operation(
            api,
            KIND,
            namespace=read.namespace,
            volume_id=read.id,
            plugin_id=read.plugin_id,
            digest=_digest(updated),
        ),
        external_id=read.definition.external_id,
        definition=volumes.encode(updated.definition),
        params=Params(expansion.required, expansion.limit, secrets).encode(),
    )
    kind = EXPANDS if _modes(read.definition) == _modes(updated.definition) else UPDATES
    mark = volumes.mark(read, operation_id=operation.id, kind=kind, state=VolumeState.READY, unclaimed=False)
    return NewOperation(operation, [mark, operations.open_operation(operation, now=now)])


def join(api: Api, held: Volume, updated: Volume) -> Operation:
    """Return the expansion that holds the volume if it makes it `updated`. Raises OperationInProgress if not."""
    return starting.join(api, held, _digest(updated))


def result(updated: Volume, operation: Operation) -> Volume:
    """Return the volume as a finished expansion has left it."""
    return replace(updated, definition=replace(updated.definition, capacity=int(operation.result["capacity"])))


def expand(ctx: StepContext, operation: Operation, until: float) -> None:
    """Call ControllerExpandVolume. Write the volume's new size and definition, and the end of the operation."""
    params = Params.decode(operation.params)
    merged = the_volume(operation)
    capacity = ctx.calls.controller_expand_volume(
        merged,
        required=params.required,
        limit=params.limit,
        call=ctx.call_options(operation, until, params.volume_secrets),
    )
    now, now_ns = ctx.clock.now(), ctx.clock.now_ns()
    size = max(capacity, merged.definition.capacity)
    grown = replace(merged, definition=replace(merged.definition, capacity=size), modify_time=now_ns)

    def writes(index: int) -> list[Write]:
        result = {"index": index, "capacity": size}
        return [
            volumes.redefine(grown, index, operation_id=operation.id, secrets=params.volume_secrets),
            operations.succeed(operation, now=now, result=result),
        ]

    ctx.record(operation, volume_scope(operation.namespace), build=lambda: writes)


def expand_rejected(ctx: StepContext, operation: Operation, error: PluginRejected) -> None:
    """Fail the operation. The volume is as it was, or larger than its record says, which does no harm."""
    now = ctx.clock.now()
    calls_until = 0.0 if outcome.is_answer(error.code) else operation.calls_until
    closing = operations.fail(operation, now=now, error=error.text)
    ctx.close(operation, unmark(operation, calls_until=calls_until), closing)


def _digest(updated: Volume) -> str:
    asked = volumes.as_json(updated.definition)
    return starting.digest(Kind.EXPAND_VOLUME.value, updated.namespace, updated.id, asked)


def _modes(definition: Definition) -> tuple[object, ...]:
    """What claims are judged by. No mount options and empty ones are the same."""
    return definition.capabilities, definition.mount_options or MountOptions()


KIND: Final = KindSpec(
    Kind.EXPAND_VOLUME,
    first=EXPAND,
    holds=VolumeHold(open_to_claims=frozenset({EXPANDS})),
    steps={EXPAND: Step("ControllerExpandVolume", expand, expand_rejected)},
)
