"""What the API does with volumes: one public function for each action."""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from chalicelib.domain.operation import Kind, Operation
from chalicelib.domain.plugin import Plugin
from chalicelib.domain.volume import DEFINITION_LIMIT, Volume, VolumeState, limits, mode_problem, problems
from chalicelib.errors import NotFound, OperationInProgress, Refused, RequestError, VolumesError, WriteConflict, joined
from chalicelib.sealing import volume_context
from chalicelib.service import waiting
from chalicelib.service.deps import Deps
from chalicelib.store import namespaces as namespace_store
from chalicelib.store import operations as operation_store
from chalicelib.store import volumes as volume_store
from chalicelib.store.dynamo import TransactionRefused
from chalicelib.store.index import volume_scope
from chalicelib.store.tables import TOMBSTONE_SECONDS

WRITE_TRIES: Final = 10
NAME_LIMIT: Final = 40


@dataclass(frozen=True, slots=True)
class Wanted:
    """A volume as a request gave it, with the secrets beside it."""

    volume: Volume
    secrets: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Written:
    """The index of a write, and the volumes to show for it: with a plugin, they are shown with its counts."""

    index: int
    volumes: tuple[tuple[Volume, Plugin | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Read:
    index: int
    volume: Volume | None
    plugin: Plugin | None = None


def read(deps: Deps, namespace: str, volume_id: str) -> Read:
    """One volume, read strongly, and its index: that of the tombstone when it is gone."""
    found = deps.volumes.get(namespace, volume_id)
    if found is None or not found.exists:
        # An ID that never was has no index of its own: the list's will do, and wakes when it is created.
        index = found.modify_index if found else 0
        return Read(max(index, deps.index.watch().of_volumes(namespace), 1), None)
    return Read(found.modify_index, found, deps.plugins.get(found.plugin_id, consistent=False))


@dataclass(frozen=True, slots=True)
class Listed:
    index: int
    volumes: tuple[tuple[Volume, Plugin | None], ...]


def list_volumes(deps: Deps, namespace: str, *, prefix: str = "") -> Listed:
    """All volumes of a namespace (`*`: of all), in order of namespace and ID.

    The watch is read first and strongly, then the volumes strongly: whatever is committed later has not been
    published yet, and wakes.
    """
    watch = deps.index.watch()
    index = max(watch.of_volumes(namespace), 1)
    found: list[Volume] = []
    for name in _namespaces(deps, namespace):
        for page in deps.volumes.in_namespace(name, prefix=prefix):
            index = max(index, *(v.modify_index for v in page), 0)
            found += [v for v in page if v.exists]
    plugins = deps.plugins.get_many(v.plugin_id for v in found)
    return Listed(index, tuple((v, plugins.get(v.plugin_id)) for v in found))


def create(deps: Deps, wanted: Sequence[Wanted]) -> Written:
    """Make the volumes at their providers, side by side; an existing one is updated.

    Nothing is made unless all definitions are valid. After that each stands alone: if one fails, the others exist and
    are registered.
    """
    prepared = [_prepare_create(deps, w) for w in _checked(deps, wanted)]
    errors: list[str] = []
    started: dict[str, tuple[Wanted, Operation]] = {}
    for item in prepared:
        try:
            _refuse_create(item)
            operation = _start_create(deps, item)
            started[operation.id] = (item, operation)
        except Refused as exc:
            errors.append(exc.text)
    finished = waiting.wait(deps, [operation for _, operation in started.values()])
    return _create_answer(started, finished, errors)


def delete(deps: Deps, namespace: str, volume_id: str, secrets: Mapping[str, str]) -> int:
    """Destroy the volume at its provider, then forget it; returns the index. Refused before anything is touched if it
    is in use.
    """
    for _ in range(WRITE_TRIES):
        found = _existing(deps, namespace, volume_id)
        wanted = waiting.digest(Kind.DELETE_VOLUME.value, namespace, volume_id)
        if found.operation_id:
            operation = waiting.join(deps, volume_id, found.operation_id, wanted, found.operation_kind)
        else:
            started = _start_delete(deps, found, secrets, wanted)
            if started is None:
                continue
            operation = started
        return _deleted(waiting.wait(deps, [operation])[operation.id])
    raise WriteConflict(f"volume {volume_id} is being changed by others: try again in a moment")


def register(deps: Deps, wanted: Sequence[Wanted]) -> Written:
    """Make volumes known that exist at their providers; all or none are valid, each is written by itself."""
    checked = _checked(deps, wanted)
    for item in checked:
        _validate_at_provider(deps, item)
    index = 0
    for item in checked:
        index = _register(deps, item)
    return Written(index, tuple((item.volume, None) for item in checked))


def deregister(deps: Deps, namespace: str, volume_id: str) -> int:
    """Forget the volume and leave its storage alone; returns the index."""
    for attempt in range(WRITE_TRIES):
        found = _existing(deps, namespace, volume_id)
        if found.operation_id:
            raise OperationInProgress(f"volume {volume_id} has an operation in progress: {found.operation_kind}")
        if found.in_use:
            raise Refused(f"volume in use: {volume_id}")
        now = deps.clock.now()
        ticket = deps.index.allocate(volume_scope(namespace), name=deps.clock.new_id(), now=now)
        writes = volume_store.deregistered(found, ticket, expires_at=int(now) + TOMBSTONE_SECONDS)
        try:
            deps.dynamo.transact(writes, token=ticket.id)
        except TransactionRefused as exc:
            if not _was_mine(exc, ticket.index):
                deps.index.abandon(ticket)
                deps.clock.sleep(0.01 * (attempt + deps.clock.jitter()))
                continue
        deps.index.publish(ticket)
        return ticket.index
    raise WriteConflict(f"volume {volume_id} is being changed by others: try again in a moment")


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
            raise RequestError(
                f"volume definition is larger than {DEFINITION_LIMIT // 1024} KB: leave out what is not needed",
                status=413,
            )
    for name, volume_id in {w.volume.namespace: w.volume.id for w in reversed(wanted)}.items():
        if not deps.namespaces.exists(name):
            raise _no_namespace(volume_id, name)
    plugins = deps.plugins.get_many(w.volume.plugin_id for w in wanted)
    out = []
    for item in wanted:
        plugin = plugins.get(item.volume.plugin_id)
        if plugin is None:
            raise Refused(f"no CSI plugin named: {item.volume.plugin_id} could be found")
        out.append(
            replace(
                item, volume=replace(item.volume, provider=plugin.provider, provider_version=plugin.provider_version)
            )
        )
    return out


def _prepare_create(deps: Deps, item: Wanted) -> Wanted:
    plugin = deps.plugins.get(item.volume.plugin_id)
    if plugin is None:
        raise Refused(f"no CSI plugin named: {item.volume.plugin_id} could be found")
    if not plugin.controller_required:
        raise Refused("plugin has no controller")
    if not plugin.can("CREATE_DELETE_VOLUME"):
        raise Refused("plugin does not support creating volumes")
    if not plugin.controllers_healthy:
        raise Refused(f"no healthy controllers for CSI plugin: {item.volume.plugin_id}")
    return item


def _refuse_create(item: Wanted) -> None:
    """What would be refused on the way to the plugin, one volume at a time."""
    volume = item.volume
    problem = "missing Name" if not volume.name else mode_problem(volume.capabilities)
    if not problem and volume.capacity_max and volume.capacity_max < volume.capacity_min:
        problem = "LimitBytes cannot be less than RequiredBytes"
    if problem:
        raise Refused(f"controller create volume: CSI.ControllerCreateVolume: {problem}")


def _start_create(deps: Deps, item: Wanted) -> Operation:
    """Reserve the ID and write the operation in one transaction, then send the message; or join the create that is
    under way.
    """
    volume, now = item.volume, deps.clock.now()
    encoded = volume_store.encode(volume)
    wanted = waiting.digest(Kind.CREATE_VOLUME.value, volume.namespace, volume.id, volume.plugin_id, encoded)
    operation_id = deps.clock.new_id()
    operation = Operation(
        id=operation_id,
        kind=Kind.CREATE_VOLUME,
        namespace=volume.namespace,
        volume_id=volume.id,
        plugin_id=volume.plugin_id,
        digest=wanted,
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
        return _already(deps, item, exc, wanted, operation)
    waiting.send(deps, operation)
    return operation


def _already(deps: Deps, item: Wanted, refused: TransactionRefused, wanted: str, mine: Operation) -> Operation:
    """Why the reservation was refused: no namespace, my own write, the same request, another one, or the volume
    exists.
    """
    volume = item.volume
    if "namespace" in refused.old:
        raise _no_namespace(volume.id, volume.namespace)
    old = volume_store.volume_of(refused.old.get("volume"))
    if old is None or old.operation_id == mine.id:
        waiting.send(deps, mine)
        return mine
    if old.operation_id:
        return waiting.join(deps, volume.id, old.operation_id, wanted, old.operation_kind)
    raise Refused(f"volume {volume.id} already exists: delete it first, or choose another ID")


def _create_answer(
    started: Mapping[str, tuple[Wanted, Operation]], finished: Mapping[str, Operation], errors: list[str]
) -> Written:
    done: list[tuple[Volume, Plugin | None]] = []
    index = 0
    for operation_id, (item, _) in started.items():
        operation = finished[operation_id]
        if operation.result:
            made = volume_store.decode(operation.result["definition"])
            index = max(index, int(operation.result["index"]))
            done.append((replace(item.volume, **made), None))
        elif operation.answered:
            errors.append(operation.error or operation.last_error)
    pending = waiting.unanswered(finished.values())
    if errors:
        raise Refused(joined(errors))
    if pending:
        raise pending
    return Written(index, tuple(done))


def _start_delete(deps: Deps, found: Volume, secrets: Mapping[str, str], wanted: str) -> Operation | None:
    """Mark the volume and write the operation in one transaction; None when somebody changed the volume meanwhile."""
    if found.in_use:
        raise Refused(f"volume in use: {found.id}")
    plugin = deps.plugins.get(found.plugin_id)
    if plugin is None or not plugin.controller_required:
        raise Refused(f'plugin "{found.plugin_id}" for volume "{found.id}" not found')
    if not plugin.controllers_healthy:
        raise Refused(f'controller delete volume: failed to find instances of controller plugin "{found.plugin_id}"')
    now, operation_id = deps.clock.now(), deps.clock.new_id()
    operation = Operation(
        id=operation_id,
        kind=Kind.DELETE_VOLUME,
        namespace=found.namespace,
        volume_id=found.id,
        plugin_id=found.plugin_id,
        digest=wanted,
        step="delete",
        external_id=found.external_id,
        params={"volume_secrets": _text(found.sealed_secrets)},
        sealed_secrets=deps.sealer.seal_secrets(secrets, volume_context(found.namespace, found.id)),
        # A call of the create that may still land would make the storage anew after the delete: wait until it cannot.
        not_before=found.calls_until if found.calls_until > now else 0.0,
        create_time=now,
        update_time=now,
    )
    mark = volume_store.mark(
        found, operation_id=operation_id, kind=Kind.DELETE_VOLUME.value, state=VolumeState.DELETING, unclaimed=True
    )
    try:
        deps.dynamo.transact([mark, operation_store.open_operation(operation, now=now)], token=operation_id)
    except TransactionRefused as exc:
        old = volume_store.volume_of(exc.old.get("volume"))
        if old is None or old.operation_id != operation_id:
            return None
    if not operation.not_before:
        waiting.send(deps, operation)
    return operation


def _deleted(operation: Operation) -> int:
    if operation.result:
        return int(operation.result["index"])
    pending = waiting.unanswered([operation])
    if pending:
        raise pending
    raise Refused(operation.error or operation.last_error)


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
    deps.asker.ask(
        "validate_volume",
        plugin_id=plugin.id,
        namespace=item.volume.namespace,
        volume_id=item.volume.id,
        definition=volume_store.encode(item.volume),
        secrets=_text(deps.sealer.seal_secrets(item.secrets, volume_context(item.volume.namespace, item.volume.id))),
    )


def _register(deps: Deps, item: Wanted) -> int:
    volume, scope = item.volume, volume_scope(item.volume.namespace)
    sealed = deps.sealer.seal_secrets(item.secrets, volume_context(volume.namespace, volume.id))
    for attempt in range(WRITE_TRIES):
        now_ns = deps.clock.now_ns()
        ticket = deps.index.allocate(scope, name=deps.clock.new_id(), now=deps.clock.now())
        stored = replace(
            volume,
            sealed_secrets=sealed,
            create_time=volume.create_time or now_ns,
            modify_time=volume.modify_time or now_ns,
        )
        try:
            deps.dynamo.transact(
                [*volume_store.register(stored, ticket), *namespace_store.must_exist(volume.namespace)], token=ticket.id
            )
        except TransactionRefused as exc:
            if not _was_mine(exc, ticket.index):
                deps.index.abandon(ticket)
                _refuse_register(volume, exc)
                deps.clock.sleep(0.01 * (attempt + deps.clock.jitter()))
                continue
        deps.index.publish(ticket)
        return ticket.index
    raise WriteConflict(f"volume {volume.id} is being changed by others: try again in a moment")


def _refuse_register(volume: Volume, refused: TransactionRefused) -> None:
    if "namespace" in refused.old:
        raise _no_namespace(volume.id, volume.namespace)
    old = volume_store.volume_of(refused.old.get("volume"))
    if old is not None and old.operation_id:
        raise OperationInProgress(f"volume {volume.id} has an operation in progress: {old.operation_kind}")
    if old is not None and old.exists:
        raise Refused(f"volume {volume.id} already exists: deregister it first, or choose another ID")


def _was_mine(refused: TransactionRefused, index: int) -> bool:
    """Whether the refusal shows our own write, whose answer was lost."""
    old = volume_store.volume_of(refused.old.get("volume"))
    return old is not None and old.modify_index == index


def _existing(deps: Deps, namespace: str, volume_id: str) -> Volume:
    found = deps.volumes.get(namespace, volume_id)
    if found is None or not found.exists:
        raise NotFound(f"volume not found: {volume_id}", status=500)
    return found


def _namespaces(deps: Deps, namespace: str) -> Iterator[str]:
    if namespace != "*":
        yield namespace
        return
    names = {n.name for n in deps.namespaces.all()} | {namespace_store.DEFAULT}
    yield from sorted(names)


def _no_namespace(volume_id: str, name: str) -> VolumesError:
    return Refused(f"volume {volume_id} is in nonexistent namespace {name}")


def _storage_name(name: str, operation_id: str) -> str:
    """What CreateVolume is told: readable, unique per operation, within the limits of the plainest providers (63
    characters).
    """
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower())[:NAME_LIMIT].strip("-")
    return f"{readable}-{operation_id}" if readable else f"volume-{operation_id}"


def _text(sealed: bytes) -> str:
    """Ciphertext where JSON wants text."""
    return base64.b64encode(sealed).decode()
