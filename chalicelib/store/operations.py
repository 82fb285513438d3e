"""Operations in their table: the durable records, and the writes that workers and requests make about them.

Every write of a result is fenced: it names the attempt that it acquired. Once a later attempt has acquired the
operation, the write fails with LeaseLost.

A reader that blocks on operations waits for a counter of their changes, an item of its own. The counter is raised after
each write that changes what is shown, and it is read before the records. So a change that a reader did not see raises
the counter above what the reader got. If a writer dies in between, the operation's next change raises it.
"""

import contextlib
import heapq
import json
import string
from collections.abc import Iterator
from enum import Enum
from typing import Final

from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from chalicelib.domain.operation import (
    KEEP_FINISHED,
    MESSAGE_GRACE,
    Event,
    JsonObject,
    Kind,
    Operation,
    Status,
    advance,
)
from chalicelib.errors import LeaseLost, StoreError
from chalicelib.store import dynamo, tables
from chalicelib.store.dynamo import ConditionFailed, Dynamo, Raw, Write
from chalicelib.store.tables import ChangesRow, LockRow, OperationRow

FIRST_PAGE: Final = 8
NEXT_PAGE: Final = 50
"""Records that a list reads at once from each of its 26 partitions: a page of a hundred needs about four of each."""

LABEL: Final = "operation"
"""The label of an operation's write in a transaction."""


class Reason(Enum):
    """Why an operation is due at another time. `OperationStore.reschedule` has the conditions."""

    SEND = "its message is about to be sent"
    YIELD = "its worker cannot make its call now: another call has the turn, or no time is left"


class OperationStore:
    """The operations of one stage."""

    def __init__(self, store: Dynamo) -> None:
        self._dynamo = store
        store.watchers[LABEL] = self._changed

    def changes(self, *, consistent: bool = True) -> int:
        """Return the index, at least 1, of what is read strongly after this call."""
        row = self._dynamo.get(ChangesRow, "operations", "changes", consistent=consistent)
        return 1 if row is None else int(row.number) + 1

    def get(self, operation_id: str, *, consistent: bool = True) -> Operation | None:
        row = self._dynamo.get(OperationRow, tables.operation_pk(operation_id), operation_id, consistent=consistent)
        return None if row is None else _operation(row)

    def acquire(self, operation: Operation, *, now: float, call: float, lease: float, grace: float) -> Operation:
        """Acquire the operation for one attempt that makes one call of at most `call` seconds. Return it as written.

        This is written before the call. It counts the attempt, counts the call as unanswered, and sets `calls_until` to
        the time until which the call may land. Raises LeaseLost if another worker was faster.
        """
        # A call that was answered cannot land any more. Only an unanswered one keeps `calls_until` where it was.
        calls_until = max(operation.calls_until if operation.in_flight(now) else 0.0, now + call + grace)
        actions: list[Action] = [
            OperationRow.status.set(advance(operation.status, Event.ACQUIRE).value),
            OperationRow.attempt.set(operation.attempt + 1),
            OperationRow.tries.set(operation.tries + 1),
            OperationRow.unanswered.set(operation.in_flight(now) + 1),
            OperationRow.calls_until.set(calls_until),
            OperationRow.lease_until.set(now + lease),
            OperationRow.due_at.set(now + lease),
            OperationRow.update_time.set(now),
        ]
        # `_mine` compares the status too: the attempt that was read may have closed the record since.
        return self._seen(self._fenced(operation, actions, _mine(operation)))

    def checkpoint(
        self, operation: Operation, *, now: float, step: str, params: JsonObject | None = None, external_id: str = ""
    ) -> Operation:
        """Record the answer to this attempt's call, and continue with `step` under the same lease."""
        actions: list[Action] = [
            OperationRow.step.set(step),
            OperationRow.unanswered.set(max(operation.unanswered - 1, 0)),
            OperationRow.tries.set(0),
            OperationRow.update_time.set(now),
        ]
        if params is not None:
            actions.append(OperationRow.params.set(_to_json(params)))
        if external_id:
            actions.append(OperationRow.external_id.set(external_id))
        return self._seen(self._fenced(operation, actions, _mine(operation)))

    def postpone(self, operation: Operation, *, now: float, until: float, last_error: str, answered: bool) -> None:
        """End this attempt. Another may begin at `until` (epoch seconds).

        A request that waits for the operation sends its message then, or the sweeper does.
        """
        actions: list[Action] = [
            OperationRow.status.set(advance(operation.status, Event.POSTPONE).value),
            OperationRow.not_before.set(until),
            OperationRow.due_at.set(until),
            OperationRow.lease_until.set(0),
            OperationRow.last_error.set(last_error),
            OperationRow.unanswered.set(operation.unanswered - 1 if answered else operation.unanswered),
            OperationRow.update_time.set(now),
        ]
        self._seen(self._fenced(operation, actions, _mine(operation)))

    def exhaust(self, operation: Operation, *, now: float, last_error: str) -> None:
        """Leave the operation in doubt: it is kept, it is never due, and it can be resumed."""
        actions: list[Action] = [
            OperationRow.status.set(advance(operation.status, Event.EXHAUST).value),
            OperationRow.lease_until.set(0),
            OperationRow.last_error.set(last_error),
            OperationRow.update_time.set(now),
            # An item without the keys of an index (GSI) is not in it, so `due` does not find this one.
            OperationRow.due_bucket.remove(),
            OperationRow.due_at.remove(),
        ]
        self._seen(self._fenced(operation, actions, _mine(operation)))

    def resume(self, operation: Operation, *, now: float, secrets: bytes = b"") -> Operation:
        """Make an operation due that is in doubt or waits for its next try. Return it as it is then.

        One that was in doubt has fresh tries. Attempt numbers never begin again. `secrets` (sealed), if given, replace
        the stored ones. Raises LeaseLost if the operation changed since it was read.
        """
        actions: list[Action] = [
            OperationRow.not_before.set(0),
            OperationRow.due_at.set(now + MESSAGE_GRACE),
            OperationRow.update_time.set(now),
            *_with_secrets(secrets),
        ]
        condition = _mine(operation)
        if operation.status is Status.PENDING:
            condition &= OperationRow.not_before == operation.not_before
        else:
            actions += [
                OperationRow.status.set(advance(operation.status, Event.RESUME).value),
                OperationRow.tries.set(0),
                OperationRow.due_bucket.set(tables.DUE_BUCKET),
            ]
        return self._seen(self._fenced(operation, actions, condition))

    def reschedule(self, operation: Operation, reason: Reason, *, now: float, at: float | None = None) -> bool:
        """Make the operation due `at` epoch seconds, and return whether it was as it was read.

        `at` is by default when a message sent now must have arrived. With SEND, nothing else is written and no reader
        is woken, and False means that another process sent or acquired the operation. With YIELD, an operation that
        runs is pending again, without a lease, and False means that another process acquired or closed it.
        """
        actions: list[Action] = [OperationRow.due_at.set(now + MESSAGE_GRACE if at is None else at)]
        if reason is Reason.SEND:
            condition = (OperationRow.due_at == operation.due_at) & (OperationRow.attempt == operation.attempt)
        else:
            condition = _mine(operation) & OperationRow.due_bucket.exists()
            actions.append(OperationRow.update_time.set(now))
            if operation.status is Status.RUNNING:
                pending = advance(operation.status, Event.POSTPONE).value
                actions += [OperationRow.status.set(pending), OperationRow.lease_until.set(0)]
        try:
            self._fenced(operation, actions, condition)
        except LeaseLost:
            return False
        if reason is not Reason.SEND:
            self._changed()
        return True

    def wake(self, operation_id: str, *, now: float) -> bool:
        """Make an operation due that waited for a turn. Return False if it is over or a worker has it.

        The record need not be read for this. A request that waits for the operation sends its message, or the next
        sweep does.
        """
        condition = OperationRow.due_bucket.exists() & (OperationRow.lease_until <= now)
        pk = tables.operation_pk(operation_id)
        try:
            self._dynamo.update(OperationRow, pk, operation_id, [OperationRow.due_at.set(now)], condition)
        except ConditionFailed:
            return False
        return True

    def due(self, now: float, *, limit: int = 100) -> list[Operation]:
        """Return open operations that are due, the longest waiting first.

        They come from an index (GSI), which is late by moments: one that is missed is due at the next sweep too.
        """
        with dynamo.translate_errors():
            answer = self._dynamo.client.query(
                TableName=OperationRow.Meta.table_name,
                IndexName=tables.DUE_GSI,
                KeyConditionExpression="due_bucket = :open AND due_at <= :now",
                ExpressionAttributeValues={":open": {"S": tables.DUE_BUCKET}, ":now": {"N": f"{now:.3f}"}},
                Limit=limit,
            )
        return [operation for item in answer["Items"] if (operation := operation_of(item)) is not None]

    def newest(self, *, start: str | None = None) -> Iterator[Operation]:
        """Yield every record, the newest first, from the ID `start` on. Partitions are read only as far as needed."""
        streams = [self._partition(tables.operation_pk(letter), start) for letter in string.ascii_lowercase]
        return heapq.merge(*streams, key=lambda o: o.id, reverse=True)

    def _partition(self, pk: str, start: str | None) -> Iterator[Operation]:
        after, limit = None, FIRST_PAGE
        while True:
            page = self._dynamo.backwards(OperationRow, pk, start=start, after=after, limit=limit)
            yield from (_operation(row) for row in page.rows)
            if page.next_key is None:
                return
            after, limit = page.next_key, NEXT_PAGE

    def _seen(self, operation: Operation) -> Operation:
        """Raise the counter of changes, and return the operation."""
        self._changed()
        return operation

    def _changed(self) -> None:
        # The write is done. If its readers cannot be woken, their wait ends by itself; the write must not fail.
        with contextlib.suppress(StoreError):
            actions: list[Action] = [ChangesRow.number.add(1), ChangesRow.schema.set(tables.SCHEMA)]
            self._dynamo.update(ChangesRow, "operations", "changes", actions)

    def _fenced(self, operation: Operation, actions: list[Action], condition: Condition) -> Operation:
        pk = tables.operation_pk(operation.id)
        try:
            return _operation(self._dynamo.update(OperationRow, pk, operation.id, actions, condition))
        except ConditionFailed as exc:
            raise LeaseLost(operation.id) from exc


def operation_of(raw: Raw | None) -> Operation | None:
    """Return the operation of a raw item, as a refused transaction holds it."""
    row = dynamo.load(OperationRow, raw)
    return None if row is None else _operation(row)


# Writes of a transaction about an operation, together with its volume or claim.


def open_operation(operation: Operation, *, now: float) -> Write:
    """Put the record of a new operation. Its message is sent after this is written."""
    return dynamo.put(LABEL, _row(operation, due_at=now + MESSAGE_GRACE), OperationRow.pk.does_not_exist())


def lock(operation: Operation) -> list[Write]:
    """Lock the operation's subject, for operations that no volume's record holds."""
    row = LockRow(*_lock_key(operation), operation_id=operation.id)
    return [dynamo.put("lock", row, LockRow.pk.does_not_exist())]


def unlock(operation: Operation) -> list[Write]:
    """Delete the operation's lock, if it has one."""
    if not operation.subject:
        return []
    return [dynamo.delete("lock", LockRow, *_lock_key(operation), LockRow.operation_id == operation.id)]


def holder(raw: Raw | None) -> str:
    """Return the ID of the operation that holds a lock, from the raw item that refused another."""
    row = dynamo.load(LockRow, raw)
    return "" if row is None else str(row.operation_id)


def _lock_key(operation: Operation) -> tuple[str, str]:
    return tables.lock_pk(operation.subject), "-"


def succeed(operation: Operation, *, now: float, result: JsonObject) -> Write:
    """Close the operation with its result. The write is refused once another attempt has acquired it."""
    return _close(operation, Event.SUCCEED, now, [OperationRow.result.set(_to_json(result))])


def fail(operation: Operation, *, now: float, error: str) -> Write:
    """Close the operation with an error: the provider holds nothing that the records do not name."""
    return _close(operation, Event.FAIL, now, [OperationRow.error.set(error), OperationRow.last_error.set(error)])


def proceed(operation: Operation, *, now: float, step: str, external_id: str = "") -> Write:
    """Do in a transaction what `OperationStore.checkpoint` does alone."""
    actions: list[Action] = [
        OperationRow.step.set(step),
        OperationRow.unanswered.set(max(operation.unanswered - 1, 0)),
        OperationRow.tries.set(0),
        OperationRow.update_time.set(now),
    ]
    if external_id:
        actions.append(OperationRow.external_id.set(external_id))
    return _write(operation, actions, _mine(operation))


def undo(operation: Operation, *, now: float, step: str, error: str, until: float, answered: bool = True) -> Write:
    """Record the error for the client, and make `step`, which undoes, due at `until` (epoch seconds).

    `answered`: whether this attempt's call cannot land any more.
    """
    actions: list[Action] = [
        OperationRow.status.set(advance(operation.status, Event.POSTPONE).value),
        OperationRow.step.set(step),
        OperationRow.error.set(error),
        OperationRow.last_error.set(error),
        OperationRow.tries.set(0),
        OperationRow.unanswered.set(max(operation.unanswered - int(answered), 0)),
        OperationRow.not_before.set(until),
        OperationRow.due_at.set(until),
        OperationRow.lease_until.set(0),
        OperationRow.update_time.set(now),
    ]
    return _write(operation, actions, _mine(operation))


def cancel(operation: Operation, *, now: float, error: str) -> Write:
    """Close an operation that no worker has acquired. The write is refused once one has."""
    return _close(operation, Event.FAIL, now, [OperationRow.error.set(error), OperationRow.last_error.set(error)])


def _close(operation: Operation, event: Event, now: float, actions: list[Action]) -> Write:
    closing: list[Action] = [
        OperationRow.status.set(advance(operation.status, event).value),
        OperationRow.unanswered.set(max(operation.unanswered - 1, 0)),
        OperationRow.lease_until.set(0),
        OperationRow.update_time.set(now),
        OperationRow.expires_at.set(int(now) + KEEP_FINISHED),
        OperationRow.secrets.remove(),
        OperationRow.definition.remove(),
        OperationRow.due_bucket.remove(),
        OperationRow.due_at.remove(),
    ]
    return _write(operation, closing + actions, _mine(operation))


def _write(operation: Operation, actions: list[Action], condition: Condition) -> Write:
    return dynamo.update(LABEL, OperationRow, tables.operation_pk(operation.id), operation.id, actions, condition)


def _mine(operation: Operation) -> Condition:
    """Hold while the operation is in the attempt and the state in which it was read."""
    mine: Condition = (OperationRow.attempt == operation.attempt) & (OperationRow.status == operation.status.value)
    return mine


def _to_json(fields: JsonObject) -> str:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)


def _with_secrets(secrets: bytes) -> list[Action]:
    return [OperationRow.secrets.set(secrets)] if secrets else []


def _row(operation: Operation, *, due_at: float) -> OperationRow:
    return OperationRow(
        tables.operation_pk(operation.id),
        operation.id,
        kind=operation.kind.value,
        status=operation.status.value,
        step=operation.step,
        namespace=operation.namespace,
        volume_id=operation.volume_id,
        plugin_id=operation.plugin_id,
        digest=operation.digest,
        storage_name=operation.storage_name or None,
        external_id=operation.external_id or None,
        subject=operation.subject or None,
        definition=operation.definition or None,
        params=_to_json(operation.params),
        secrets=operation.sealed_secrets or None,
        calls_until=operation.calls_until,
        unanswered=operation.unanswered,
        not_before=operation.not_before,
        create_time=operation.create_time,
        update_time=operation.update_time,
        due_bucket=tables.DUE_BUCKET,
        due_at=max(due_at, operation.not_before),
    )


def _operation(row: OperationRow) -> Operation:
    return Operation(
        id=row.sk,
        kind=Kind(row.kind),
        namespace=row.namespace,
        volume_id=row.volume_id,
        plugin_id=row.plugin_id,
        digest=row.digest,
        step=row.step,
        status=Status(row.status),
        storage_name=row.storage_name or "",
        external_id=row.external_id or "",
        subject=row.subject or "",
        definition=row.definition or "",
        params=json.loads(row.params) if row.params else {},
        result=json.loads(row.result) if row.result else {},
        sealed_secrets=row.secrets or b"",
        attempt=int(row.attempt),
        tries=int(row.tries),
        unanswered=int(row.unanswered),
        calls_until=float(row.calls_until),
        lease_until=float(row.lease_until),
        not_before=float(row.not_before),
        due_at=float(row.due_at or 0),
        error=row.error or "",
        last_error=row.last_error or "",
        create_time=float(row.create_time),
        update_time=float(row.update_time),
    )
