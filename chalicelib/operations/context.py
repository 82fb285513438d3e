"""What an operation's steps are given, and what a step is."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chalicelib.domain.call import Attempt, CallOptions
from chalicelib.domain.operation import TRY_LIMIT, Operation, retry_delay
from chalicelib.domain.secrets import Opener, encryption_context
from chalicelib.domain.volume import Volume
from chalicelib.errors import LeaseLost, PluginRejected, PluginUnreachable, StoreError
from chalicelib.store import operations, volumes
from chalicelib.store.claims import claim_of
from chalicelib.store.commit import Change, RefusedWrites, Writes
from chalicelib.store.dynamo import TransactionRefused, Write
from chalicelib.store.index import volume_scope
from chalicelib.store.stores import Stores
from chalicelib.store.turns import TurnStore
from chalicelib.store.volumes import volume_of

if TYPE_CHECKING:
    # The API starts operations, and must not import grpc.
    from chalicelib.csi.calls import CsiCalls


class ClaimLost(Exception):
    """The claim is gone, or another operation has it: this one has nothing left to do."""


@dataclass(frozen=True)
class Context(Stores):
    """The worker's stores, clock and CSI calls."""

    turns: TurnStore
    secrets: Opener
    calls: CsiCalls

    @classmethod
    def on(cls, stores: Stores, *, turns: TurnStore, secrets: Opener, calls: CsiCalls) -> Context:
        """Return what steps are given, on these stores."""
        return cls(
            clock=stores.clock,
            dynamo=stores.dynamo,
            index=stores.index,
            committer=stores.committer,
            volumes=stores.volumes,
            claims=stores.claims,
            operations=stores.operations,
            plugins=stores.plugins,
            namespaces=stores.namespaces,
            turns=turns,
            secrets=secrets,
            calls=calls,
        )

    def call_options(self, operation: Operation, until: float, *sealed_secrets: bytes) -> CallOptions:
        """Return the options of one call of this attempt, which is over at `until` on the monotonic clock.

        The sealed secrets are opened and merged; on equal keys the later argument wins. Raises PluginUnreachable when
        they cannot be opened, since then no call is made.
        """
        context = encryption_context(operation.namespace, operation.volume_id)
        secrets: dict[str, str] = {}
        try:
            for sealed_one in sealed_secrets:
                secrets |= self.secrets.open_secrets(sealed_one, context)
        except StoreError as exc:
            raise PluginUnreachable(exc.text, code="UNAVAILABLE") from exc
        return CallOptions(until=until, secrets=secrets, attempt=Attempt(operation.id, operation.attempt))

    def record(self, operation: Operation, *scopes: str, writes: Writes) -> None:
        """Commit what the operation did to the volume that it holds, and its own record with it.

        Raises LeaseLost when a later attempt owns the operation.
        """

        def build(refused: RefusedWrites) -> Change[None]:
            volume = volume_of(refused.get("volume"))
            if refused and ("operation" in refused or volume is None or volume.operation_id != operation.id):
                raise LeaseLost(operation.id)
            return Change(None, writes)

        self.committer.commit(*scopes, build=build, what=f"volume {operation.volume_id}")

    def record_claim(self, operation: Operation, *, build: Callable[[], Writes]) -> None:
        """Commit what the operation did to its claim, and its own record with it; `build` reads anew at each try.

        Raises LeaseLost when a later attempt owns the operation, and ClaimLost when another operation has the claim.
        """

        def again(refused: RefusedWrites) -> Change[None]:
            claim = claim_of(refused.get("claim"))
            if "operation" in refused:
                raise LeaseLost(operation.id)
            if "claim" in refused and (claim is None or claim.operation_id != operation.id):
                raise ClaimLost(operation.id)
            return Change(None, build())

        scope = volume_scope(operation.namespace)
        self.committer.commit(scope, build=again, what=f"volume {operation.volume_id}")

    def finish(self, operation: Operation, result: Mapping[str, Any]) -> None:
        """The operation is over, and its lock, if it has one, is free."""
        closing = operations.succeed(operation, now=self.clock.now(), result={"index": 0, **result})
        self.close(operation, closing, *operations.unlock(operation))

    def give_up(self, operation: Operation, error: str) -> None:
        """The operation failed for good, and its lock, if it has one, is free."""
        closing = operations.fail(operation, now=self.clock.now(), error=error)
        self.close(operation, closing, *operations.unlock(operation))

    def close(self, operation: Operation, *writes: Write) -> None:
        """Write the end of the operation, or of its first half, with what must change in the same moment.

        Raises LeaseLost when a later attempt owns the operation.
        """
        try:
            self.dynamo.transact(writes, token=self.clock.new_id())
        except TransactionRefused as exc:
            raise LeaseLost(operation.id) from exc

    def retry(self, operation: Operation, error: str, *, answered: bool, now: float) -> None:
        """Later again, or, when the tries are used up, given up in doubt with the last error kept."""
        if operation.tries >= TRY_LIMIT:
            self.operations.exhaust(operation, now=now, last_error=error)
            return
        until = now + retry_delay(operation.tries, self.clock.jitter())
        self.operations.postpone(operation, now=now, until=until, last_error=error, answered=answered)


Run = Callable[[Context, Operation, float], Operation | None]
"""One attempt of a step, with the deadline of its call on the monotonic clock; the operation when another step follows
at once.
"""
Rejected = Callable[[Context, Operation, PluginRejected], Operation | None]
"""What follows from a final error of this attempt, when no other call of the operation is in flight; the operation when
its undo can begin at once.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One CSI call of an operation: repeatable, since the process may die after it and before its record."""

    rpc: str
    run: Run
    rejected: Rejected


@dataclass(frozen=True, slots=True)
class Definition:
    """A kind of operation: its steps by name."""

    steps: Mapping[str, Step]


def the_volume(operation: Operation) -> Volume:
    """Return the operation's volume as it was defined when the operation was begun."""
    return Volume(
        namespace=operation.namespace,
        id=operation.volume_id,
        plugin_id=operation.plugin_id,
        definition=volumes.decode(operation.definition),
        sealed_secrets=operation.sealed_secrets,
    )


def sealed(params: Mapping[str, Any], name: str) -> bytes:
    return base64.b64decode(params.get(name) or "")
