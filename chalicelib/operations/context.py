"""What an operation's steps are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.claim import Use
from chalicelib.domain.external import Snapshot
from chalicelib.domain.operation import TRY_LIMIT, How, JsonObject, Operation, retry_delay
from chalicelib.domain.secrets import encryption_context
from chalicelib.domain.volume import Made, Volume
from chalicelib.errors import LeaseLost, PluginUnreachable, StoreError
from chalicelib.store import operations, volumes
from chalicelib.store.claims import claim_of
from chalicelib.store.commit import Change, RefusedWrites, Writes
from chalicelib.store.dynamo import TransactionRefused, Write
from chalicelib.store.index import volume_scope
from chalicelib.store.stores import Stores
from chalicelib.store.turns import TurnStore
from chalicelib.store.volumes import volume_of


class ClaimLost(Exception):
    """The claim is gone, or another operation has it: this one has nothing left to do."""


class Opener(Protocol):
    """Opens sealed secrets; only the worker can."""

    def open_secrets(self, sealed: bytes, context: Mapping[str, str]) -> dict[str, str]: ...


class Calls(Protocol):
    """The CSI calls that change something; each raises the PluginError it ended in. `attempt` fences it at the
    bridge; it is over at `until` on the monotonic clock, whatever was done before it was made.
    """

    def create_volume(
        self,
        plugin_id: str,
        volume: Volume,
        *,
        name: str,
        secrets: Mapping[str, str],
        until: float,
        attempt: tuple[str, int],
    ) -> Made: ...

    def delete_volume(
        self, plugin_id: str, external_id: str, *, secrets: Mapping[str, str], until: float, attempt: tuple[str, int]
    ) -> None: ...

    def expand_volume(
        self,
        plugin_id: str,
        volume: Volume,
        *,
        required: int,
        limit: int,
        secrets: Mapping[str, str],
        until: float,
        attempt: tuple[str, int],
    ) -> int: ...

    def create_snapshot(
        self,
        plugin_id: str,
        external_id: str,
        *,
        name: str,
        parameters: Mapping[str, str],
        secrets: Mapping[str, str],
        until: float,
        attempt: tuple[str, int],
    ) -> Snapshot: ...

    def delete_snapshot(
        self, plugin_id: str, external_id: str, *, secrets: Mapping[str, str], until: float, attempt: tuple[str, int]
    ) -> None: ...

    def publish(self, volume: Volume, use: Use, *, external_node_id: str, how: How) -> dict[str, str]: ...

    def unpublish(self, plugin_id: str, external_id: str, *, external_node_id: str, how: How) -> None: ...

    def stage(self, volume: Volume, use: Use, *, node_id: str, how: How) -> bool: ...

    def mount(self, volume: Volume, use: Use, *, node_id: str, how: How) -> None: ...

    def unmount(self, plugin_id: str, external_id: str, *, node_id: str, path: str, how: How) -> None: ...

    def unstage(self, plugin_id: str, external_id: str, *, node_id: str, path: str, how: How) -> None: ...


@dataclass(frozen=True)
class StepContext(Stores):
    """The worker's stores, clock and CSI calls."""

    turns: TurnStore
    secrets: Opener
    calls: Calls

    def open(self, operation: Operation, *sealed_secrets: bytes) -> dict[str, str]:
        """Secrets of the operation's volume, later ones before earlier ones. Raises PluginUnreachable: without them
        no call is made.
        """
        context = encryption_context(operation.namespace, operation.volume_id)
        try:
            opened = [self.secrets.open_secrets(one, context) for one in sealed_secrets]
        except StoreError as exc:
            raise PluginUnreachable(exc.text, code="UNAVAILABLE") from exc
        return {name: value for secrets in opened for name, value in secrets.items()}

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

    def finish(self, operation: Operation, result: JsonObject) -> None:
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


def the_volume(operation: Operation) -> Volume:
    """Return the operation's volume as it was defined when the operation was begun."""
    return Volume(
        namespace=operation.namespace,
        id=operation.volume_id,
        plugin_id=operation.plugin_id,
        definition=volumes.decode(operation.definition),
        sealed_secrets=operation.sealed_secrets,
    )
