"""Create, register and update volumes by their definitions.

All definitions of a request are checked before anything is done. After that, each volume stands alone: creates run side
by side, and if one fails, the others exist and are registered.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from chalicelib.domain.merge import merge
from chalicelib.domain.operation import Operation
from chalicelib.domain.plugin import Plugin
from chalicelib.domain.volume import DEFINITION_LIMIT, Volume, limits, mode_problem, problems
from chalicelib.errors import Refused, RequestError, VolumesError, joined
from chalicelib.operations import create_volume, starting
from chalicelib.operations.starting import Started
from chalicelib.service import batches, updates
from chalicelib.service.batches import PendingVolume, VolumeRequest, VolumeResult
from chalicelib.service.deps import Budget, Deps
from chalicelib.service.updates import UpdateRefused
from chalicelib.store import namespaces as namespace_store
from chalicelib.store import ownership
from chalicelib.store import volumes as volume_store
from chalicelib.store.commit import Change, RefusedWrites
from chalicelib.store.index import MEMBERS, volume_scope

ASKED_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class WriteResult:
    """The index of a write, and the volumes that the answer shows. With a plugin, they are shown with its counts."""

    index: int
    volumes: tuple[tuple[Volume, Plugin | None], ...] = ()


def create(deps: Deps, wanted: Sequence[VolumeRequest], budget: Budget) -> WriteResult:
    """Create the volumes at their providers, side by side. One that exists is updated.

    Raises Refused with all errors in one text, RequestError, and OperationPending.
    """
    ownership.refuse_while_upgrading(deps)
    checked = _checked(deps, wanted)
    if len({(w.volume.namespace, w.volume.id) for w in checked}) < len(checked):
        raise RequestError("validation: one volume ID is in the request twice")
    _refuse_namespaces(deps, checked, join=True)
    for item in checked:
        _refuse_plugin(deps.plugins.get(item.volume.plugin_id), item.volume.plugin_id)
    for item in checked:
        if item.only_new:
            updates.refuse_known(deps.volumes.get(item.volume.namespace, item.volume.id), item)
    results, errors, operations = batches.finish(deps, [partial(_start_create, deps, item) for item in checked], budget)
    batches.refuse(errors, operations, of=len(checked))
    return _written(results)


def _start_create(deps: Deps, item: VolumeRequest) -> VolumeResult | PendingVolume:
    _refuse_create(item)
    operation, writes = create_volume.start(deps, item.volume, item.secrets)
    writes += namespace_store.must_exist(item.volume.namespace)

    def build(refused: RefusedWrites) -> Change[Started | Volume]:
        if refused:
            return Change(_already(deps, item, refused, operation))
        return Change(Started(operation, new=True), lambda _: writes, visible=False)

    def result(operation: Operation) -> VolumeResult:
        return VolumeResult(int(operation.result["index"]), create_volume.result(item.volume, operation))

    _, started = deps.committer.commit(build=build, what=f"volume {item.volume.id}")
    if isinstance(started, Volume):
        return updates.update(deps, started, item)
    return PendingVolume(started, result)


def register(deps: Deps, wanted: Sequence[VolumeRequest], budget: Budget) -> WriteResult:
    """Register volumes that exist at their providers. One that is registered is updated.

    All are checked before the first is written. Raises Refused, RequestError, and OperationPending.
    """
    ownership.refuse_while_upgrading(deps)
    # Of one ID that is there twice, the last counts, as recorded.
    named = _checked(deps, wanted)
    checked = list({(w.volume.namespace, w.volume.id): w for w in named}.values())
    _refuse_namespaces(deps, checked, join=False)
    planned = [(item, _known(deps, item)) for item in checked]
    since = deps.clock.now()
    _validate_at_providers(deps, [replace(w, volume=_merged_for_register(k, w)) for w, k in planned], budget)
    starts = [partial(_start_register, deps, w, k, since=since) for w, k in planned]
    results, errors, operations = batches.finish(deps, starts, budget)
    if errors:
        raise errors[0] if len(errors) == 1 else Refused(joined([e.text for e in errors]))
    batches.refuse((), operations, of=len(checked))
    found = {(w.volume.namespace, w.volume.id): r for w, r in zip(checked, results, strict=True)}
    shown = [found[w.volume.namespace, w.volume.id] for w in wanted]
    return _written(
        [replace(r, volume=_placed(w.volume)) if r.plugin is None else r for r, w in zip(shown, named, strict=True)]
    )


def _start_register(
    deps: Deps, item: VolumeRequest, known: Volume | None, *, since: float
) -> VolumeResult | PendingVolume:
    try:
        outcome = _register(deps, item, since=since) if known is None else updates.update(deps, known, item)
    except UpdateRefused as exc:
        raise Refused("unable to update volume: " + exc.text) from exc
    if isinstance(outcome, VolumeResult):
        return outcome
    return replace(outcome, error=lambda text: Refused("unable to update volume: " + outcome.error(text).text))


def _known(deps: Deps, item: VolumeRequest) -> Volume | None:
    """Return the volume of that ID, or None. Raises when it exists and may not be updated."""
    found = deps.volumes.get(item.volume.namespace, item.volume.id)
    if found is None or not found.exists:
        return None
    updates.refuse_known(found, item)
    updates.refuse_held(found)
    return found


def _written(results: Sequence[VolumeResult]) -> WriteResult:
    return WriteResult(max(r.index for r in results), tuple((r.volume, r.plugin) for r in results))


def _checked(deps: Deps, wanted: Sequence[VolumeRequest]) -> list[VolumeRequest]:
    """Return the requests with their plugins' names and versions. Raises Refused when a definition is wrong."""
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


def _with_plugins(deps: Deps, wanted: Sequence[VolumeRequest]) -> list[VolumeRequest]:
    plugins = deps.plugins.get_many(w.volume.plugin_id for w in wanted)
    out = []
    for item in wanted:
        plugin = plugins.get(item.volume.plugin_id)
        if plugin is None:
            raise Refused(f"no CSI plugin named: {item.volume.plugin_id} could be found")
        definition = replace(item.volume.definition, provider=plugin.provider, provider_version=plugin.provider_version)
        out.append(replace(item, volume=replace(item.volume, definition=definition)))
    return out


def _refuse_namespaces(deps: Deps, wanted: Sequence[VolumeRequest], *, join: bool) -> None:
    """Raise Refused for unknown namespaces, before anything is made: found later, storage would be left behind."""
    missing = {name for name in {w.volume.namespace for w in wanted} if not deps.namespaces.exists(name)}
    texts = [_no_namespace(w.volume).text for w in wanted if w.volume.namespace in missing]
    if texts:
        raise Refused(joined(texts) if join else texts[0])


def _refuse_plugin(plugin: Plugin | None, plugin_id: str) -> None:
    """Raise Refused when the plugin cannot create volumes now."""
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


def _refuse_create(item: VolumeRequest) -> None:
    """Raise Refused for what Nomad refuses on the way to the plugin, one volume at a time."""
    asked = item.volume.definition
    problem = "missing Name" if not asked.name else mode_problem(asked.capabilities)
    if not problem and asked.capacity_max and asked.capacity_max < asked.capacity_min:
        problem = "LimitBytes cannot be less than RequiredBytes"
    if problem:
        raise Refused(f"controller create volume: CSI.ControllerCreateVolume: {problem}")


def _already(deps: Deps, item: VolumeRequest, refused: RefusedWrites, mine: Operation) -> Started | Volume:
    """Return what the refused reservation leads to.

    If the write was our own, or the request is a repeat, that is the operation. If the volume exists, it is the volume,
    to be updated. Raises Refused without the namespace, and OperationInProgress.
    """
    volume = item.volume
    if "namespace" in refused:
        raise _no_namespace(volume)
    old = volume_store.volume_of(refused.get("volume"))
    if old is None or old.operation_id == mine.id:
        return Started(mine, new=True)
    updates.refuse_known(old, item)
    if updates.is_held_by_another(old):
        return Started(starting.join(deps, old, mine.digest, secrets=mine.sealed_secrets))
    return old  # An update of it joins the expansion that holds it, if that is the same.


def _merged_for_register(known: Volume | None, item: VolumeRequest) -> Volume:
    """Return the volume that the plugin is asked to validate: with the definition that it will have."""
    if known is None:
        return _placed(item.volume)
    try:
        return merge(known, item.volume).volume
    except Refused as exc:
        raise Refused("unable to update volume: " + exc.text) from exc


def _validate_at_providers(deps: Deps, wanted: Sequence[VolumeRequest], budget: Budget) -> None:
    """Ask each plugin that has a controller whether the volume exists and can do what is wanted, several at once.

    Raises what the first of them, in order, is refused with.
    """
    seconds = budget.left(deps.clock.monotonic())
    validations = [validation for item in wanted if (validation := _validation(deps, item, seconds)) is not None]
    if not validations:
        return
    with ThreadPoolExecutor(min(len(validations), ASKED_AT_ONCE)) as pool:
        asked = [pool.submit(validation) for validation in validations]
    for answer in asked:
        answer.result()


def _validation(deps: Deps, item: VolumeRequest, seconds: float) -> Callable[[], None] | None:
    """Return the query that asks the item's plugin, or None if it has no controller.

    Raises Refused when the answer is no without asking.
    """
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
    sealed = deps.seal(item.secrets, volume.namespace, volume.id)
    return partial(
        deps.plugin_queries.validate_volume,
        replace(volume, definition=asked),
        sealed_secrets=sealed or volume.sealed_secrets,
        seconds=seconds,
    )


def _placed(volume: Volume) -> Volume:
    """Return the volume with topologies: registered without some, it is where it was requested to be."""
    definition = volume.definition
    request = definition.topology_request
    if definition.topologies is None and request is not None and request.required:
        return replace(volume, definition=replace(definition, topologies=request.required))
    return volume


def _register(deps: Deps, item: VolumeRequest, *, since: float) -> VolumeResult | PendingVolume:
    """Register a volume that its provider validated by a call that began at `since`."""
    volume, scope = _placed(item.volume), volume_scope(item.volume.namespace)
    sealed = deps.seal(item.secrets, volume.namespace, volume.id)

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
        owner, joining = ownership.join(deps, stored, since=since)
        checks = namespace_store.must_exist(volume.namespace)
        return Change(None, lambda index: [*volume_store.register(owner, index), *joining, *checks])

    index, known = deps.committer.commit(scope, MEMBERS, build=build, what=f"volume {volume.id}")
    return VolumeResult(index, volume) if known is None else updates.update(deps, known, item)


def _register_refused(volume: Volume, refused: RefusedWrites) -> Volume | None:
    """Return the volume if another request registered it meanwhile, or None to try again."""
    if "namespace" in refused:
        raise _no_namespace(volume)
    old = volume_store.volume_of(refused.get("volume"))
    if old is not None and old.operation_id:
        raise starting.in_progress(old)
    return old if old is not None and old.exists else None


def _no_namespace(volume: Volume) -> VolumesError:
    return Refused(f"volume {volume.id} is in nonexistent namespace {volume.namespace}")
