"""Running operations: acquire, make one call, write its result, under the rules of docs/operations.md.

Whoever holds the lease is alone, whatever the queue delivers and however often. Nothing here retries in place: a step
that must be repeated writes when, and ends; the waiting request or the sweeper sends it again. A worker that frees a
turn goes on with the operation that has waited for it the longest.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from chalicelib.domain import outcome
from chalicelib.domain.deadlines import FUNCTION_TIMEOUT, GRACE, call_seconds, lease_seconds
from chalicelib.domain.operation import TRY_LIMIT, Kind, Operation, Status
from chalicelib.domain.plugin import Plugin
from chalicelib.errors import LeaseLost, PluginInDoubt, PluginRejected, PluginUnreachable, StoreError
from chalicelib.operations import (
    create_snapshot,
    create_volume,
    delete_snapshot,
    delete_volume,
    expand_volume,
    publish_volume,
    release,
    unpublish_volume,
)
from chalicelib.operations.context import ClaimLost, Context, Definition, Step
from chalicelib.store.operations import Reason
from chalicelib.store.turns import Turn, of_storage

KINDS: Final[Mapping[Kind, Definition]] = {
    Kind.CREATE_VOLUME: create_volume.DEFINITION,
    Kind.DELETE_VOLUME: delete_volume.DEFINITION,
    Kind.EXPAND_VOLUME: expand_volume.DEFINITION,
    Kind.CREATE_SNAPSHOT: create_snapshot.DEFINITION,
    Kind.DELETE_SNAPSHOT: delete_snapshot.DEFINITION,
    Kind.PUBLISH_VOLUME: publish_volume.DEFINITION,
    Kind.UNPUBLISH_VOLUME: unpublish_volume.DEFINITION,
}


def work(ctx: Context, operation_id: str, *, seconds: float = FUNCTION_TIMEOUT) -> Iterator[Operation]:
    """Work on one operation as far as it goes now, and then on those that have waited for its turn; yields the records
    as they were found.

    Safe to call at any time, any number of times, from anywhere: an operation that is closed, not due, or held by a
    living lease is left alone. No call is begun whose lease would outlive the caller, who may run for `seconds`.
    """
    shift = _Shift(ctx, ctx.clock.monotonic() + seconds, [operation_id])
    while shift.following:
        found = _run(shift, shift.following.pop(0))
        if found is not None:
            yield found


def run(ctx: Context, operation_id: str) -> Operation | None:
    """`work` to its end; returns the record of this operation as it was found, None if there is none."""
    every = list(work(ctx, operation_id))
    return every[0] if every and every[0].id == operation_id else None


@dataclass
class _Shift:
    """What one worker does in one invocation."""

    ctx: Context
    end: float
    """On the monotonic clock."""
    following: list[str] = field(default_factory=list)

    def has_time_for(self, seconds: float) -> bool:
        return self.ctx.clock.monotonic() + seconds <= self.end


def _run(shift: _Shift, operation_id: str) -> Operation | None:
    ctx = shift.ctx
    found = ctx.operations.get(operation_id)
    now = ctx.clock.now()
    if found is None or not found.open or found.status is Status.IN_DOUBT or found.not_before > now:
        return found
    if found.status is Status.RUNNING and found.lease_until > now:
        return found
    try:
        if found.tries >= TRY_LIMIT:
            ctx.operations.exhaust(
                found, now=now, last_error=found.last_error or "every worker died before it could write a result"
            )
            return found
        operation: Operation | None = found
        while operation is not None:
            operation = _attempt(shift, operation)
    except LeaseLost:
        # Another worker owns it: whatever this one learnt, that one will learn too. Stop, undo nothing.
        return found
    return found


def _attempt(shift: _Shift, operation: Operation) -> Operation | None:
    ctx = shift.ctx
    step = KINDS[operation.kind].steps[operation.step]
    plugin = ctx.plugins.get(operation.plugin_id, consistent=False)
    seconds = call_seconds(step.rpc, plugin.deadlines if plugin else {})
    grace = plugin.grace if plugin and plugin.grace else GRACE
    # Everything counts from here: what is read and opened before the call is made is taken off its deadline.
    now, until = ctx.clock.now(), ctx.clock.monotonic() + seconds
    if not shift.has_time_for(lease_seconds(seconds)):
        ctx.operations.reschedule(operation, Reason.YIELD, at=now, now=now)
        return None
    held_until = now + max(lease_seconds(seconds), seconds + grace)
    taken = [Turn(subject, operation.id, operation.attempt + 1, held_until) for subject in subjects(operation, plugin)]
    for position, turn in enumerate(taken):
        busy_until = ctx.turns.take(turn, now=now)
        if busy_until is not None:
            _leave(shift, taken[:position])
            _wait_for(shift, turn, operation, busy_until)
            return None
    acquired = ctx.operations.acquire(operation, now=now, call=seconds, lease=lease_seconds(seconds), grace=grace)
    try:
        following, in_flight = _call(ctx, step, acquired, until)
    except ClaimLost:
        release.over(ctx, acquired)
        # No call was made, or it was answered: only older ones may still land.
        following, in_flight = None, acquired.in_flight(ctx.clock.now()) > 1
    _leave(shift, taken, until=acquired.calls_until if in_flight else 0.0)
    return following


def subjects(operation: Operation, plugin: Plugin | None) -> list[str]:
    """What the operation's calls must have for themselves, the widest last.

    A volume that is being created has no name that another operation could know; afterwards the provider sees one call
    to it at a time (CSI spec, Concurrency). A plugin may ask for more.
    """
    out = []
    if operation.external_id and operation.kind is not Kind.CREATE_VOLUME:
        out.append(of_storage(operation.plugin_id, operation.external_id))
    if plugin is not None and plugin.serialize == "node" and "node_id" in operation.params:
        out.append(f"node\n{operation.plugin_id}\n{operation.params['node_id']}")
    if plugin is not None and plugin.serialize == "plugin":
        out.append(f"plugin\n{operation.plugin_id}")
    return out


def _wait_for(shift: _Shift, turn: Turn, operation: Operation, busy_until: float) -> None:
    """Due when the turn must be over, or when its holder calls; who held it may have left in this very moment."""
    ctx, now = shift.ctx, shift.ctx.clock.now()
    if not ctx.operations.reschedule(operation, Reason.YIELD, at=busy_until, now=now):
        return
    if ctx.turns.is_free(turn, now=now) and ctx.operations.wake(operation.id, now=now):
        shift.following.append(operation.id)


def _leave(shift: _Shift, taken: Sequence[Turn], *, until: float = 0.0) -> None:
    """Free the turns and go on with who waits the longest for each; a call that may still land keeps them until then.

    Should this worker die before it does, they are due, and the next sweep sends them.
    """
    ctx = shift.ctx
    for turn in taken:
        over = set()
        for operation_id in ctx.turns.leave(turn, until=until):
            if ctx.operations.wake(operation_id, now=ctx.clock.now()):
                shift.following.append(operation_id)
                break
            over.add(operation_id)
        if over:
            ctx.turns.strike(turn.subject, over)


def _call(ctx: Context, step: Step, acquired: Operation, until: float) -> tuple[Operation | None, bool]:
    """What follows, and whether a call of the operation may still land at the provider."""
    following = None
    answered = True
    try:
        following = step.run(ctx, acquired, until)
    except PluginRejected as exc:
        now = ctx.clock.now()
        if acquired.unanswered > 1 and now < acquired.calls_until:
            # An older call may still land: what this answer says of the storage may be over by then. Once more, alone.
            heard = outcome.is_answer(exc.code)
            ctx.operations.postpone(acquired, now=now, until=acquired.calls_until, last_error=exc.text, answered=heard)
        else:
            following = step.rejected(ctx, acquired, exc)
    except PluginInDoubt as exc:
        answered = False
        ctx.retry(acquired, exc.text, answered=False, now=ctx.clock.now())
    except PluginUnreachable as exc:
        ctx.retry(acquired, exc.text, answered=True, now=ctx.clock.now())
    except StoreError as exc:
        # The call may have been made, and what it answered was not written.
        answered = False
        ctx.retry(acquired, exc.text, answered=False, now=ctx.clock.now())
    return following, acquired.in_flight(ctx.clock.now()) > int(answered)
