"""Operations in their table: the durable records, and the writes that the engine and the requests make about them.

Every write of a result is fenced: it names the attempt it acquired, and a later attempt makes it fail with LeaseLost.

Whoever blocks on operations waits for a counter of their changes, an item of its own: it is counted on after each write
that changes what is shown, and read before the records. So a change that a reader did not see is counted later than
what it read. One whose writer died before it could count is counted with the operation's next change.
"""

import contextlib
import heapq
import json
import string
from collections.abc import Iterator
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
"""Records asked for at once in each of the 26 partitions of a list: a page of a hundred takes about four of each."""


LABEL: Final = "operation"
"""Of writes about an operation in a transaction."""


class OperationStore:
    """The operations of one stage."""

    def __init__(self, store: Dynamo) -> None:
        self._dynamo = store
        store.watchers[LABEL] = self._changed

    def changes(self, *, consistent: bool = True) -> int:
        """The index of what is read, strongly, after this; at least 1."""
        row = self._dynamo.get(ChangesRow, "operations", "changes", consistent=consistent)
        return 1 if row is None else int(row.number) + 1

    def get(self, operation_id: str, *, consistent: bool = True) -> Operation | None:
        row = self._dynamo.get(OperationRow, tables.operation_pk(operation_id), operation_id, consistent=consistent)
        return None if row is None else _operation(row)

    def acquire(self, operation: Operation, *, now: float, call: float, lease: float, grace: float) -> Operation:
        """Own the operation for one attempt that makes one call of at most `call` seconds; raises LeaseLost if
        another does.

        Written before the call: the attempt is counted, the call counts as unanswered, and `calls_until` says until
        when it may land.
        """
        # What was answered cannot land any more: only an unanswered call keeps its time.
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
        # The status too: the attempt that was read may have closed the record since, and a closed one stays closed.
        return self._seen(self._fenced(operation, actions, _mine(operation)))

    def checkpoint(
        self, operation: Operation, *, now: float, step: str, params: JsonObject | None = None, external_id: str = ""
    ) -> Operation:
        """Go on with `step`, since the call of this attempt was answered. The lease stays; what was learnt is kept."""
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
        return self._fenced(operation, actions, _mine(operation))

    def postpone(self, operation: Operation, *, now: float, until: float, last_error: str, answered: bool) -> None:
        """Nobody works on it before `until`; the waiting request or the sweeper sends it again then."""
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
        """Given up for now, in doubt: kept for ever, out of the sweeper's sight, can be resumed."""
        actions: list[Action] = [
            OperationRow.status.set(advance(operation.status, Event.EXHAUST).value),
            OperationRow.lease_until.set(0),
            OperationRow.last_error.set(last_error),
            OperationRow.update_time.set(now),
            OperationRow.due_bucket.remove(),
            OperationRow.due_at.remove(),
        ]
        self._seen(self._fenced(operation, actions, _mine(operation)))

    def resume(self, operation: Operation, *, now: float, secrets: bytes = b"") -> Operation:
        """Pending again, with fresh tries and, if given, other secrets; attempt numbers go on growing."""
        actions: list[Action] = [
            OperationRow.status.set(advance(operation.status, Event.RESUME).value),
            OperationRow.tries.set(0),
            OperationRow.not_before.set(0),
            OperationRow.due_bucket.set(tables.DUE_BUCKET),
            OperationRow.due_at.set(now + MESSAGE_GRACE),
            OperationRow.update_time.set(now),
            *_with_secrets(secrets),
        ]
        return self._seen(self._fenced(operation, actions, _mine(operation)))

    def bring_forward(self, operation: Operation, *, now: float, secrets: bytes = b"") -> Operation:
        """The next try is due now, with other secrets if they are given."""
        actions: list[Action] = [
            OperationRow.not_before.set(0),
            OperationRow.due_at.set(now + MESSAGE_GRACE),
            OperationRow.update_time.set(now),
            *_with_secrets(secrets),
        ]
        waits = _mine(operation) & (OperationRow.not_before == operation.not_before)
        return self._seen(self._fenced(operation, actions, waits))

    def hurry(self, operation: Operation, *, now: float) -> bool:
        """A message is about to be sent again: the next one not before a while; False if somebody else was faster."""
        condition = (OperationRow.due_at == operation.due_at) & (OperationRow.attempt == operation.attempt)
        try:
            self._fenced(operation, [OperationRow.due_at.set(now + MESSAGE_GRACE)], condition)
        except LeaseLost:
            return False
        return True

    def defer(self, operation: Operation, *, until: float, now: float) -> None:
        """Nobody looks at it before `until`, unless `call_up` says so; one that runs waits for its next step."""
        actions: list[Action] = [OperationRow.due_at.set(until), OperationRow.update_time.set(now)]
        if operation.status is Status.RUNNING:
            waits = advance(operation.status, Event.POSTPONE).value
            actions += [OperationRow.status.set(waits), OperationRow.lease_until.set(0)]
        self._seen(self._fenced(operation, actions, _mine(operation) & OperationRow.due_bucket.exists()))

    def call_up(self, operation_id: str, *, now: float) -> bool:
        """Due now: whoever waits for it sends its message, or else the next sweep does. False if it is not waiting."""
        condition = OperationRow.due_bucket.exists() & (OperationRow.lease_until <= now)
        pk = tables.operation_pk(operation_id)
        try:
            self._dynamo.update(OperationRow, pk, operation_id, [OperationRow.due_at.set(now)], condition)
        except ConditionFailed:
            return False  # over, or somebody works on it
        return True

    def due(self, now: float, *, limit: int = 100) -> list[Operation]:
        """Open operations that nobody seems to be working on, the longest waiting first (a GSI: late by moments, the
        sweeper repeats).
        """
        with dynamo.translated():
            answer = self._dynamo.client.query(
                TableName=OperationRow.Meta.table_name,
                IndexName=tables.DUE_GSI,
                KeyConditionExpression="due_bucket = :open AND due_at <= :now",
                ExpressionAttributeValues={":open": {"S": tables.DUE_BUCKET}, ":now": {"N": f"{now:.3f}"}},
                Limit=limit,
            )
        return [found for item in answer["Items"] if (found := operation_of(item)) is not None]

    def newest(self, *, start: str | None = None) -> Iterator[Operation]:
        """Every record that is kept, the newest first, from the ID `start` on: a lazy merge of the partitions."""
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
        """The operation, after whoever waits for changes has been told."""
        self._changed()
        return operation

    def _changed(self) -> None:
        # The write is done: that it is told late, when a wait ends by itself, must not make it fail.
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
    row = dynamo.load(OperationRow, raw)
    return None if row is None else _operation(row)


# What a transaction writes about an operation, together with its volume.


def open_operation(operation: Operation, *, now: float) -> Write:
    """The record of a new operation, before any message and any work."""
    return dynamo.put(LABEL, _row(operation, due_at=now + MESSAGE_GRACE), OperationRow.pk.does_not_exist())


def lock(operation: Operation) -> list[Write]:
    """The lock of an operation that no volume's record holds: whoever has the subject works on it."""
    row = LockRow(*_lock_key(operation), operation_id=operation.id)
    return [dynamo.put("lock", row, LockRow.pk.does_not_exist())]


def unlock(operation: Operation) -> list[Write]:
    """Free the lock, if this operation has one."""
    if not operation.subject:
        return []
    return [dynamo.delete("lock", LockRow, *_lock_key(operation), LockRow.operation_id == operation.id)]


def holder(raw: Raw | None) -> str:
    """The operation that holds a lock, of the raw item that refused it."""
    row = dynamo.load(LockRow, raw)
    return "" if row is None else str(row.operation_id)


def _lock_key(operation: Operation) -> tuple[str, str]:
    return tables.lock_pk(operation.subject), "-"


def succeed(operation: Operation, *, now: float, result: JsonObject) -> Write:
    """Over and done, fenced by the attempt."""
    return _close(operation, Event.SUCCEED, now, [OperationRow.result.set(_to_json(result))])


def fail(operation: Operation, *, now: float, error: str) -> Write:
    """Over with nothing left at the provider, fenced by the attempt."""
    return _close(operation, Event.FAIL, now, [OperationRow.error.set(error), OperationRow.last_error.set(error)])


def proceed(operation: Operation, *, now: float, step: str) -> Write:
    """The call of this attempt was answered: go on with `step`, keeping the lease; in a transaction of the caller."""
    actions: list[Action] = [
        OperationRow.step.set(step),
        OperationRow.unanswered.set(max(operation.unanswered - 1, 0)),
        OperationRow.tries.set(0),
        OperationRow.update_time.set(now),
    ]
    return _write(operation, actions, _mine(operation))


def undo(operation: Operation, *, now: float, step: str, error: str, until: float) -> Write:
    """The answer is known, but something may be left at the provider: go on with `step`, alone, from `until` on."""
    actions: list[Action] = [
        OperationRow.status.set(advance(operation.status, Event.POSTPONE).value),
        OperationRow.step.set(step),
        OperationRow.error.set(error),
        OperationRow.last_error.set(error),
        OperationRow.tries.set(0),
        OperationRow.unanswered.set(max(operation.unanswered - 1, 0)),
        OperationRow.not_before.set(until),
        OperationRow.due_at.set(until),
        OperationRow.lease_until.set(0),
        OperationRow.update_time.set(now),
    ]
    return _write(operation, actions, _mine(operation))


def cancel(operation: Operation, *, now: float, error: str) -> Write:
    """Over before any worker touched it; refused once one has."""
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
