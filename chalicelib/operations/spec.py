"""What a kind of operation is: its steps, what it holds while it is open, and what a cancel frees.

Each kind states this once, as the value KIND of its module. operations/kinds.py has the table of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from chalicelib.domain.operation import Kind, Operation
from chalicelib.errors import PluginRejected
from chalicelib.store import operations, volumes
from chalicelib.store.dynamo import Write
from chalicelib.store.stores import Stores

if TYPE_CHECKING:
    from chalicelib.operations.context import StepContext

Run: TypeAlias = "Callable[[StepContext, Operation, float], Operation | None]"
"""Makes the call of a step, by a deadline on the monotonic clock. Returns the operation when another step follows at
once.
"""
Rejected: TypeAlias = "Callable[[StepContext, Operation, PluginRejected], Operation | None]"
"""Decides what follows from a final error, when no other call of the operation is in flight. Returns the operation when
its undo can begin at once.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One CSI call of an operation.

    A step can be repeated, since its process may die after the call and before the record of it.
    """

    rpc: str
    run: Run
    rejected: Rejected


def unmark(operation: Operation, *, calls_until: float | None = None) -> Write:
    """Build the write that makes the operation's volume ready again. store/volumes.py says what `calls_until` means."""
    key = volumes.key(operation.namespace, operation.volume_id)
    return volumes.unmark(key, operation_id=operation.id, calls_until=calls_until)


def _free_volume(_stores: Stores, operation: Operation) -> list[Write]:
    return [unmark(operation)]


@dataclass(frozen=True, slots=True)
class VolumeHold:
    """The volume's record names the operation, so a volume has one at a time."""

    free: Callable[[Stores, Operation], list[Write]] = _free_volume
    """Builds the writes that free the volume of an operation that never began."""
    open_to_claims: frozenset[str] = frozenset()
    """Under which names (`Volume.operation_kind`) claims may come and go while the volume is held."""


@dataclass(frozen=True, slots=True)
class SubjectHold:
    """A lock item names the operation (store/operations.py), since no record of ours has what it works on."""

    def free(self, _stores: Stores, operation: Operation) -> list[Write]:
        """Build the writes that free the lock of an operation that never began."""
        return operations.unlock(operation)


@dataclass(frozen=True, slots=True)
class ClaimHold:
    """The claim's record names the operation. It cannot be cancelled: releasing the claim ends it."""

    node_of: Callable[[Operation], str]
    """Returns the ID of the claim's node, which some plugins serialize by."""
    lost: Callable[[Operation, float], Write]
    """Builds the write that ends an operation whose claim is gone or another operation's."""


@dataclass(frozen=True, slots=True)
class KindSpec:
    """A kind of operation."""

    kind: Kind
    first: str
    """The step that an operation of this kind begins with, unless its start says otherwise."""
    holds: VolumeHold | SubjectHold | ClaimHold
    steps: Mapping[str, Step]
    names_storage: bool = False
    """Whether its end changes which records name a storage. Then it waits until those of an older version are known."""
    storage_has_id: bool = True
    """Whether other operations could name the storage by its ID. Then the calls of all of them take turns."""
