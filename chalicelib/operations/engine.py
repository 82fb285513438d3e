"""Run operations: acquire one, make one call, write its result (docs/operations.md).

The worker that holds the lease is the only one, no matter how often the queue delivers the message. Nothing here
retries in place. A step that must be repeated writes when that is due, and ends. The waiting request or the sweeper
sends its message then. A worker that frees a turn continues with the operation that has waited for it the longest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from chalicelib.domain import outcome
from chalicelib.domain.deadlines import FUNCTION_TIMEOUT, GRACE, call_seconds, lease_seconds
from chalicelib.domain.operation import TRY_LIMIT, Operation, Status
from chalicelib.domain.plugin import Plugin
from chalicelib.errors import LeaseLost, PluginInDoubt, PluginRejected, PluginUnreachable, StoreError
from chalicelib.operations.context import ClaimLost, LookAgain, StepContext
from chalicelib.operations.kinds import KINDS
from chalicelib.operations.spec import ClaimHold, KindSpec, Step
from chalicelib.store import ownership
from chalicelib.store.operations import Reason
from chalicelib.store.turns import Turn, of_storage

UPGRADE_CHECK: Final = 60.0
"""Seconds after which an operation that waits for an upgrade is due again: the sweeper upgrades once a minute."""


def work(ctx: StepContext, operation_id: str, *, seconds: float = FUNCTION_TIMEOUT) -> Iterator[Operation]:
    """Run one operation as far as it goes now, then those that have waited for its turn. Yield each record as read.

    This is safe at any time and any number of times: an operation that is closed, not due, or under a lease is left
    alone. The caller may run for `seconds`, and no call begins whose lease would end later.
    """
    shift = _Shift(ctx, ctx.clock.monotonic() + seconds, [operation_id])
    while shift.following:
        found = _run(shift, shift.following.pop(0))
        if found is not None:
            yield found


def run(ctx: StepContext, operation_id: str) -> Operation | None:
    """Run `work` to its end. Return the record of this operation as it was read, or None if there is none."""
    every = list(work(ctx, operation_id))
    return every[0] if every and every[0].id == operation_id else None


@dataclass
class _Shift:
    """What one worker does in one invocation of its function."""

    ctx: StepContext
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
        # Another worker owns it, and will learn what this one has learnt. Stop, and undo nothing.
        return found
    return found


def _attempt(shift: _Shift, operation: Operation) -> Operation | None:
    ctx, spec = shift.ctx, KINDS[operation.kind]
    step = spec.steps[operation.step]
    plugin = ctx.plugins.get(operation.plugin_id, consistent=False)
    seconds = call_seconds(step.rpc, plugin.deadlines if plugin else {})
    grace = plugin.grace if plugin and plugin.grace else GRACE
    # The deadline counts from here, so what is read and decrypted before the call shortens the call.
    now, until = ctx.clock.now(), ctx.clock.monotonic() + seconds
    if spec.names_storage and not ownership.is_upgraded(ctx):
        ctx.operations.reschedule(operation, Reason.YIELD, at=now + UPGRADE_CHECK, now=now)
        return None
    if not shift.has_time_for(lease_seconds(seconds)):
        ctx.operations.reschedule(operation, Reason.YIELD, at=now, now=now)
        return None
    # An older call of this operation may land later than this one: its deadline may have been longer.
    may_land = operation.calls_until if operation.in_flight(now) else 0.0
    held_until = max(now + lease_seconds(seconds), now + seconds + grace, may_land)
    attempt = operation.attempt + 1
    taken = [Turn(subject, operation.id, attempt, held_until) for subject in subjects(operation, spec, plugin)]
    for position, turn in enumerate(taken):
        busy_until = ctx.turns.take(turn, now=now)
        if busy_until is not None:
            _leave(shift, taken[:position], until=may_land)
            _wait_for(shift, turn, operation, busy_until)
            return None
    acquired = ctx.operations.acquire(operation, now=now, call=seconds, lease=lease_seconds(seconds), grace=grace)
    following, answered = _call(ctx, spec, acquired, until)
    # Without an answer, the call may still land, and so may older ones that were not answered.
    in_flight = acquired.in_flight(ctx.clock.now()) > int(answered)
    _leave(shift, taken, until=acquired.calls_until if in_flight else 0.0)
    return following


def subjects(operation: Operation, spec: KindSpec, plugin: Plugin | None) -> list[str]:
    """Return what the operation's calls need a turn at, the widest subject last.

    The provider gets one call at a time for each volume (CSI spec, Concurrency). A volume that is being created has no
    ID yet that another operation could name. A plugin may ask for one call at a time for each node, or for all.
    """
    out = []
    if operation.external_id and spec.storage_has_id:
        out.append(of_storage(operation.plugin_id, operation.external_id))
    if plugin is not None and plugin.serialize == "node" and isinstance(spec.holds, ClaimHold):
        out.append(f"node\n{operation.plugin_id}\n{spec.holds.node_of(operation)}")
    if plugin is not None and plugin.serialize == "plugin":
        out.append(f"plugin\n{operation.plugin_id}")
    return out


def _wait_for(shift: _Shift, turn: Turn, operation: Operation, busy_until: float) -> None:
    """Defer the operation until the turn's lease ends, or until its holder leaves.

    The holder may have left just before this operation joined the list of those who wait, so check once more.
    """
    ctx, now = shift.ctx, shift.ctx.clock.now()
    if not ctx.operations.reschedule(operation, Reason.YIELD, at=busy_until, now=now):
        return
    if ctx.turns.is_free(turn, now=now) and ctx.operations.wake(operation.id, now=now):
        shift.following.append(operation.id)


def _leave(shift: _Shift, taken: Sequence[Turn], *, until: float = 0.0) -> None:
    """Free the turns, and continue with the operation that has waited the longest for each.

    A call that may still land keeps the turns until `until`. If this worker dies first, the operations that wait become
    due, and the next sweep sends them.
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


def _call(ctx: StepContext, spec: KindSpec, acquired: Operation, until: float) -> tuple[Operation | None, bool]:
    """Make the step's call. Return what follows, and False if the call may still land: it was not answered."""
    step, answered = spec.steps[acquired.step], True
    following = None
    try:
        try:
            following = step.run(ctx, acquired, until)
        except PluginRejected as exc:
            answered = outcome.is_answer(exc.code)
            following = _rejected(ctx, step, acquired, exc)
    except ClaimLost:
        if not isinstance(spec.holds, ClaimHold):
            raise
        ctx.close(acquired, spec.holds.lost(acquired, ctx.clock.now()))
    except LookAgain:
        following = ctx.operations.checkpoint(acquired, now=ctx.clock.now(), step=acquired.step)
    except PluginInDoubt as exc:
        answered = False
        ctx.retry(acquired, exc.text, answered=False, now=ctx.clock.now())
    except PluginUnreachable as exc:
        ctx.retry(acquired, exc.text, answered=True, now=ctx.clock.now())
    except StoreError as exc:
        # The call may have been made, but its answer was not written.
        answered = False
        ctx.retry(acquired, exc.text, answered=False, now=ctx.clock.now())
    return following, answered


def _rejected(ctx: StepContext, step: Step, acquired: Operation, error: PluginRejected) -> Operation | None:
    """Let the step decide what follows from the rejection, if no other call of the operation may change it."""
    now = ctx.clock.now()
    if acquired.unanswered > 1 and now < acquired.calls_until:
        # An older call may still land, and change what this answer says of the storage. Call again when none can.
        heard = outcome.is_answer(error.code)
        ctx.operations.postpone(acquired, now=now, until=acquired.calls_until, last_error=error.text, answered=heard)
        return None
    return step.rejected(ctx, acquired, error)
