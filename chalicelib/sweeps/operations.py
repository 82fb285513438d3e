"""Send each operation again that is due and that no worker has: its message was lost, or its worker died.

The sweeper is called on a schedule. It is safe to run at any time, and any number of times at once.
"""

from dataclasses import dataclass
from typing import Final

from chalicelib.errors import StoreUnavailable
from chalicelib.service.deps import Deps
from chalicelib.store.operations import Reason

BATCH: Final = 100
ROUNDS: Final = 10


@dataclass(frozen=True, slots=True)
class Report:
    """How many messages were sent, and how many could not be."""

    sent: int = 0
    failed: int = 0


def sweep(deps: Deps) -> Report:
    """Send the due operations, at most `ROUNDS` batches of them. The next sweep sends the others."""
    sent = failed = 0
    for _ in range(ROUNDS):
        due = deps.operations.due(deps.clock.now(), limit=BATCH)
        for operation in due:
            # A request that waits for the operation may have sent it since it was read.
            if not deps.operations.reschedule(operation, Reason.SEND, now=deps.clock.now()):
                continue
            try:
                deps.queue.send(operation.id, operation.kind.value)
                sent += 1
            except StoreUnavailable:
                failed += 1
        # A queue that does not answer will not answer the next batch either.
        if len(due) < BATCH or failed:
            break
    return Report(sent=sent, failed=failed)
