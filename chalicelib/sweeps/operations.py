"""The sweeper: makes every rescue happen that nobody else makes. Called on a schedule; safe at any time."""

from dataclasses import dataclass
from typing import Final, Protocol

from chalicelib.clock import Clock
from chalicelib.errors import StoreUnavailable
from chalicelib.store.index import IndexStore
from chalicelib.store.operations import OperationStore

BATCH: Final = 100
ROUNDS: Final = 10


class Queue(Protocol):
    def send(self, operation_id: str, kind: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did."""

    sent: int = 0
    published: int = 0
    failed: int = 0


def sweep(clock: Clock, operations: OperationStore, index: IndexStore, queue: Queue) -> Swept:
    """Send every operation again that is due and stands still; publish for writes that died before they could."""
    sent = failed = 0
    for _ in range(ROUNDS):
        due = operations.due(clock.now(), limit=BATCH)
        for operation in due:
            if not operations.hurry(operation, now=clock.now()):
                continue
            try:
                queue.send(operation.id, operation.kind.value)
                sent += 1
            except StoreUnavailable:
                failed += 1
        if len(due) < BATCH or failed:
            break
    return Swept(sent=sent, published=index.repair(clock.now()), failed=failed)
