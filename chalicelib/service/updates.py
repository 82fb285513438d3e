"""Updates of volumes that are known, and what is done for several volumes at once: started one after another, waited
for together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from chalicelib.domain.merge import VolumeUpdate, merge
from chalicelib.domain.operation import UPDATE, Kind, Operation, updates
from chalicelib.domain.plugin import Plugin
from chalicelib.domain.secrets import encryption_context
from chalicelib.domain.volume import MountOptions, Volume, VolumeState
from chalicelib.errors import OperationInProgress, Refused, RequestError, VolumesError, joined
from chalicelib.service import waiting
from chalicelib.service.deps import Budget, Deps
from chalicelib.service.waiting import Begun
from chalicelib.store import operations as operation_store
from chalicelib.store import volumes as volume_store
from chalicelib.store.commit import Change, RefusedWrites
from chalicelib.store.index import volume_scope


@dataclass(frozen=True, slots=True)
class Wanted:
    """A volume as a request gave it, with the secrets beside it, and whether it may already exist."""

    volume: Volume
    secrets: Mapping[str, str]
    only_new: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one volume of a request; with a plugin, it is shown with its counts."""

    index: int
    volume: Volume
    plugin: Plugin | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """An operation on one volume of a request, and what is made of its result."""

    begun: Begun
    done: Callable[[Operation], Done]
    failed: Callable[[str], Refused] = Refused


class UpdateRefused(Refused):
    """An update that the rules or the provider refuse; create and register say so in different words."""


def finish(
    deps: Deps, begun: Sequence[Callable[[], Done | Running]], budget: Budget
) -> tuple[list[Done], list[VolumesError], Sequence[Operation]]:
    """Begin each, then wait for what takes long, side by side: what is done, what failed, and what still runs.

    Each stands alone: one that is refused does not keep the others from being done.
    """
    done: dict[int, Done] = {}
    errors: dict[int, VolumesError] = {}
    running: dict[int, Running] = {}
    for position, begin in enumerate(begun):
        try:
            found = begin()
        except VolumesError as exc:
            errors[position] = exc
            continue
        if isinstance(found, Running):
            waiting.sent(deps, found.begun)
            running[position] = found
        else:
            done[position] = found
    seen = waiting.wait(deps, [one.begun.operation for one in running.values()], budget)
    for position, one in running.items():
        operation = seen[one.begun.operation.id]
        if operation.result:
            done[position] = one.done(operation)
        elif operation.answered:
            errors[position] = one.failed(operation.error or operation.last_error)
    return [done[p] for p in sorted(done)], [errors[p] for p in sorted(errors)], list(seen.values())


def refuse(errors: Sequence[VolumesError], operations: Sequence[Operation], *, of: int) -> None:
    """Raise what failed of so many, all in one text; errors come first, since they are final, then what still runs."""
    if len(errors) == 1 and of == 1 and not isinstance(errors[0], Refused):
        raise errors[0]
    if errors:
        statuses = {error.status for error in errors}
        raise Refused(joined([e.text for e in errors]), status=statuses.pop() if len(statuses) == 1 else None)
    pending = waiting.unanswered(operations)
    if pending:
        raise pending


def refuse_known(known: Volume | None, item: Wanted) -> None:
    """Raise RequestError 412 when only a new volume is wanted."""
    if known is not None and known.exists and item.only_new:
        raise RequestError(f"volume {known.id} exists: If-None-Match asks for a new one", status=412)


def begin(deps: Deps, read: Volume, item: Wanted) -> Done | Running:
    """Update a volume that is known; one that the new definition asks more of is expanded through its plugin."""

    def build(refused: RefusedWrites) -> Change[Done | Running]:
        current = deps.volumes.get(read.namespace, read.id) if refused else read
        if current is None or not current.exists:
            raise Refused(f"volume not found: {read.id}")
        refuse_known(current, item)
        if current.operation_id and not updates(current.operation_kind):
            raise OperationInProgress(f"volume {current.id} has an operation in progress: {current.operation_kind}")
        try:
            merged = merge(current, item.volume)
        except Refused as exc:
            raise UpdateRefused(exc.text) from exc
        plugin = deps.plugins.get(current.plugin_id)
        sealed = deps.sealer.seal_secrets(item.secrets, encryption_context(current.namespace, current.id))
        sealed = sealed or current.sealed_secrets
        if merged.expansion is not None or current.operation_id:
            return _expand(deps, current, merged, plugin, sealed)
        stored = replace(merged.volume, sealed_secrets=sealed, modify_time=deps.clock.now_ns())
        return Change(
            Done(0, merged.volume, plugin),
            lambda index: [volume_store.replace_definition(stored, index, read=current)],
        )

    index, begun = deps.committer.commit(volume_scope(read.namespace), build=build, what=f"volume {read.id}")
    return replace(begun, index=index) if isinstance(begun, Done) else begun


def _expand(
    deps: Deps, read: Volume, merged: VolumeUpdate, plugin: Plugin | None, sealed: bytes
) -> Change[Done | Running]:
    wanted, now, operation_id = merged.volume, deps.clock.now(), deps.clock.new_id()
    before, after = read.definition, wanted.definition
    if merged.expansion is None:
        raise OperationInProgress(f"volume {read.id} has an operation in progress: {read.operation_kind}")
    if plugin is not None and plugin.awaits_controller:
        raise UpdateRefused(f"no healthy controllers for CSI plugin: {plugin.id}")
    if plugin is None or not plugin.can("EXPAND_VOLUME"):
        raise UpdateRefused("expand is not implemented by this controller plugin")
    operation = Operation(
        id=operation_id,
        kind=Kind.EXPAND_VOLUME,
        namespace=read.namespace,
        volume_id=read.id,
        plugin_id=read.plugin_id,
        digest=waiting.digest(Kind.EXPAND_VOLUME.value, read.namespace, read.id, volume_store.as_json(after)),
        step="expand",
        external_id=before.external_id,
        definition=volume_store.encode(after),
        params={
            "required": merged.expansion.required,
            "limit": merged.expansion.limit,
            "volume_secrets": waiting.text(sealed),
        },
        create_time=now,
        update_time=now,
    )

    def done(operation: Operation) -> Done:
        grown = replace(wanted, definition=replace(after, capacity=int(operation.result["capacity"])))
        return Done(int(operation.result["index"]), grown, plugin)

    def failed(text: str) -> UpdateRefused:
        return UpdateRefused(f"unable to expand volume: {text}")

    if read.operation_id:
        joined = waiting.join(deps, read.id, read.operation_id, operation.digest, read.operation_kind)
        return Change(Running(Begun(joined), done, failed))
    # A claim is judged by the definition as it stands: one that comes meanwhile would keep modes that are gone then.
    options_stay = (before.mount_options or MountOptions()) == (after.mount_options or MountOptions())
    modes_stay = before.capabilities == after.capabilities and options_stay
    kind = Kind.EXPAND_VOLUME.value if modes_stay else UPDATE
    mark = volume_store.mark(read, operation_id=operation_id, kind=kind, state=VolumeState.READY, unclaimed=False)
    record = operation_store.open_operation(operation, now=now)
    return Change(Running(Begun(operation, new=True), done, failed), lambda _: [mark, record], visible=False)
