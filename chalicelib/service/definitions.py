"""Creating, registering and updating volumes by their definitions.

All definitions of a request are checked before anything is done. After that each volume stands alone: creates run
side by side, and if one fails, the others exist and are registered.
"""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from chalicelib.domain.merge import merge
from chalicelib.domain.operation import Kind, Operation
from chalicelib.domain.operation import updates as is_update
from chalicelib.domain.plugin import Plugin
from chalicelib.domain.secrets import encryption_context
from chalicelib.domain.volume import DEFINITION_LIMIT, Volume, limits, mode_problem, problems
from chalicelib.errors import OperationInProgress, Refused, RequestError, VolumesError, joined
from chalicelib.service import updates, waiting
from chalicelib.service.deps import Budget, Deps
from chalicelib.service.updates import Done, Running, UpdateRefused, Wanted
from chalicelib.service.waiting import Begun
from chalicelib.store import namespaces as namespace_store
from chalicelib.store import operations as operation_store
from chalicelib.store import volumes as volume_store
from chalicelib.store.commit import Change, RefusedWrites
from chalicelib.store.index import MEMBERS, volume_scope

NAME_LIMIT: Final = 40
ASKED_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Written:
    """The index of a write, and the volumes to show for it: with a plugin, they are shown with its counts."""

    index: int
    volumes: tuple[tuple[Volume, Plugin | None], ...] = ()


def create(deps: Deps, wanted: Sequence[Wanted], budget: Budget) -> Written:
    """Make the volumes at their providers, side by side; one that exists is updated. Refused has all errors joined."""
    checked = _checked(deps, wanted)
    if len({(w.volume.namespace, w.volume.id) for w in checked}) < len(checked):
        raise RequestError("validation: one volume ID is in the request twice")
    _refuse_namespaces(deps, checked, join=True)
    for item in checked:
        _refuse_plugin(deps.plugins.get(item.volume.plugin_id), item.volume.plugin_id)
    for item in checked:
        if item.only_new:
            updates.refuse_known(deps.volumes.get(item.volume.namespace, item.volume.id), item)
    done, errors, operations = updates.finish(deps, [partial(_begin_create, deps, item) for item in checked], budget)
    updates.refuse(errors, operations, of=len(checked))
    return _written(done)


def _begin_create(deps: Deps, item: Wanted) -> Done | Running:
    _refuse_create(item)
    operation = _create_operation(deps, item)

    def build(refused: RefusedWrites) -> Change[Begun | Volume]:
        if refused:
            return Change(_already(deps, item, refused, operation))
        writes = [
            volume_store.reserve(item.volume, operation_id=operation.id, kind=operation.kind.value),
            operation_store.open_operation(operation, now=operation.create_time),
            *namespace_store.must_exist(item.volume.namespace),
        ]
        return Change(Begun(operation, new=True), lambda _: writes, visible=False)

    def done(operation: Operation) -> Done:
        made = volume_store.decode_made(operation.result)
        return Done(int(operation.result["index"]), replace(item.volume, definition=item.volume.definition.made(made)))

    _, begun = deps.committer.commit(build=build, what=f"volume {item.volume.id}")
    if isinstance(begun, Volume):
        return updates.begin(deps, begun, item)
    return Running(begun, done)


def register(deps: Deps, wanted: Sequence[Wanted], budget: Budget) -> Written:
    """Make volumes known that exist at their providers; one that is known is updated. All are checked before the
    first is written.
    """
    # Of one ID that is there twice, the last counts, as recorded.
    named = _checked(deps, wanted)
    checked = list({(w.volume.namespace, w.volume.id): w for w in named}.values())
    _refuse_namespaces(deps, checked, join=False)
    planned = [(item, _known(deps, item)) for item in checked]
    _validate_at_providers(deps, [replace(w, volume=_merged_for_register(k, w)) for w, k in planned], budget)
    done, errors, operations = updates.finish(deps, [partial(_begin_register, deps, w, k) for w, k in planned], budget)
    if errors:
        raise errors[0] if len(errors) == 1 else Refused(joined([e.text for e in errors]))
    updates.refuse((), operations, of=len(checked))
    found = {(w.volume.namespace, w.volume.id): d for w, d in zip(checked, done, strict=True)}
    shown = [found[w.volume.namespace, w.volume.id] for w in wanted]
    return _written(
        [replace(d, volume=_placed(w.volume)) if d.plugin is None else d for d, w in zip(shown, named, strict=True)]
    )


def _begin_register(deps: Deps, item: Wanted, known: Volume | None) -> Done | Running:
    try:
        begun = _register(deps, item) if known is None else updates.begin(deps, known, item)
    except UpdateRefused as exc:
        raise Refused("unable to update volume: " + exc.text) from exc
    if isinstance(begun, Done):
        return begun
    return replace(begun, failed=lambda text: Refused("unable to update volume: " + begun.failed(text).text))


def _known(deps: Deps, item: Wanted) -> Volume | None:
    """The volume of that ID, if there is one that may be updated."""
    found = deps.volumes.get(item.volume.namespace, item.volume.id)
    if found is None or not found.exists:
        return None
    updates.refuse_known(found, item)
    if found.operation_id and not is_update(found.operation_kind):
        raise OperationInProgress(f"volume {found.id} has an operation in progress: {found.operation_kind}")
    return found


def _written(done: Sequence[Done]) -> Written:
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
        if len(volume_store.encode(item.volume.definition).encode()) > DEFINITION_LIMIT:
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
        definition = replace(item.volume.definition, provider=plugin.provider, provider_version=plugin.provider_version)
        out.append(replace(item, volume=replace(item.volume, definition=definition)))
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
    if plugin.awaits_controller:
        raise Refused(f"no healthy controllers for CSI plugin: {plugin_id}")
    if not plugin.controller_required:
        raise Refused("plugin has no controller")
    if not plugin.can("CREATE_DELETE_VOLUME"):
        raise Refused("plugin does not support creating volumes")
    if not plugin.controllers_healthy:
        raise Refused(f"no healthy controllers for CSI plugin: {plugin_id}")


def _refuse_create(item: Wanted) -> None:
    """What would be refused on the way to the plugin, one volume at a time."""
    asked = item.volume.definition
    problem = "missing Name" if not asked.name else mode_problem(asked.capabilities)
    if not problem and asked.capacity_max and asked.capacity_max < asked.capacity_min:
        problem = "LimitBytes cannot be less than RequiredBytes"
    if problem:
        raise Refused(f"controller create volume: CSI.ControllerCreateVolume: {problem}")


def _create_operation(deps: Deps, item: Wanted) -> Operation:
    volume, now, operation_id = item.volume, deps.clock.now(), deps.clock.new_id()
    asked = (volume.namespace, volume.id, volume.plugin_id, volume_store.as_json(volume.definition))
    return Operation(
        id=operation_id,
        kind=Kind.CREATE_VOLUME,
        namespace=volume.namespace,
        volume_id=volume.id,
        plugin_id=volume.plugin_id,
        digest=waiting.digest(Kind.CREATE_VOLUME.value, *asked),
        step="create",
        storage_name=_storage_name(volume.definition.name, operation_id),
        definition=volume_store.encode(volume.definition),
        sealed_secrets=deps.sealer.seal_secrets(item.secrets, encryption_context(volume.namespace, volume.id)),
        create_time=now,
        update_time=now,
    )


def _already(deps: Deps, item: Wanted, refused: RefusedWrites, mine: Operation) -> Begun | Volume:
    """Why the reservation was refused: no namespace, my own write, the same request, another one, or the volume
    exists.
    """
    volume = item.volume
    if "namespace" in refused:
        raise _no_namespace(volume)
    old = volume_store.volume_of(refused.get("volume"))
    if old is None or old.operation_id == mine.id:
        return Begun(mine, new=True)
    updates.refuse_known(old, item)
    if old.operation_id and not is_update(old.operation_kind):
        return Begun(
            waiting.join(
                deps, volume.id, old.operation_id, mine.digest, old.operation_kind, secrets=mine.sealed_secrets
            )
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


def _validate_at_providers(deps: Deps, wanted: Sequence[Wanted], budget: Budget) -> None:
    """A plugin with a controller is asked whether the volume exists and can do what is wanted; about several at once.

    Raises what the first of them, in order, is refused with.
    """
    seconds = budget.left(deps.clock.monotonic())
    questions = [question for item in wanted if (question := _question(deps, item, seconds)) is not None]
    if not questions:
        return
    with ThreadPoolExecutor(min(len(questions), ASKED_AT_ONCE)) as pool:
        asked = [pool.submit(question) for question in questions]
    for answer in asked:
        answer.result()


def _question(deps: Deps, item: Wanted, seconds: float) -> Callable[[], None] | None:
    """What asks the item's plugin; None if it cannot be asked. Refused when it need not be asked to say no."""
    plugin = deps.plugins.get(item.volume.plugin_id)
    if plugin is None or not plugin.controller_required:
        return None
    if not plugin.controllers_healthy:
        raise Refused(f"no healthy controllers for CSI plugin: {plugin.id}")
    problem = mode_problem(item.volume.definition.capabilities)
    if problem:
        raise Refused(f"controller validate volume: CSI.ControllerValidateVolume: {problem}")
    # A volume without an external ID has its own ID at the provider.
    volume = item.volume
    asked = replace(volume.definition, external_id=volume.definition.external_id or volume.id)
    sealed = deps.sealer.seal_secrets(item.secrets, encryption_context(volume.namespace, volume.id))
    return partial(
        deps.plugin_queries.validate_volume,
        replace(volume, definition=asked),
        sealed_secrets=sealed or volume.sealed_secrets,
        seconds=seconds,
    )


def _placed(volume: Volume) -> Volume:
    """A volume that is registered without topologies is where it was requested to be."""
    definition = volume.definition
    request = definition.topology_request
    if definition.topologies is None and request is not None and request.required:
        return replace(volume, definition=replace(definition, topologies=request.required))
    return volume


def _register(deps: Deps, item: Wanted) -> Done | Running:
    volume, scope = _placed(item.volume), volume_scope(item.volume.namespace)
    sealed = deps.sealer.seal_secrets(item.secrets, encryption_context(volume.namespace, volume.id))

    def build(refused: RefusedWrites) -> Change[Volume | None]:
        found = _register_refused(volume, refused)
        if found is not None:
            return Change(found)
        now_ns = deps.clock.now_ns()
        stored = replace(
            volume,
            sealed_secrets=sealed,
            create_time=volume.create_time or now_ns,
            modify_time=volume.modify_time or now_ns,
        )
        return Change(
            None,
            lambda index: [*volume_store.register(stored, index), *namespace_store.must_exist(volume.namespace)],
        )

    index, known = deps.committer.commit(scope, MEMBERS, build=build, what=f"volume {volume.id}")
    return Done(index, volume) if known is None else updates.begin(deps, known, item)


def _register_refused(volume: Volume, refused: RefusedWrites) -> Volume | None:
    """The volume, if somebody made it known meanwhile; None to try again."""
    if "namespace" in refused:
        raise _no_namespace(volume)
    old = volume_store.volume_of(refused.get("volume"))
    if old is not None and old.operation_id:
        raise OperationInProgress(f"volume {volume.id} has an operation in progress: {old.operation_kind}")
    return old if old is not None and old.exists else None


def _no_namespace(volume: Volume) -> VolumesError:
    return Refused(f"volume {volume.id} is in nonexistent namespace {volume.namespace}")


def _storage_name(name: str, operation_id: str) -> str:
    """What CreateVolume is told: readable, unique, within the limits of the plainest providers (63 characters)."""
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower())[:NAME_LIMIT].strip("-")
    return f"{readable}-{operation_id}" if readable else f"volume-{operation_id}"
