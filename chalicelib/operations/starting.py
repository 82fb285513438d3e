"""How a request starts an operation, joins one that is open, or resumes it.

The record comes first, then the message: a message that is lost is sent again by the waiting request or the sweeper.
Requests run this in the API's function, so nothing here imports grpc.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from chalicelib.domain.operation import Operation, Status
from chalicelib.domain.secrets import encryption_context
from chalicelib.domain.volume import Volume
from chalicelib.errors import LeaseLost, OperationInProgress, Refused, StoreUnavailable
from chalicelib.operations.spec import KindSpec
from chalicelib.store import operations
from chalicelib.store.dynamo import TransactionRefused, Write
from chalicelib.store.stores import Stores

LOCK_TRIES: Final = 3


class Queue(Protocol):
    """Where workers take operations from."""

    def send(self, operation_id: str, kind: str) -> None:
        """Queue one operation. Raises StoreUnavailable."""


class Sealer(Protocol):
    """Encrypts secrets, which only the worker can decrypt."""

    def seal_secrets(self, secrets: Mapping[str, str], context: Mapping[str, str]) -> bytes:
        """Return the ciphertext, bound to its encryption context. Without secrets it is empty."""


@dataclass(frozen=True)
class Api(Stores):
    """What a request needs to start operations."""

    sealer: Sealer
    queue: Queue

    def seal(self, secrets: Mapping[str, str], namespace: str, volume_id: str) -> bytes:
        """Encrypt the secrets of a volume's operation."""
        return self.sealer.seal_secrets(secrets, encryption_context(namespace, volume_id))


class NewOperation(NamedTuple):
    """An operation that does not exist yet, and what one transaction writes to begin it."""

    operation: Operation
    writes: list[Write]
    """What it holds, and its record."""


class Started(NamedTuple):
    """An operation that a request waits for."""

    operation: Operation
    new: bool = False
    """Whether the request has made its record, so that it has to be queued."""


def digest(*parts: object) -> str:
    """Return the hash of what two requests must agree in to be the same. Secrets never belong to it."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def new_operation(
    api: Api, spec: KindSpec, *, namespace: str, volume_id: str, plugin_id: str, digest: str
) -> Operation:
    """Return an operation of this kind at its first step, with a new ID. It is not stored."""
    now = api.clock.now()
    return Operation(
        id=api.clock.new_id(),
        kind=spec.kind,
        namespace=namespace,
        volume_id=volume_id,
        plugin_id=plugin_id,
        digest=digest,
        step=spec.first,
        create_time=now,
        update_time=now,
    )


def lock_or_join(api: Api, operation: Operation) -> Operation:
    """Lock the operation's subject and store its record, or join the operation that has the lock.

    The operation is queued. Raises OperationInProgress when the lock is another request's, and Refused when it changes
    hands too fast.
    """
    for _ in range(LOCK_TRIES):
        writes = [*operations.lock(operation), operations.open_operation(operation, now=api.clock.now())]
        try:
            api.dynamo.transact(writes, token=operation.id)
        except TransactionRefused as exc:
            holder = operations.holder(exc.old.get("lock"))
            if holder and holder != operation.id:
                found = api.operations.get(holder)
                if found is None or not found.open:
                    continue  # It ended between the two reads: the lock is free now.
                return _join(api, found, operation.digest, operation.external_id, secrets=operation.sealed_secrets)
        send(api, operation)
        return operation
    raise Refused(f"snapshot of {operation.external_id} is being changed by others: try again in a moment")


def join(api: Api, held: Volume, digest: str, *, secrets: bytes = b"") -> Operation:
    """Return the operation that holds the volume if its request was the same, and resume it.

    `secrets` are sealed. Raises OperationInProgress when the request was another one.
    """
    found = api.operations.get(held.operation_id)
    if found is None:
        raise in_progress(held)
    return _join(api, found, digest, held.id, secrets=secrets)


def _join(api: Api, found: Operation, digest: str, name: str, *, secrets: bytes) -> Operation:
    if found.digest != digest:
        raise OperationInProgress(f"volume {name} has an operation in progress: {found.kind}")
    return resume(api, found, secrets=secrets)


def in_progress(held: Volume) -> OperationInProgress:
    """Return the error for a volume that an operation holds."""
    return OperationInProgress(f"volume {held.id} has an operation in progress: {held.operation_kind}")


def resume(api: Api, found: Operation, *, secrets: bytes = b"") -> Operation:
    """Resume an open operation because a client asked for it again, and return it.

    One that was left in doubt gets new tries. One that waits for its next try gets it now. Sealed `secrets`, if given,
    replace the stored ones for further calls: the first may have been wrong.
    """
    now = api.clock.now()
    try:
        if not (found.status is Status.IN_DOUBT or found.backs_off(now)):
            return found
        again = api.operations.resume(found, now=now, secrets=secrets)
    except LeaseLost:
        return api.operations.get(found.id) or found  # Another request or a worker was faster.
    send(api, again)
    return again


def send(api: Api, operation: Operation) -> None:
    """Queue the operation. If the queue does not answer, the wait and the sweeper send it again."""
    try:
        api.queue.send(operation.id, operation.kind.value)
    except StoreUnavailable:
        return


def send_new(api: Api, started: Started) -> Operation:
    """Queue the operation if it is new and may start now, and return it."""
    if started.new and started.operation.not_before <= api.clock.now():
        send(api, started.operation)
    return started.operation
