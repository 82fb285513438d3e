"""What the steps of an operation work with: the stores, the clock, and the calls to plugins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chalicelib.domain.call import Attempt, CallOptions
from chalicelib.domain.operation import TRY_LIMIT, JsonObject, Operation, retry_delay
from chalicelib.domain.secrets import Opener, encryption_context
from chalicelib.domain.volume import Volume
from chalicelib.errors import LeaseLost, PluginUnreachable, StoreError
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
    """The claim is gone, or belongs to another operation. This operation has nothing left to do."""


class LookAgain(Exception):
    """What the step decided by has changed before it could write its result. It must be run again."""


@dataclass(frozen=True)
class StepContext(Stores):
    """The worker's stores, clock, turns and CSI calls."""

    turns: TurnStore
    secrets: Opener
    calls: CsiCalls

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

    def record(self, operation: Operation, *scopes: str, build: Callable[[], Writes]) -> None:
        """Commit what the operation did to its volume and its storage, and its own record with it.

        `build` runs again after each refusal, so it reads what it needs anew. Without `scopes`, no client sees the
        change. Raises LeaseLost when a later attempt owns the operation.
        """

        def again(refused: RefusedWrites) -> Change[None]:
            volume = volume_of(refused.get("volume"))
            held = "volume" not in refused or (volume is not None and volume.operation_id == operation.id)
            if "operation" in refused or not held:
                raise LeaseLost(operation.id)
            return Change(None, build(), visible=bool(scopes))

        self.committer.commit(*scopes, build=again, what=f"volume {operation.volume_id}")

    def record_claim(self, operation: Operation, *, build: Callable[[], Writes], visible: bool = True) -> None:
        """Commit what the operation did to its claim, and its own record with it.

        `build` runs again after each refusal, so it reads what it needs anew. A change that is not `visible` to clients
        wakes no reader. Raises LeaseLost when a later attempt owns the operation, ClaimLost when another operation has
        the claim, and LookAgain when what the step decided by has changed: the node, another claim or a stale mount.
        """

        def again(refused: RefusedWrites) -> Change[None]:
            claim = claim_of(refused.get("claim"))
            if "operation" in refused:
                raise LeaseLost(operation.id)
            if "claim" in refused and (claim is None or claim.operation_id != operation.id):
                raise ClaimLost(operation.id)
            if refused.keys() & {"node", "other", "stale mount"}:
                raise LookAgain(operation.id)
            return Change(None, build(), visible)

        scope = volume_scope(operation.namespace)
        self.committer.commit(scope, build=again, what=f"volume {operation.volume_id}")

    def finish(self, operation: Operation, result: JsonObject) -> None:
        """Close the operation as succeeded, and free its lock, if it has one."""
        closing = operations.succeed(operation, now=self.clock.now(), result={"index": 0, **result})
        self.close(operation, closing, *operations.unlock(operation))

    def give_up(self, operation: Operation, error: str) -> None:
        """Close the operation as failed, and free its lock, if it has one."""
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
        """Reschedule the operation. After TRY_LIMIT tries, leave it in doubt and keep `error` as its last error."""
        if operation.tries >= TRY_LIMIT:
            self.operations.exhaust(operation, now=now, last_error=error)
            return
        until = now + retry_delay(operation.tries, self.clock.jitter())
        self.operations.postpone(operation, now=now, until=until, last_error=error, answered=answered)


def the_volume(operation: Operation) -> Volume:
    """Return the operation's volume as it was defined when the operation was begun."""
    return Volume(
        namespace=operation.namespace,
        id=operation.volume_id,
        plugin_id=operation.plugin_id,
        definition=volumes.decode(operation.definition),
        sealed_secrets=operation.sealed_secrets,
    )
