"""Read, list, await, resume and cancel operations."""

from dataclasses import dataclass, field
from typing import Final

from chalicelib.domain.deadlines import WAIT_LIMIT
from chalicelib.domain.operation import Operation, Status
from chalicelib.errors import NotFound, RequestError
from chalicelib.operations import starting
from chalicelib.operations.kinds import KINDS
from chalicelib.operations.spec import ClaimHold
from chalicelib.service import blocking, waiting
from chalicelib.service.deps import Budget, Deps
from chalicelib.store import operations as operation_store
from chalicelib.store import ownership
from chalicelib.store.dynamo import TransactionRefused

READ_BUDGET: Final = 2_000
"""Records that one page may read. After that, a short page is answered, with its token."""
DEFAULT_PAGE: Final = 100
CANCELLED: Final = "cancelled before a worker began"


@dataclass(frozen=True, slots=True)
class OperationQuery:
    """What a list is asked for. An empty field matches any value."""

    namespace: str = "*"
    status: str = ""
    volume_id: str = ""
    plugin_id: str = ""
    per_page: int = DEFAULT_PAGE
    next_token: str = ""


@dataclass
class OperationPage:
    """One page, the newest operation first. `next_token` is the ID of the first operation of the next page."""

    index: int
    operations: list[Operation] = field(default_factory=list)
    next_token: str = ""


def read(deps: Deps, operation_id: str, *, wait: float = 0.0) -> Operation:
    """Return one operation, at once or when its outcome is known, at most `wait` seconds later. Raises NotFound."""
    found = deps.operations.get(operation_id)
    if found is None:
        raise NotFound(f"operation {operation_id} not found: finished ones are kept for a week")
    if wait > 0 and not found.answered:
        with blocking.reserve_wait(deps, min(wait, deps.wait_seconds)) as seconds:
            budget = Budget(seconds, deps.clock.monotonic() + WAIT_LIMIT)
            found = waiting.wait(deps, [found], budget)[found.id]
    return found


def list_operations(deps: Deps, query: OperationQuery) -> OperationPage:
    """Return a page of the operations that are kept: open ones, those in doubt, and a week of finished ones."""
    if query.status and query.status not in {s.value for s in Status}:
        known = ", ".join(s.value for s in Status)
        raise RequestError(f"status must be one of: {known}")
    listed, size = OperationPage(deps.operations.changes()), query.per_page or DEFAULT_PAGE
    for count, operation in enumerate(deps.operations.newest(start=query.next_token or None)):
        if len(listed.operations) >= size or count >= READ_BUDGET:
            listed.next_token = operation.id
            break
        if _wanted(operation, query):
            listed.operations.append(operation)
    return listed


def resume(deps: Deps, operation_id: str) -> Operation:
    """Resume an operation that is in doubt, or start the next try of one that waits for it.

    Raises NotFound, and RequestError 409 for any other.
    """
    found = read(deps, operation_id)
    if found.status is not Status.IN_DOUBT and not found.backs_off(deps.clock.now()):
        raise RequestError(
            f"operation {operation_id} is {found.status}: only one that is in doubt, or waits for its next try, can be "
            "resumed",
            status=409,
        )
    return starting.resume(deps, found)


def cancel(deps: Deps, operation_id: str) -> Operation:
    """Cancel an operation that no worker has begun, and free what it holds.

    The write is conditional on that, so a worker that acquires it at the same moment wins, or finds it over. Raises
    NotFound, and RequestError 409 for an operation that was begun or is about a claim.
    """
    found = read(deps, operation_id)
    if found.status is not Status.PENDING or found.attempt:
        raise RequestError(
            f"operation {operation_id} is {found.status} and was begun: it cannot be cancelled, only finished",
            status=409,
        )
    spec = KINDS[found.kind]
    if spec.names_storage:
        ownership.refuse_while_upgrading(deps)
    holds = spec.holds
    if isinstance(holds, ClaimHold):
        raise RequestError(
            f"operation {operation_id} is about a claim: release the claim instead, and it ends with it", status=409
        )
    now = deps.clock.now()
    closing = operation_store.cancel(found, now=now, error=CANCELLED)
    try:
        deps.dynamo.transact([closing, *holds.free(deps, found)], token=f"{operation_id[-24:]}cancel")
    except TransactionRefused as exc:
        after = read(deps, operation_id)
        if after.error != CANCELLED:
            raise RequestError(f"operation {operation_id} was begun meanwhile: it goes on", status=409) from exc
    return read(deps, operation_id)


def _wanted(operation: Operation, query: OperationQuery) -> bool:
    return (
        query.namespace in ("*", operation.namespace)
        and query.status in ("", operation.status.value)
        and query.volume_id in ("", operation.volume_id)
        and query.plugin_id in ("", operation.plugin_id)
    )
