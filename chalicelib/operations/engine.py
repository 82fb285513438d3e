"""Running operations: acquire, make one call, write its result, under the rules of docs/operations.md.

Whoever holds the lease is alone, whatever the queue delivers and however often. Nothing here retries in place: a step
that must be repeated writes when, and ends; the waiting request or the sweeper sends it again.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from chalicelib.domain.deadlines import GRACE, call_seconds, lease_seconds
from chalicelib.domain.operation import TRY_LIMIT, Kind, Operation, Status
from chalicelib.domain.plugin import Plugin
from chalicelib.errors import LeaseLost, PluginInDoubt, PluginRejected, PluginUnreachable
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
from chalicelib.store.turns import Turn

KINDS: Final[Mapping[Kind, Definition]] = {
    Kind.CREATE_VOLUME: create_volume.DEFINITION,
    Kind.DELETE_VOLUME: delete_volume.DEFINITION,
    Kind.EXPAND_VOLUME: expand_volume.DEFINITION,
    Kind.CREATE_SNAPSHOT: create_snapshot.DEFINITION,
    Kind.DELETE_SNAPSHOT: delete_snapshot.DEFINITION,
    Kind.PUBLISH_VOLUME: publish_volume.DEFINITION,
    Kind.UNPUBLISH_VOLUME: unpublish_volume.DEFINITION,
}


def run(ctx: Context, operation_id: str) -> Operation | None:
    """Work on one operation as far as it goes now; returns the record as it was found, None if there is none.

    Safe to call at any time, any number of times, from anywhere: an operation that is closed, not due, or held by a
    living lease is left alone.
    """
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
            operation = _attempt(ctx, operation)
    except LeaseLost:
        # Another worker owns it: whatever this one learnt, that one will learn too. Stop, undo nothing.
        return found
    return found


def _attempt(ctx: Context, operation: Operation) -> Operation | None:
    step = KINDS[operation.kind].steps[operation.step]
    plugin = ctx.plugins.get(operation.plugin_id, consistent=False)
    seconds = call_seconds(step.rpc, plugin.deadlines if plugin else {})
    grace = plugin.grace if plugin and plugin.grace else GRACE
    now = ctx.clock.now()
    until = now + max(lease_seconds(seconds), seconds + grace)
    taken = [Turn(subject, operation.id, operation.attempt + 1, until) for subject in subjects(operation, plugin)]
    for position, turn in enumerate(taken):
        busy_until = ctx.turns.take(turn, now=now)
        if busy_until is not None:
            _leave(ctx, taken[:position])
            ctx.operations.defer(operation, until=busy_until, now=now)
            return None
    acquired = ctx.operations.acquire(operation, now=now, call=seconds, lease=lease_seconds(seconds), grace=grace)
    try:
        following, in_flight = _call(ctx, step, acquired, seconds)
    except ClaimLost:
        release.over(ctx, acquired)
        following, in_flight = None, acquired.in_flight(ctx.clock.now()) > 0
    _leave(ctx, taken, until=acquired.calls_until if in_flight else 0.0)
    return following


def subjects(operation: Operation, plugin: Plugin | None) -> list[str]:
    """What the operation's calls must have for themselves, the widest last.

    A volume that is being created has no name that another operation could know; afterwards the provider sees one call
    to it at a time (CSI spec, Concurrency). A plugin may ask for more.
    """
    out = []
    if operation.external_id and operation.kind is not Kind.CREATE_VOLUME:
        out.append(f"volume\n{operation.plugin_id}\n{operation.external_id}")
    if plugin is not None and plugin.serialize == "node" and "node_id" in operation.params:
        out.append(f"node\n{operation.plugin_id}\n{operation.params['node_id']}")
    if plugin is not None and plugin.serialize == "plugin":
        out.append(f"plugin\n{operation.plugin_id}")
    return out


def _leave(ctx: Context, taken: Sequence[Turn], *, until: float = 0.0) -> None:
    """Free the turns and call up who waits the longest for each; a call that may still land keeps them until then."""
    for turn in taken:
        over = set()
        for operation_id in ctx.turns.leave(turn, until=until):
            if ctx.operations.call_up(operation_id, now=ctx.clock.now()):
                break
            over.add(operation_id)
        if over:
            ctx.turns.strike(turn.subject, over)


def _call(ctx: Context, step: Step, acquired: Operation, seconds: float) -> tuple[Operation | None, bool]:
    """What follows, and whether a call of the operation may still land at the provider."""
    following = None
    answered = True
    try:
        following = step.run(ctx, acquired, seconds)
    except PluginRejected as exc:
        now = ctx.clock.now()
        if acquired.unanswered > 1 and now < acquired.calls_until:
            # An older call may still land: what this answer says of the storage may be over by then. Once more, alone.
            ctx.operations.postpone(acquired, now=now, until=acquired.calls_until, last_error=exc.text, answered=True)
        else:
            following = step.rejected(ctx, acquired, exc)
    except PluginInDoubt as exc:
        answered = False
        ctx.retry(acquired, exc.text, answered=False, now=ctx.clock.now())
    except PluginUnreachable as exc:
        ctx.retry(acquired, exc.text, answered=True, now=ctx.clock.now())
    return following, acquired.in_flight(ctx.clock.now()) > int(answered)
