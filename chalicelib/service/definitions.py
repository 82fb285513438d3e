"""Creating, registering and updating volumes by their definitions.

All definitions of a request are checked before anything is done. After that each volume stands alone: creates run
side by side, and if one fails, the others exist and are registered.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from chalicelib.domain.merge import Merged, merge
from chalicelib.domain.operation import Kind, Operation
from chalicelib.domain.plugin import Plugin
from chalicelib.domain.volume import DEFINITION_LIMIT, Volume, VolumeState, limits, mode_problem, problems
from chalicelib.errors import OperationInProgress, Refused, RequestError, VolumesError, WriteConflict, joined
from chalicelib.sealing import volume_context
from chalicelib.service import waiting
from chalicelib.service.deps import Deps
from chalicelib.service.volumes import WRITE_TRIES, was_mine
from chalicelib.store import namespaces as namespace_store
from chalicelib.store import operations as operation_store
from chalicelib.store import volumes as volume_store
from chalicelib.store.dynamo import TransactionRefused
from chalicelib.store.index import MEMBERS, volume_scope

NAME_LIMIT: Final = 40


@dataclass(frozen=True, slots=True)
class Wanted:
    """A volume as a request gave it, with the secrets beside it, and whether it may already exist."""

    volume: Volume
    secrets: Mapping[str, str]
    only_new: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """The index of a write, and the volumes to show for it: with a plugin, they are shown with its counts."""

    index: int
    volumes: tuple[tuple[Volume, Plugin | None], ...] = ()


@dataclass(frozen=True, slots=True)
class _Done:
    """What became of one volume of a request."""

    index: int
    volume: Volume
    plugin: Plugin | None = None


def create(deps: Deps, wanted: Sequence[Wanted]) -> Written:
    """Make the volumes at their providers, side by side; one that exists is updated. Refused has all errors joined."""
    checked = _checked(deps, wanted)
    if len({(w.volume.namespace, w.volume.id) for w in checked}) < len(checked):
        raise RequestError("validation: one volume ID is in the request twice")
    _refuse_namespaces(deps, checked, join=True)
    for item in checked:
        _refuse_plugin(deps.plugins.get(item.volume.plugin_id), item.volume.plugin_id)
    errors: list[str] = []
    results: dict[int, _Done] = {}
    started: dict[int, Operation] = {}
    for position, item in enumerate(checked):
        try:
            begun = _start_create(deps, item)
            if isinstance(begun, Operation):
                started[position] = begun
            else:
                results[position] = _update(deps, begun, item)
        except Refused as exc:
            errors.append(exc.text)
    finished = waiting.wait(deps, list(started.values()))
    for position, operation in ((p, finished[o.id]) for p, o in started.items()):
        if operation.result:
            made = volume_store.decode(operation.result["definition"])
            results[position] = _Done(int(operation.result["index"]), replace(checked[position].volume, **made))
        elif operation.answered:
            errors.append(operation.error or operation.last_error)
    _refuse_rest(errors, finished.values())
    return _written([results[position] for position in sorted(results)])


def _refuse_rest(errors: Sequence[str], operations: Iterable[Operation]) -> None:
    """Errors come first, since they are final; then what still runs."""
    if errors:
        raise Refused(joined(errors))
    pending = waiting.unanswered(operations)
    if pending:
        raise pending


def register(deps: Deps, wanted: Sequence[Wanted]) -> Written:
    """Make volumes known that exist at their providers; one that is known is updated. All are checked before the
    first is written.
    """
    planned: list[tuple[Wanted, Volume | None]] = []
    # Of one ID that is there twice, the last counts, as recorded.
    named = _checked(deps, wanted)
    checked = list({(w.volume.namespace, w.volume.id): w for w in named}.values())
    _refuse_namespaces(deps, checked, join=False)
    for item in checked:
        old = deps.volumes.get(item.volume.namespace, item.volume.id)
        known = old if old is not None and old.exists else None
        _refuse_known(known, item)
        merged = _merged_for_register(known, item)
        _validate_at_provider(deps, replace(item, volume=merged))
        planned.append((item, known))
    done = {}
    for item, known in planned:
        try:
            written = _register(deps, item) if known is None else _update(deps, known, item)
        except _UpdateRefused as exc:
            raise Refused("unable to update volume: " + exc.text) from exc
        done[item.volume.namespace, item.volume.id] = written
    shown = [done[w.volume.namespace, w.volume.id] for w in wanted]
    return _written(
        [replace(d, volume=_placed(w.volume)) if d.plugin is None else d for d, w in zip(shown, named, strict=True)]
    )


class _UpdateRefused(Refused):
    """An update that the rules or the provider refuse; create and register say so in different words."""


def _written(done: Sequence[_Done]) -> Written:
    return Written(max(d.index for d in done), tuple((d.volume, d.plugin) for d in done))


def _checked(deps: Deps, wanted: Sequence[Wanted]) -> list[Wanted]:
    """All definitions are right and their namespaces and plugins exist, or nothing is done."""
    if not wanted:
        raise Refused("missing volume definition")
    for item in wanted:
        found = problems(item.volume)
        if found:
            raise Refused("validation: " + ", ".join(found))
        too_much = limits(item.volume)
        if too_much:
            raise RequestError("validation: " + ", ".join(too_much))
        if len(volume_store.encode(item.volume).encode()) > DEFINITION_LIMIT:
            limit = DEFINITION_LIMIT // 1024
            raise RequestError(f"volume definition is larger than {limit} KB: leave out what is not needed", status=413)
    return _with_plugins(deps, wanted)


def _with_plugins(deps: Deps, wanted: Sequence[Wanted]) -> list[Wanted]:
    plugins = deps.plugins.get_many(w.volume.plugin_id for w in wanted)
    out = []
    for item in wanted:
        plugin = plugins.get(item.volume.plugin_id)
        if plugin is None:
            raise Refused(f"no CSI plugin named: {item.volume.plugin_id} could be found")
        named = replace(item.volume, provider=plugin.provider, provider_version=plugin.provider_version)
        out.append(replace(item, volume=named))
    return out


def _refuse_namespaces(deps: Deps, wanted: Sequence[Wanted], *, join: bool) -> None:
    """Before anything is made: an unknown namespace found later would leave storage behind."""
    missing = {name for name in {w.volume.namespace for w in wanted} if not deps.namespaces.exists(name)}
    texts = [_no_namespace(w.volume).text for w in wanted if w.volume.namespace in missing]
    if texts:
        raise Refused(joined(texts) if join else texts[0])


def _refuse_plugin(plugin: Plugin | None, plugin_id: str) -> None:
    """What a plugin must have for a create."""
    if plugin is None:
        raise Refused(f"no CSI plugin named: {plugin_id} could be found")
    if not plugin.controller_required:
        raise Refused("plugin has no controller")
    if not plugin.can("CREATE_DELETE_VOLUME"):
        raise Refused("plugin does not support creating volumes")
    if not plugin.controllers_healthy:
        raise Refused(f"no healthy controllers for CSI plugin: {plugin_id}")


def _refuse_create(item: Wanted) -> None:
    """What would be refused on the way to the plugin, one volume at a time."""
    volume = item.volume
    problem = "missing Name" if not volume.name else mode_problem(volume.capabilities)
    if not problem and volume.capacity_max and volume.capacity_max < volume.capacity_min:
        problem = "LimitBytes cannot be less than RequiredBytes"
    if problem:
        raise Refused(f"controller create volume: CSI.ControllerCreateVolume: {problem}")


def _refuse_known(known: Volume | None, item: Wanted) -> None:
    if known is None:
        return
    if item.only_new:
        raise RequestError(f"volume {known.id} exists: If-None-Match asks for a new one", status=412)
    if known.operation_id:
        raise OperationInProgress(f"volume {known.id} has an operation in progress: {known.operation_kind}")


def _start_create(deps: Deps, item: Wanted) -> Operation | Volume:
    """Reserve the ID and write the operation in one transaction, then send the message; the volume, if it exists."""
    _refuse_create(item)
    volume, now = item.volume, deps.clock.now()
    encoded = volume_store.encode(volume)
    operation_id = deps.clock.new_id()
    operation = Operation(
        id=operation_id,
        kind=Kind.CREATE_VOLUME,
        namespace=volume.namespace,
        volume_id=volume.id,
        plugin_id=volume.plugin_id,
        digest=waiting.digest(Kind.CREATE_VOLUME.value, volume.namespace, volume.id, volume.plugin_id, encoded),
        step="create",
        storage_name=_storage_name(volume.name, operation_id),
        params={"definition": encoded},
        sealed_secrets=deps.sealer.seal_secrets(item.secrets, volume_context(volume.namespace, volume.id)),
        create_time=now,
        update_time=now,
    )
    writes = [
        volume_store.reserve(volume, operation_id=operation_id, kind=Kind.CREATE_VOLUME.value),
        operation_store.open_operation(operation, now=now),
        *namespace_store.must_exist(volume.namespace),
    ]
    try:
        deps.dynamo.transact(writes, token=operation_id)
    except TransactionRefused as exc:
        return _already(deps, item, exc, operation)
    waiting.send(deps, operation)
    return operation


def _already(deps: Deps, item: Wanted, refused: TransactionRefused, mine: Operation) -> Operation | Volume:
    """Why the reservation was refused: no namespace, my own write, the same request, another one, or the volume
    exists.
    """
    volume = item.volume
    if "namespace" in refused.old:
        raise _no_namespace(volume)
    old = volume_store.volume_of(refused.old.get("volume"))
    if old is None or old.operation_id == mine.id:
        waiting.send(deps, mine)
        return mine
    if old.exists and item.only_new:
        _refuse_known(old, item)
    if old.operation_id and old.operation_kind != Kind.EXPAND_VOLUME.value:
        return waiting.join(
            deps, volume.id, old.operation_id, mine.digest, old.operation_kind, secrets=mine.sealed_secrets
        )
    return old  # an update, which joins the expansion if it is the same


def _merged_for_register(known: Volume | None, item: Wanted) -> Volume:
    """What the plugin is asked to validate: the definition as it will stand."""
    if known is None:
        return _placed(item.volume)
    try:
        return merge(known, item.volume).volume
    except Refused as exc:
        raise Refused("unable to update volume: " + exc.text) from exc


def _validate_at_provider(deps: Deps, item: Wanted) -> None:
    """A plugin with a controller is asked whether the volume exists and can do what is wanted."""
    plugin = deps.plugins.get(item.volume.plugin_id)
    if plugin is None or not plugin.controller_required:
        return
    if not plugin.controllers_healthy:
        raise Refused(f"no healthy controllers for CSI plugin: {plugin.id}")
    problem = mode_problem(item.volume.capabilities)
    if problem:
        raise Refused(f"controller validate volume: CSI.ControllerValidateVolume: {problem}")
    # A volume without an external ID has its own ID at the provider.
    asked = replace(item.volume, external_id=item.volume.external_id or item.volume.id)
    sealed = deps.sealer.seal_secrets(item.secrets, volume_context(asked.namespace, asked.id))
    deps.asker.ask(
        "validate_volume",
        plugin_id=plugin.id,
        namespace=asked.namespace,
        volume_id=asked.id,
        definition=volume_store.encode(asked),
        secrets=waiting.text(sealed or item.volume.sealed_secrets),
    )


def _placed(volume: Volume) -> Volume:
    """A volume that is registered without topologies is where it was requested to be."""
    if volume.topologies is None and volume.topology_request is not None and volume.topology_request.required:
        return replace(volume, topologies=volume.topology_request.required)
    return volume


def _register(deps: Deps, item: Wanted) -> _Done:
    volume, scope = _placed(item.volume), volume_scope(item.volume.namespace)
    sealed = deps.sealer.seal_secrets(item.secrets, volume_context(volume.namespace, volume.id))
    for attempt in range(WRITE_TRIES):
        now_ns = deps.clock.now_ns()
        ticket = deps.index.allocate(scope, MEMBERS, name=deps.clock.new_id(), now=deps.clock.now())
        stored = replace(
            volume,
            sealed_secrets=sealed,
            create_time=volume.create_time or now_ns,
            modify_time=volume.modify_time or now_ns,
        )
        writes = [*volume_store.register(stored, ticket), *namespace_store.must_exist(volume.namespace)]
        try:
            deps.dynamo.transact(writes, token=ticket.id)
        except TransactionRefused as exc:
            if not was_mine(exc, ticket.index):
                deps.index.abandon(ticket)
                found = _register_refused(volume, exc)
                if found is not None:
                    return _update(deps, found, item)
                deps.clock.sleep(0.01 * (attempt + deps.clock.jitter()))
                continue
        deps.index.publish(ticket)
        return _Done(ticket.index, volume)
    raise WriteConflict(f"volume {volume.id} is being changed by others: try again in a moment")


def _register_refused(volume: Volume, refused: TransactionRefused) -> Volume | None:
    """The volume, if somebody made it known meanwhile; None to try again."""
    if "namespace" in refused.old:
        raise _no_namespace(volume)
    old = volume_store.volume_of(refused.old.get("volume"))
    if old is not None and old.operation_id:
        raise OperationInProgress(f"volume {volume.id} has an operation in progress: {old.operation_kind}")
    return old if old is not None and old.exists else None


def _update(deps: Deps, read: Volume, item: Wanted) -> _Done:
    """Update a volume that is known; expands it through its plugin when the new definition asks for more."""
    for attempt in range(WRITE_TRIES):
        if item.only_new:
            _refuse_known(read, item)
        if read.operation_id and read.operation_kind != Kind.EXPAND_VOLUME.value:
            raise OperationInProgress(f"volume {read.id} has an operation in progress: {read.operation_kind}")
        try:
            merged = merge(read, item.volume)
        except Refused as exc:
            raise _UpdateRefused(exc.text) from exc
        sealed = deps.sealer.seal_secrets(item.secrets, volume_context(read.namespace, read.id))
        done = _write_update(deps, read, merged, sealed)
        if done is not None:
            return done
        deps.clock.sleep(0.01 * (attempt + deps.clock.jitter()))
        found = deps.volumes.get(read.namespace, read.id)
        if found is None or not found.exists:
            raise Refused(f"volume not found: {read.id}")
        read = found
    raise WriteConflict(f"volume {read.id} is being changed by others: try again in a moment")


def _write_update(deps: Deps, read: Volume, merged: Merged, sealed: bytes) -> _Done | None:
    """One try; None when somebody changed the volume since it was read."""
    plugin = deps.plugins.get(read.plugin_id)
    if merged.expansion is not None or read.operation_id:
        return _expand(deps, read, merged, plugin, sealed or read.sealed_secrets)
    ticket = deps.index.allocate(volume_scope(read.namespace), name=deps.clock.new_id(), now=deps.clock.now())
    stored = replace(merged.volume, sealed_secrets=sealed or read.sealed_secrets, modify_time=deps.clock.now_ns())
    try:
        deps.dynamo.transact([volume_store.replace_definition(stored, ticket, read=read)], token=ticket.id)
    except TransactionRefused as exc:
        if not was_mine(exc, ticket.index):
            deps.index.abandon(ticket)
            return None
    deps.index.publish(ticket)
    return _Done(ticket.index, merged.volume, plugin)


def _expand(deps: Deps, read: Volume, merged: Merged, plugin: Plugin | None, sealed: bytes) -> _Done | None:
    wanted, now, operation_id = merged.volume, deps.clock.now(), deps.clock.new_id()
    if merged.expansion is None:
        raise OperationInProgress(f"volume {read.id} has an operation in progress: {read.operation_kind}")
    if plugin is None or not plugin.can("EXPAND_VOLUME"):
        raise _UpdateRefused("expand is not implemented by this controller plugin")
    encoded = volume_store.encode(wanted)
    operation = Operation(
        id=operation_id,
        kind=Kind.EXPAND_VOLUME,
        namespace=read.namespace,
        volume_id=read.id,
        plugin_id=read.plugin_id,
        digest=waiting.digest(Kind.EXPAND_VOLUME.value, read.namespace, read.id, encoded),
        step="expand",
        external_id=read.external_id,
        params={
            "definition": encoded,
            "required": merged.expansion.required,
            "limit": merged.expansion.limit,
            "volume_secrets": waiting.text(sealed),
        },
        create_time=now,
        update_time=now,
    )
    if read.operation_id:
        operation = waiting.join(deps, read.id, read.operation_id, operation.digest, read.operation_kind)
    else:
        mark = volume_store.mark(
            read, operation_id=operation_id, kind=Kind.EXPAND_VOLUME.value, state=VolumeState.READY, unclaimed=False
        )
        try:
            deps.dynamo.transact([mark, operation_store.open_operation(operation, now=now)], token=operation_id)
        except TransactionRefused as exc:
            old = volume_store.volume_of(exc.old.get("volume"))
            if old is None or old.operation_id != operation_id:
                return None
        waiting.send(deps, operation)
    return _expanded(deps, read, operation, plugin)


def _expanded(deps: Deps, read: Volume, operation: Operation, plugin: Plugin | None) -> _Done:
    done = waiting.wait(deps, [operation])[operation.id]
    if done.result:
        grown = replace(read, **volume_store.decode(done.result["definition"]))
        return _Done(int(done.result["index"]), grown, plugin)
    pending = waiting.unanswered([done])
    if pending:
        raise pending
    raise _UpdateRefused(f"unable to expand volume: {done.error or done.last_error}")


def _no_namespace(volume: Volume) -> VolumesError:
    return Refused(f"volume {volume.id} is in nonexistent namespace {volume.namespace}")


def _storage_name(name: str, operation_id: str) -> str:
    """What CreateVolume is told: readable, unique, within the limits of the plainest providers (63 characters)."""
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower())[:NAME_LIMIT].strip("-")
    return f"{readable}-{operation_id}" if readable else f"volume-{operation_id}"
