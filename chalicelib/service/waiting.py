"""Wait for the outcome of the operations that a request has started."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from chalicelib.domain.operation import Operation
from chalicelib.errors import OperationPending
from chalicelib.operations import starting
from chalicelib.service.deps import Budget, Deps
from chalicelib.store.operations import Reason

FIRST_POLL: Final = 0.01
LONGEST_POLL: Final = 1.0
POLL_GROWTH: Final = 1.5


def answered(operation: Operation) -> bool:
    """Return whether the client can be answered, though an undo may still go on."""
    return operation.answered


def wait(
    deps: Deps,
    operations: Sequence[Operation],
    budget: Budget,
    *,
    over: Callable[[Operation], bool] = answered,
) -> dict[str, Operation]:
    """Wait until all operations are `over` or the budget is spent, and return them as they are then, by their IDs.

    Polls are 10 ms apart at first and 1 s at last. They are eventually consistent, for half a read unit each. A message
    that seems lost, or a step that is due again, is sent from here, so a waiting client never waits for the sweeper.
    """
    found = {operation.id: operation for operation in operations}
    now = deps.clock.monotonic()
    end, pause = now + min(budget.wait, deps.wait_seconds, budget.left(now)), FIRST_POLL
    while waiting := [o for o in found.values() if not over(o)]:
        if deps.clock.monotonic() + pause > end:
            break
        deps.clock.sleep(pause)
        pause = min(pause * POLL_GROWTH, LONGEST_POLL)
        for operation in waiting:
            seen = deps.operations.get(operation.id, consistent=False)
            if seen is None:
                continue
            found[operation.id] = seen
            now = deps.clock.now()
            if not over(seen) and seen.due_at <= now and deps.operations.reschedule(seen, Reason.SEND, now=now):
                starting.send(deps, seen)
                pause = FIRST_POLL
    return found


def unanswered(
    operations: Iterable[Operation], *, over: Callable[[Operation], bool] = answered
) -> OperationPending | None:
    """Return the error for operations that are still running, or None if none is."""
    waiting = [o for o in operations if not over(o)]
    if not waiting:
        return None
    names = ", ".join(f"{o.id} ({o.kind} {o.volume_id})" for o in waiting)
    reason = next((f"; last error: {o.last_error}" for o in waiting if o.last_error), "")
    return OperationPending(
        f"operation {names} is still running: repeat the request to go on waiting{reason}", [o.id for o in waiting]
    )
