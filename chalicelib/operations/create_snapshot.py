"""Take a snapshot: CreateSnapshot under the name that the request gave.

A repeat finds the same snapshot by that name (CSI spec, CreateSnapshot). Nothing is registered, as in Nomad: the
provider's list is the record, and the operation only makes sure that the call is finished. It holds a lock for its
source and name. The same request joins it, and another request for that source and name is refused.

After a crash, before or after the call, the next attempt's call answers the same snapshot. A call of an older attempt
that lands after a delete would take the snapshot anew. So the snapshot's turn stays taken until that cannot happen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Final

from chalicelib.domain.external import Snapshot
from chalicelib.domain.operation import JsonObject, Kind, Operation
from chalicelib.domain.secrets import from_base64, to_base64
from chalicelib.domain.volume import Volume
from chalicelib.errors import PluginRejected
from chalicelib.operations import starting
from chalicelib.operations.context import StepContext
from chalicelib.operations.spec import KindSpec, Step, SubjectHold
from chalicelib.operations.starting import Api
from chalicelib.store.turns import Turn, of_storage

CREATE: Final = "create"


@dataclass(frozen=True, slots=True)
class Params:
    """What the plugin is given beside source and name."""

    parameters: Mapping[str, str]
    volume_secrets: bytes = field(repr=False)
    """Sealed, of the source. The request's own secrets come before them."""

    def encode(self) -> JsonObject:
        """Return the parameters as they are stored."""
        return {"parameters": dict(self.parameters), "volume_secrets": to_base64(self.volume_secrets)}

    @classmethod
    def decode(cls, stored: JsonObject) -> Params:
        """Return the parameters that are stored."""
        return cls(stored.get("parameters") or {}, from_base64(stored.get("volume_secrets")))


def start(
    api: Api, source: Volume, plugin_id: str, name: str, parameters: Mapping[str, str], secrets: Mapping[str, str]
) -> Operation:
    """Begin to take a snapshot of the source under this name, or join the operation that does."""
    external_id = source.definition.external_id
    subject = f"create snapshot\n{plugin_id}\n{external_id}\n{name}"
    digest = starting.digest(Kind.CREATE_SNAPSHOT.value, subject, dict(parameters))
    operation = starting.new_operation(
        api, KIND, namespace=source.namespace, volume_id=source.id, plugin_id=plugin_id, digest=digest
    )
    operation = replace(
        operation,
        storage_name=name,
        external_id=external_id,
        subject=subject,
        params=Params(parameters, source.sealed_secrets).encode(),
        sealed_secrets=api.seal(secrets, source.namespace, source.id),
    )
    return starting.lock_or_join(api, operation)


def result(operation: Operation) -> Snapshot:
    """Return the snapshot that a finished operation has taken."""
    return Snapshot(**{f.name: operation.result[f.name] for f in fields(Snapshot)})


def create(ctx: StepContext, operation: Operation, until: float) -> None:
    """Call CreateSnapshot, and close the operation."""
    params = Params.decode(operation.params)
    made = ctx.calls.create_snapshot(
        operation.plugin_id,
        operation.external_id,
        name=operation.storage_name,
        parameters=params.parameters,
        call=ctx.call_options(operation, until, params.volume_secrets, operation.sealed_secrets),
    )
    now = ctx.clock.now()
    older = operation.older_calls_until(now)
    if older:
        subject = of_storage(operation.plugin_id, made.id)
        ctx.turns.take(Turn(subject, operation.id, operation.attempt, older), now=now)
    ctx.finish(operation, asdict(made))


def create_rejected(ctx: StepContext, operation: Operation, error: PluginRejected) -> None:
    """Fail the operation. A snapshot that was taken all the same is found when the request is repeated."""
    ctx.give_up(operation, error.text)


KIND: Final = KindSpec(
    Kind.CREATE_SNAPSHOT,
    first=CREATE,
    holds=SubjectHold(),
    steps={CREATE: Step("CreateSnapshot", create, create_rejected)},
)
