"""Running operations: acquire, make one call, write its result, under the rules of docs/operations.md.

Whoever holds the lease is alone, whatever the queue delivers and however often. Nothing here retries in place: a step
that must be repeated writes when, and ends; the waiting request or the sweeper sends it again.
"""

from collections.abc import Mapping
from typing import Final

from chalicelib.domain.deadlines import GRACE, call_seconds, lease_seconds
from chalicelib.domain.operation import TRY_LIMIT, Kind, Operation, Status
from chalicelib.errors import LeaseLost, PluginInDoubt, PluginRejected, PluginUnreachable
from chalicelib.operations import create_snapshot, create_volume, delete_snapshot, delete_volume, expand_volume
from chalicelib.operations.context import Context, Definition

KINDS: Final[Mapping[Kind, Definition]] = {
    Kind.CREATE_VOLUME: create_volume.DEFINITION,
    Kind.DELETE_VOLUME: delete_volume.DEFINITION,
    Kind.EXPAND_VOLUME: expand_volume.DEFINITION,
    Kind.CREATE_SNAPSHOT: create_snapshot.DEFINITION,
    Kind.DELETE_SNAPSHOT: delete_snapshot.DEFINITION,
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
    acquired = ctx.operations.acquire(
        operation, now=ctx.clock.now(), call=seconds, lease=lease_seconds(seconds), grace=grace
    )
    try:
        return step.run(ctx, acquired, seconds)
    except PluginRejected as exc:
        now = ctx.clock.now()
        if acquired.unanswered > 1 and now < acquired.calls_until:
            # An older call may still land: what this answer says of the storage may be over by then. Once more, alone.
            ctx.operations.postpone(acquired, now=now, until=acquired.calls_until, last_error=exc.text, answered=True)
        else:
            step.rejected(ctx, acquired, exc)
    except PluginInDoubt as exc:
        ctx.retry(acquired, exc.text, answered=False, now=ctx.clock.now())
    except PluginUnreachable as exc:
        ctx.retry(acquired, exc.text, answered=True, now=ctx.clock.now())
    return None
