"""Starting operations and waiting for them: record first, then message, then the answer of whoever did the work."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from chalicelib.domain.operation import Operation, Status
from chalicelib.errors import LeaseLost, OperationInProgress, OperationPending, StoreUnavailable
from chalicelib.service.deps import Budget, Deps
from chalicelib.store.operations import Reason

FIRST_POLL: Final = 0.01
LONGEST_POLL: Final = 1.0
POLL_GROWTH: Final = 1.5


def answered(operation: Operation) -> bool:
    """Whether there is something to tell; an undo may still go on."""
    return operation.answered


def digest(*parts: object) -> str:
    """What two requests must agree in to be the same; never made of secrets."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def send(deps: Deps, operation: Operation) -> None:
    """Queue it; if the queue does not answer, the wait and the sweeper send it again."""
    try:
        deps.queue.send(operation.id, operation.kind.value)
    except StoreUnavailable:
        return


class Begun(NamedTuple):
    """An operation that a request waits for, and whether the request has made its record."""

    operation: Operation
    new: bool = False


def sent(deps: Deps, begun: Begun) -> Operation:
    """Queue the operation if it is new and may start now; returns it."""
    if begun.new and begun.operation.not_before <= deps.clock.now():
        send(deps, begun.operation)
    return begun.operation


def join(deps: Deps, volume_id: str, operation_id: str, wanted: str, kind: str, *, secrets: bytes = b"") -> Operation:
    """The open operation that holds a volume, if it is the same request; raises OperationInProgress if not."""
    found = deps.operations.get(operation_id)
    if found is None or found.digest != wanted:
        name = found.kind.value if found else kind
        raise OperationInProgress(f"volume {volume_id} has an operation in progress: {name}")
    return taken_up(deps, found, secrets=secrets)


def taken_up(deps: Deps, found: Operation, *, secrets: bytes = b"") -> Operation:
    """An open operation that somebody asks for again: one that was given up has fresh tries, one that waits for its
    next try has it now. Further calls are made with the secrets of this request, if it has some (sealed): the first
    ones may have been what was wrong.
    """
    now = deps.clock.now()
    try:
        if found.status is Status.IN_DOUBT or found.backs_off(now):
            again = deps.operations.resume(found, now=now, secrets=secrets)
        else:
            return found
    except LeaseLost:
        return deps.operations.get(found.id) or found  # somebody else was faster
    send(deps, again)
    return again


def wait(
    deps: Deps,
    operations: Sequence[Operation],
    budget: Budget,
    *,
    over: Callable[[Operation], bool] = answered,
) -> dict[str, Operation]:
    """The operations as they stand when all are `over` or the budget is spent.

    Polls grow from 10 ms to 1 s and may be eventually consistent: half a read unit each. A message that seems lost,
    or a step that is to be repeated, is sent again from here, so a waiting client never waits for the sweeper.
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
                send(deps, seen)
                pause = FIRST_POLL
    return found


def unanswered(
    operations: Iterable[Operation], *, over: Callable[[Operation], bool] = answered
) -> OperationPending | None:
    """What to tell about operations that are still running, None if there is none."""
    waiting = [o for o in operations if not over(o)]
    if not waiting:
        return None
    names = ", ".join(f"{o.id} ({o.kind} {o.volume_id})" for o in waiting)
    reason = next((f"; last error: {o.last_error}" for o in waiting if o.last_error), "")
    return OperationPending(
        f"operation {names} is still running: repeat the request to go on waiting{reason}", [o.id for o in waiting]
    )


def text(sealed: bytes) -> str:
    """Ciphertext where JSON wants text."""
    return base64.b64encode(sealed).decode()


def with_secrets(operation: Operation, sealed: bytes) -> Operation:
    """The operation with the secrets of its request, sealed."""
    return replace(operation, sealed_secrets=sealed)
