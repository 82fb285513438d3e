"""Access to DynamoDB: PynamoDB's models and expressions, sent by one boto3 client in the order given.

PynamoDB's own client is not used (docs/decisions/002). It makes one client for each model, each with a cold start. It
returns the refused item from transactions only. And it reorders a transaction's items, so that the cancellation reasons
no longer tell which condition failed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

import boto3
import botocore.exceptions
from botocore.config import Config
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from chalicelib.errors import StoreUnavailable, Throttled, WriteConflict
from chalicelib.store.tables import ROWS, SCHEMA, Row

R = TypeVar("R", bound=Row)
Raw = Mapping[str, Any]

CONFIG: Final = Config(
    connect_timeout=1, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 4}, max_pool_connections=50
)
"""Limits of one call. A request has 29 s in all, so a lost connection is noticed in one second, a missing answer in
five. Each call is tried at most four times, with jitter.
"""
CONFLICT_TRIES: Final = 8
PK_LIMIT: Final = 2048
SK_LIMIT: Final = 1024
CONFLICT_DELAY: Final = 0.02
CONFLICT_TEXT: Final = "too many writers at once: try again in a moment"
_THROTTLES: Final = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "RequestLimitExceeded",
        "ThrottlingError",
        "ProvisionedThroughputExceeded",
    }
)
_TRANSIENT: Final = frozenset({"InternalServerError", "InternalFailure", "ServiceUnavailable"})
_CONFLICTS: Final = frozenset({"TransactionConflict", "TransactionConflictException", "TransactionInProgressException"})


class ConditionFailed(Exception):
    """The condition of a single write was false. `old` is the item as it stood, None if there was none."""

    def __init__(self, old: Raw | None) -> None:
        super().__init__("condition failed")
        self.old = old


class TransactionRefused(Exception):
    """Conditions of a transaction were false. `old` maps each refused write's label to the item as it stood."""

    def __init__(self, old: Mapping[str, Raw | None]) -> None:
        super().__init__("refused: " + ", ".join(old))
        self.old = old


@dataclass(frozen=True)
class Write:
    """One write of a transaction. `label` names it in a refusal."""

    label: str
    action: str
    arguments: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """Partition and sort key of the item."""
        item = self.arguments["Item" if self.action == "Put" else "Key"]
        return item["pk"]["S"], item["sk"]["S"]


@dataclass
class ConsumedCapacity:
    """Capacity units and calls of one request."""

    units: float = 0.0
    calls: int = 0


consumed_capacity: ContextVar[ConsumedCapacity | None] = ContextVar("consumed_capacity", default=None)
"""The counter of the current request. It is None outside of a request."""


@dataclass
class Page:
    """One page of a Query. The next page begins after the sort key `next_key`. It is None on the last page."""

    rows: list[Any] = field(default_factory=list)
    next_key: str | None = None


class Dynamo:
    """Access to all tables of one stage."""

    def __init__(
        self, table: Callable[[str], str], *, region: str, sleep: Callable[[float], None], jitter: Callable[[], float]
    ) -> None:
        self.table = table
        self.client: Any = boto3.client("dynamodb", region_name=region, config=CONFIG)
        self.client.meta.events.register("provide-client-params.dynamodb.*", _ask_for_capacity)
        self.client.meta.events.register("after-call.dynamodb.*", _count_capacity)
        self._sleep, self._jitter = sleep, jitter
        self.watchers: dict[str, Callable[[], None]] = {}
        """Functions by label: each is called after a transaction with a write of that label."""
        # PynamoDB keeps a table's name in the class of its rows, so it holds for the whole process. It may be that of
        # an earlier stage: what follows the last hyphen is the table.
        for row in ROWS:
            row.Meta.region = region
            row.Meta.table_name = table(row.Meta.table_name.rsplit("-", 1)[-1])

    def get(self, row: type[R], pk: str, sk: str, *, consistent: bool = True) -> R | None:
        """Return the item, or None. The read is strongly consistent by default."""
        if not _possible(pk, sk):
            return None
        with translate_errors():
            answer = self.client.get_item(TableName=row.Meta.table_name, Key=key(pk, sk), ConsistentRead=consistent)
        return load(row, answer.get("Item"))

    def query(
        self,
        row: type[R],
        pk: str,
        *,
        prefix: str = "",
        after: str | None = None,
        start: str | None = None,
        limit: int | None = None,
        consistent: bool = True,
    ) -> Page:
        """Return one page of a partition, in order of the sort key: after `after`, or from `start` on (inclusive)."""
        if not _possible(pk, prefix or "-"):
            return Page()
        if start is not None:
            start = start.encode()[:SK_LIMIT].decode(errors="ignore")
        values: dict[str, Any] = {":pk": {"S": pk}}
        condition = "pk = :pk"
        if start is not None and start > prefix:
            condition += " AND sk >= :start"
            values[":start"] = {"S": start}
        elif prefix:
            condition += " AND begins_with(sk, :prefix)"
            values[":prefix"] = {"S": prefix}
        arguments: dict[str, Any] = {
            "TableName": row.Meta.table_name,
            "KeyConditionExpression": condition,
            "ExpressionAttributeValues": values,
            "ConsistentRead": consistent,
        }
        if after is not None:
            arguments["ExclusiveStartKey"] = key(pk, after)
        if limit is not None:
            arguments["Limit"] = limit
        rows, last = self._query(row, arguments)
        # DynamoDB takes one condition on the sort key, start or prefix, so rows beyond the prefix are dropped here.
        if start is not None and prefix:
            inside = [r for r in rows if r.sk.startswith(prefix)]
            if len(inside) < len(rows):
                rows, last = inside, None
        return Page(rows, last)

    def backwards(self, row: type[R], pk: str, *, start: str | None, after: str | None, limit: int) -> Page:
        """Return one page of a partition in falling order, read strongly: below `after`, or from `start` on."""
        arguments: dict[str, Any] = {
            "TableName": row.Meta.table_name,
            "KeyConditionExpression": "pk = :pk" if start is None else "pk = :pk AND sk <= :start",
            "ExpressionAttributeValues": {":pk": {"S": pk}} | ({} if start is None else {":start": {"S": start}}),
            "ConsistentRead": True,
            "ScanIndexForward": False,
            "Limit": limit,
        }
        if after is not None:
            arguments["ExclusiveStartKey"] = key(pk, after)
        return Page(*self._query(row, arguments))

    def _query(self, row: type[R], arguments: dict[str, Any]) -> tuple[list[R], str | None]:
        """Return the rows of one page, and the sort key after which there may be more."""
        with translate_errors():
            answer = self.client.query(**arguments)
        rows = [loaded for item in answer["Items"] if (loaded := load(row, item)) is not None]
        last = answer.get("LastEvaluatedKey")
        return rows, last["sk"]["S"] if last else None

    def batch_get(
        self, row: type[R], keys: Sequence[tuple[str, str]], *, consistent: bool = True
    ) -> dict[tuple[str, str], R]:
        """Return those of the items that exist, by key. The read is strongly consistent by default.

        Keys that DynamoDB leaves unprocessed are asked for again, with growing delays. Raises Throttled when some are
        left after `CONFLICT_TRIES`.
        """
        rows: dict[tuple[str, str], R] = {}
        for first in range(0, len(keys), 100):  # AWS: BatchGetItem takes at most 100 keys
            asked = [key(pk, sk) for pk, sk in keys[first : first + 100] if _possible(pk, sk)]
            for attempt in range(CONFLICT_TRIES):
                asked = self._batch(row, asked, rows, consistent) if asked else []
                if not asked:
                    break
                self._pause(attempt)
            else:
                raise Throttled("the store is busy: try again in a moment")
        return rows

    def _batch(self, row: type[R], asked: list[Any], rows: dict[tuple[str, str], R], consistent: bool) -> list[Any]:
        """Read one batch into `rows`, and return the keys that were left unprocessed."""
        table = row.Meta.table_name
        with translate_errors():
            answer = self.client.batch_get_item(RequestItems={table: {"Keys": asked, "ConsistentRead": consistent}})
        for item in answer["Responses"].get(table, []):
            loaded = load(row, item)
            if loaded is not None:
                rows[loaded.pk, loaded.sk] = loaded
        return list(answer.get("UnprocessedKeys", {}).get(table, {}).get("Keys", []))

    def update(
        self, row: type[R], pk: str, sk: str, actions: Sequence[Action], condition: Condition | None = None
    ) -> R:
        """Update one item, and return it as it is then. Raises ConditionFailed with the old item."""
        arguments = _update_arguments(row, pk, sk, actions, condition)
        answer = self._alone(lambda: self.client.update_item(**arguments, ReturnValues="ALL_NEW"))
        loaded = load(row, answer["Attributes"])
        if loaded is None:  # pragma: no cover - ALL_NEW always has the item
            raise StoreUnavailable("the store answered without the item")
        return loaded

    def put(self, item: Row, condition: Condition | None = None) -> None:
        """Put one item. Raises ConditionFailed with the old item."""
        arguments = item.get_save_kwargs_from_instance(
            condition=condition, return_values_on_condition_failure="ALL_OLD"
        )
        self._alone(lambda: self.client.put_item(**arguments))

    def _alone(self, send: Callable[[], Any]) -> Any:
        """Make one write outside of a transaction, and repeat it while a transaction has the item.

        AWS refuses such a write with TransactionConflictException. Raises WriteConflict after `CONFLICT_TRIES`.
        """
        for attempt in range(CONFLICT_TRIES):
            try:
                with translate_errors():
                    return send()
            except _Cancelled:
                self._pause(attempt)
        raise WriteConflict(CONFLICT_TEXT)

    def write(self, writes: Sequence[Write], *, token: str) -> None:
        """Make all writes or none. Raises TransactionRefused with the old items by label.

        A single write is made without a transaction, for half of the capacity units. It needs no `token`: its own
        condition tells whether it was made before.
        """
        if len(writes) > 1:
            self.transact(writes, token=token)
            return
        (write,) = writes
        send = {"Put": self.client.put_item, "Update": self.client.update_item, "Delete": self.client.delete_item}
        try:
            self._alone(lambda: send[write.action](**write.arguments))
        except ConditionFailed as exc:
            raise TransactionRefused({write.label: exc.old}) from exc
        self._tell_watchers(writes)

    def transact(self, writes: Sequence[Write], *, token: str) -> None:
        """Make all writes or none, in one transaction. Raises TransactionRefused with the old items by label.

        `token` makes a repeat after a lost answer count once (AWS: ClientRequestToken, ten minutes). A transaction that
        conflicts with another is repeated. Raises WriteConflict or Throttled after `CONFLICT_TRIES`.
        """
        items = [{write.action: dict(write.arguments)} for write in writes]
        throttled = False
        for attempt in range(CONFLICT_TRIES):
            try:
                with translate_errors():
                    self.client.transact_write_items(TransactItems=items, ClientRequestToken=token)
            except _Cancelled as exc:
                # AWS gives one reason for each write, in the order of the writes.
                failed = {
                    write.label: reason.get("Item")
                    for write, reason in zip(writes, exc.reasons, strict=False)
                    if reason.get("Code") == "ConditionalCheckFailed"
                }
                if failed:
                    raise TransactionRefused(failed) from exc
                codes = {reason.get("Code") for reason in exc.reasons}
                if not codes & (_CONFLICTS | _THROTTLES):
                    raise StoreUnavailable(
                        "the store refused a transaction: " + ", ".join(sorted(str(c) for c in codes if c))
                    ) from exc
                throttled = bool(codes & _THROTTLES)
            else:
                self._tell_watchers(writes)
                return
            self._pause(attempt)
        if throttled:
            raise Throttled("the store is busy: try again in a moment")
        raise WriteConflict(CONFLICT_TEXT)

    def try_write(self, write: Write) -> bool:
        """Make one write, and return whether its condition was true."""
        try:
            self.write([write], token="")
        except TransactionRefused:
            return False
        return True

    def _tell_watchers(self, writes: Sequence[Write]) -> None:
        for label in self.watchers.keys() & {write.label for write in writes}:
            self.watchers[label]()

    def _pause(self, attempt: int) -> None:
        self._sleep(CONFLICT_DELAY * 2**attempt * (0.5 + self._jitter()))


def key(pk: str, sk: str) -> dict[str, dict[str, str]]:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def _possible(pk: str, sk: str) -> bool:
    """Return whether an item can have this key (AWS: partition key 1 to 2,048 bytes, sort key 1 to 1,024)."""
    return 0 < len(pk.encode()) <= PK_LIMIT and 0 < len(sk.encode()) <= SK_LIMIT


def load(row: type[R], item: Raw | None) -> R | None:
    """Return the row of a raw item, or None. Raises StoreUnavailable for an item that a newer version wrote."""
    if not item:
        return None
    loaded = row()
    known = {attribute.attr_name for attribute in row.get_attributes().values()}
    loaded.deserialize({name: value for name, value in item.items() if name in known})
    if loaded.schema > SCHEMA:
        raise StoreUnavailable("an item was written by a newer version of the control plane: deploy that version")
    return loaded


def update(
    label: str, row: type[Row], pk: str, sk: str, actions: Sequence[Action], condition: Condition | None = None
) -> Write:
    return Write(label, "Update", _update_arguments(row, pk, sk, actions, condition))


def put(label: str, item: Row, condition: Condition | None = None) -> Write:
    return Write(
        label,
        "Put",
        item.get_save_kwargs_from_instance(condition=condition, return_values_on_condition_failure="ALL_OLD"),
    )


def delete(label: str, row: type[Row], pk: str, sk: str, condition: Condition | None = None) -> Write:
    return Write(
        label,
        "Delete",
        row(pk, sk).get_delete_kwargs_from_instance(condition=condition, return_values_on_condition_failure="ALL_OLD"),
    )


def check(label: str, row: type[Row], pk: str, sk: str, condition: Condition) -> Write:
    arguments = row.get_operation_kwargs_from_class(pk, sk, condition=condition)
    return Write(label, "ConditionCheck", arguments | {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"})


def _update_arguments(
    row: type[Row], pk: str, sk: str, actions: Sequence[Action], condition: Condition | None
) -> dict[str, Any]:
    return row(pk, sk).get_update_kwargs_from_instance(
        actions=list(actions), condition=condition, return_values_on_condition_failure="ALL_OLD"
    )


class _Cancelled(WriteConflict):
    """A transaction was cancelled, or a write met one. It reaches a client only where no caller repeats the write."""

    def __init__(self, reasons: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(CONFLICT_TEXT)
        self.reasons = reasons


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise botocore's errors as the store's own. Their texts never repeat AWS's, which hold request IDs."""
    try:
        yield
    except botocore.exceptions.ClientError as exc:
        code = exc.response.get("Error", {}).get("Code", "")
        if code == "ConditionalCheckFailedException":
            raise ConditionFailed(cast(Raw | None, exc.response.get("Item"))) from exc
        if code == "TransactionCanceledException":
            raise _Cancelled(exc.response.get("CancellationReasons", [])) from exc
        if code in _CONFLICTS:
            raise _Cancelled([{"Code": "TransactionConflict"}]) from exc
        if code in _THROTTLES:
            raise Throttled("the store is busy: try again in a moment") from exc
        if code in _TRANSIENT:
            raise StoreUnavailable("the store does not answer: try again in a moment") from exc
        raise StoreUnavailable(f"the store refused a request: {code}") from exc
    except botocore.exceptions.BotoCoreError as exc:
        raise StoreUnavailable("the store does not answer: try again in a moment") from exc


def _ask_for_capacity(params: dict[str, Any], **_: Any) -> Any:
    return params | {"ReturnConsumedCapacity": "TOTAL"}


def _count_capacity(parsed: dict[str, Any], **_: Any) -> None:
    counter = consumed_capacity.get()
    if counter is None:
        return
    counter.calls += 1
    # AWS answers a list for batches and transactions, one entry for each table, and otherwise a single entry.
    capacity = parsed.get("ConsumedCapacity")
    for part in capacity if isinstance(capacity, list) else [capacity] if capacity else []:
        counter.units += part.get("CapacityUnits") or part.get("WriteCapacityUnits", 0) + part.get(
            "ReadCapacityUnits", 0
        )
