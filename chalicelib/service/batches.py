"""Requests about several volumes at once: each is started, one after another, and then all are waited for together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from chalicelib.domain.operation import Operation
from chalicelib.domain.plugin import Plugin
from chalicelib.domain.volume import Volume
from chalicelib.errors import Refused, VolumesError, joined
from chalicelib.operations import starting
from chalicelib.operations.starting import Started
from chalicelib.service import waiting
from chalicelib.service.deps import Budget, Deps


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """One volume of a request, as the client defined it."""

    volume: Volume
    secrets: Mapping[str, str]
    only_new: bool = False
    """Whether the volume must not exist yet (If-None-Match, RFC 9110)."""


@dataclass(frozen=True, slots=True)
class VolumeResult:
    """What became of one volume of a request. With a plugin, the volume is shown with its counts."""

    index: int
    volume: Volume
    plugin: Plugin | None = None


@dataclass(frozen=True, slots=True)
class PendingVolume:
    """A volume of a request whose operation is under way, and what is made of the operation's end."""

    started: Started
    result: Callable[[Operation], VolumeResult]
    error: Callable[[str], Refused] = Refused


def finish(
    deps: Deps, starts: Sequence[Callable[[], VolumeResult | PendingVolume]], budget: Budget
) -> tuple[list[VolumeResult], list[VolumesError], Sequence[Operation]]:
    """Start each volume's work and wait for all of it.

    Returns results, errors, and every operation as it stands. Each volume stands alone: one that is refused does not
    keep the others from being done.
    """
    results: dict[int, VolumeResult] = {}
    errors: dict[int, VolumesError] = {}
    pending: dict[int, PendingVolume] = {}
    for position, start in enumerate(starts):
        try:
            outcome = start()
        except VolumesError as exc:
            errors[position] = exc
            continue
        if isinstance(outcome, PendingVolume):
            starting.send_new(deps, outcome.started)
            pending[position] = outcome
        else:
            results[position] = outcome
    operations = waiting.wait(deps, [one.started.operation for one in pending.values()], budget)
    for position, one in pending.items():
        operation = operations[one.started.operation.id]
        if operation.result:
            results[position] = one.result(operation)
        elif operation.answered:
            errors[position] = one.error(operation.error or operation.last_error)
    return [results[p] for p in sorted(results)], [errors[p] for p in sorted(errors)], list(operations.values())


def refuse(errors: Sequence[VolumesError], operations: Sequence[Operation], *, of: int) -> None:
    """Raise the errors of a request about `of` volumes as one, or OperationPending when operations still run.

    Errors come first, since they are final.
    """
    if len(errors) == 1 and of == 1 and not isinstance(errors[0], Refused):
        raise errors[0]
    if errors:
        statuses = {error.status for error in errors}
        raise Refused(joined([e.text for e in errors]), status=statuses.pop() if len(statuses) == 1 else None)
    pending = waiting.unanswered(operations)
    if pending:
        raise pending
