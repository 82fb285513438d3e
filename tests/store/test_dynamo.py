"""The one way to DynamoDB: refusals by label, conflicts and throttles repeated within bounds, errors in our words.

Neither moto nor DynamoDB Local ever throttles or reports a conflict: those answers come from botocore's own events.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import EndpointConnectionError

from chalicelib.errors import StoreError, StoreUnavailable, Throttled, WriteConflict
from chalicelib.store import dynamo
from chalicelib.store.dynamo import (
    CONFLICT_DELAY,
    CONFLICT_TRIES,
    ConditionFailed,
    ConsumedCapacity,
    TransactionRefused,
    Write,
)
from chalicelib.store.stores import Stores
from chalicelib.store.tables import SCHEMA, LockRow, NamespaceRow

ABSENT = LockRow.pk.does_not_exist()
REQUEST_ID = "QHUOV1SOPI0RL0AO3JVC18P9J7VV4KQNSO5AEMVJF66Q9ASUAAJG"


def lock(name: str, holder: str = "op") -> LockRow:
    return LockRow(name, "-", operation_id=holder)


def put(name: str, holder: str = "op") -> Write:
    return dynamo.put(f"put {name}", lock(name, holder), ABSENT)


def holder(stores: Stores, name: str) -> str | None:
    found = stores.dynamo.get(LockRow, name, "-")
    return None if found is None else found.operation_id


@contextmanager
def answering(stores: Stores, operation: str, *answers: dict[str, Any] | None) -> Iterator[list[float]]:
    """The next calls of `operation` are answered so (the last answer for ever), None by the store itself; yields the
    moment of each call.
    """
    left, calls = list(answers), []

    def answer(**_: Any) -> Any:
        calls.append(stores.clock.now())
        said = left.pop(0) if len(left) > 1 else left[0]
        return None if said is None else (AWSResponse("", 400, HTTPHeaders(), None), said)

    events = stores.dynamo.client.meta.events
    events.register_first(f"before-call.dynamodb.{operation}", answer)
    try:
        yield calls
    finally:
        events.unregister(f"before-call.dynamodb.{operation}", answer)


def error(code: str, **more: Any) -> dict[str, Any]:
    return {
        "Error": {"Code": code, "Message": f"Request {REQUEST_ID} failed"},
        "ResponseMetadata": {"HTTPStatusCode": 400, "RequestId": REQUEST_ID},
        **more,
    }


def cancelled(*codes: str) -> dict[str, Any]:
    return error("TransactionCanceledException", CancellationReasons=[{"Code": code} for code in codes])


def test_refused_writes_are_named_in_order_with_their_items_and_nothing_is_written(stores: Stores) -> None:
    stores.dynamo.put(lock("taken", "other"))
    writes = [
        put("free"),
        put("taken"),
        dynamo.delete("delete", LockRow, "nobody", "-", LockRow.pk.exists()),
        dynamo.check("check", LockRow, "taken too", "-", ABSENT),
        dynamo.update("update", LockRow, "x", "-", [LockRow.operation_id.set("me")], LockRow.pk.exists()),
    ]

    with pytest.raises(TransactionRefused) as refused:
        stores.dynamo.transact(writes, token=stores.clock.new_id())

    assert list(refused.value.old) == ["put taken", "delete", "update"]
    assert str(refused.value) == "refused: put taken, delete, update"
    old = dynamo.load(LockRow, refused.value.old["put taken"])
    assert old is not None
    assert old.operation_id == "other"
    assert refused.value.old["delete"] is None
    assert [holder(stores, name) for name in ("free", "taken", "x")] == [None, "other", None]


def test_a_transaction_is_done_as_a_whole(stores: Stores) -> None:
    stores.dynamo.put(lock("old"))
    writes = [
        put("new"),
        dynamo.delete("delete", LockRow, "old", "-", LockRow.operation_id == "op"),
        dynamo.update("update", LockRow, "made", "-", [LockRow.operation_id.set("me")]),
        dynamo.check("check", LockRow, "nobody", "-", ABSENT),
    ]

    stores.dynamo.transact(writes, token=stores.clock.new_id())

    assert [holder(stores, name) for name in ("new", "old", "made")] == ["op", None, "me"]


def test_the_old_item_of_one_refused_write_comes_with_the_refusal(stores: Stores) -> None:
    stores.dynamo.put(lock("a", "first"), ABSENT)

    with pytest.raises(ConditionFailed) as put_refused:
        stores.dynamo.put(lock("a", "second"), ABSENT)
    with pytest.raises(ConditionFailed) as update_refused:
        stores.dynamo.update(LockRow, "a", "-", [LockRow.operation_id.set("x")], LockRow.operation_id == "second")
    with pytest.raises(ConditionFailed) as nothing:
        stores.dynamo.update(LockRow, "b", "-", [LockRow.operation_id.set("x")], LockRow.pk.exists())

    for refused in (put_refused, update_refused):
        old = dynamo.load(LockRow, refused.value.old)
        assert old is not None
        assert old.operation_id == "first"
    assert nothing.value.old is None


@pytest.mark.parametrize(
    "answer",
    [
        cancelled("None", "TransactionConflict"),
        error("TransactionInProgressException"),
        cancelled("ThrottlingError", "None"),
        cancelled("TransactionConflict", "ProvisionedThroughputExceeded"),
    ],
)
def test_a_conflict_is_repeated_after_a_growing_delay_until_it_is_over(stores: Stores, answer: dict[str, Any]) -> None:
    with answering(stores, "TransactWriteItems", answer, answer, answer, None) as calls:
        stores.dynamo.transact([put("a"), put("b")], token=stores.clock.new_id())

    pauses = [later - earlier for earlier, later in itertools.pairwise(calls)]
    assert pauses == pytest.approx([CONFLICT_DELAY, 2 * CONFLICT_DELAY, 4 * CONFLICT_DELAY], abs=1e-6)
    assert [holder(stores, name) for name in "ab"] == ["op", "op"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (cancelled("TransactionConflict"), WriteConflict),
        (error("TransactionConflictException"), WriteConflict),
        (cancelled("ThrottlingError"), Throttled),
    ],
)
def test_conflicts_without_end_are_given_up_after_a_bounded_number_of_tries(
    stores: Stores, answer: dict[str, Any], kind: type[StoreError]
) -> None:
    with (
        answering(stores, "TransactWriteItems", answer) as calls,
        pytest.raises(kind) as given_up,
    ):
        stores.dynamo.transact([put("a")], token=stores.clock.new_id())

    assert type(given_up.value) is kind
    assert len(calls) == CONFLICT_TRIES
    assert calls[-1] - calls[0] < 10
    assert holder(stores, "a") is None


def test_a_false_condition_beside_a_conflict_is_a_refusal(stores: Stores) -> None:
    answer = cancelled("TransactionConflict", "ConditionalCheckFailed")

    with answering(stores, "TransactWriteItems", answer) as calls, pytest.raises(TransactionRefused) as refused:
        stores.dynamo.transact([put("a"), put("b")], token=stores.clock.new_id())

    assert list(refused.value.old) == ["put b"]
    assert len(calls) == 1


def test_a_transaction_that_is_cancelled_for_another_reason_is_not_repeated(stores: Stores) -> None:
    with (
        answering(stores, "TransactWriteItems", cancelled("ItemCollectionSizeLimitExceeded", "None")) as calls,
        pytest.raises(StoreUnavailable, match="ItemCollectionSizeLimitExceeded"),
    ):
        stores.dynamo.transact([put("a"), put("b")], token=stores.clock.new_id())

    assert len(calls) == 1


REQUESTS: dict[str, Callable[[Stores], Any]] = {
    "GetItem": lambda s: s.dynamo.get(LockRow, "a", "-"),
    "Query": lambda s: s.dynamo.query(LockRow, "a"),
    "BatchGetItem": lambda s: s.dynamo.batch_get(LockRow, [("a", "-")]),
    "UpdateItem": lambda s: s.dynamo.update(LockRow, "a", "-", [LockRow.operation_id.set("x")]),
    "PutItem": lambda s: s.dynamo.put(lock("a")),
    "TransactWriteItems": lambda s: s.dynamo.transact([put("a")], token=s.clock.new_id()),
}


@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize(
    ("code", "kind", "status"),
    [
        ("ProvisionedThroughputExceededException", Throttled, 429),
        ("ThrottlingException", Throttled, 429),
        ("RequestLimitExceeded", Throttled, 429),
        ("InternalServerError", StoreUnavailable, 503),
        ("AccessDeniedException", StoreUnavailable, 503),
    ],
)
def test_what_aws_refuses_is_told_in_our_words_without_its_request_ids(
    stores: Stores, request_name: str, code: str, kind: type[StoreError], status: int
) -> None:
    with answering(stores, request_name, error(code)), pytest.raises(StoreUnavailable) as raised:
        REQUESTS[request_name](stores)

    assert type(raised.value) is kind
    assert (raised.value.status, raised.value.retry_after) == (status, 1)
    assert REQUEST_ID not in raised.value.text


@pytest.mark.parametrize("request_name", REQUESTS)
def test_a_store_that_does_not_answer_is_unavailable(stores: Stores, request_name: str) -> None:
    def lost(**_: Any) -> None:
        raise EndpointConnectionError(endpoint_url="http://10.0.0.1")

    stores.dynamo.client.meta.events.register_first(f"before-call.dynamodb.{request_name}", lost)

    with pytest.raises(StoreUnavailable, match="the store does not answer: try again in a moment"):
        REQUESTS[request_name](stores)


def test_many_keys_are_read_a_hundred_at_a_time(stores: Stores) -> None:
    for number in range(0, 230, 2):
        stores.dynamo.put(lock(f"n{number}"))

    with counted() as used:
        found = stores.dynamo.batch_get(LockRow, [(f"n{number}", "-") for number in range(230)])

    assert found.keys() == {(f"n{number}", "-") for number in range(0, 230, 2)}
    assert used.calls == 3
    assert stores.dynamo.batch_get(LockRow, []) == {}


@pytest.mark.parametrize("rounds", [1, CONFLICT_TRIES - 1])
def test_keys_that_were_not_processed_are_asked_for_again(stores: Stores, rounds: int) -> None:
    keys = [(f"n{number}", "-") for number in range(20)]
    for pk, _ in keys:
        stores.dynamo.put(lock(pk))
    asked = leaving_unprocessed(stores, rounds)
    before = stores.clock.now()

    found = stores.dynamo.batch_get(LockRow, keys)

    assert found.keys() == set(keys)
    assert len(asked) == rounds + 1
    assert asked[:2] == [20, 19]
    assert stores.clock.now() > before


def test_keys_that_are_never_processed_are_given_up(stores: Stores) -> None:
    stores.dynamo.put(lock("a"))
    stores.dynamo.put(lock("b"))
    asked = leaving_unprocessed(stores, 1000)

    with pytest.raises(Throttled):
        stores.dynamo.batch_get(LockRow, [("a", "-"), ("b", "-"), ("c", "-"), *((f"{n}", "-") for n in range(20))])

    assert len(asked) == CONFLICT_TRIES


def leaving_unprocessed(stores: Stores, rounds: int) -> list[int]:
    """The next `rounds` BatchGetItem answer one key each; the list fills with how many were asked for."""
    asked: list[int] = []
    held: list[Any] = []
    table = stores.dynamo.table("operations")

    def before(params: dict[str, Any], **_: Any) -> None:
        keys = params["RequestItems"][table]["Keys"]
        asked.append(len(keys))
        if len(asked) <= rounds:
            held.append(keys[1:])
            params["RequestItems"][table]["Keys"] = keys[:1]

    def after(parsed: dict[str, Any], **_: Any) -> None:
        if held:
            parsed["UnprocessedKeys"] = {table: {"Keys": held.pop(), "ConsistentRead": True}}

    events = stores.dynamo.client.meta.events
    events.register("provide-client-params.dynamodb.BatchGetItem", before)
    events.register("after-call.dynamodb.BatchGetItem", after)
    return asked


def test_an_item_of_a_newer_version_is_refused_rather_than_misread(stores: Stores) -> None:
    stores.dynamo.put(NamespaceRow("namespace", "n", state="active", body="{}", schema=SCHEMA + 1))

    with pytest.raises(StoreUnavailable, match="newer version"):
        stores.namespaces.get("n")


def test_attributes_that_this_version_does_not_know_are_ignored(stores: Stores) -> None:
    stores.dynamo.put(lock("a"))
    stores.dynamo.client.update_item(
        TableName=stores.dynamo.table("operations"),
        Key=dynamo.key("a", "-"),
        UpdateExpression="SET later = :x",
        ExpressionAttributeValues={":x": {"S": "?"}},
    )

    assert holder(stores, "a") == "op"


def test_a_query_goes_page_by_page_from_any_key_within_a_prefix(stores: Stores) -> None:
    for sk in ("a1", "a2", "a3", "b1", "b2"):
        stores.dynamo.put(LockRow("p", sk, operation_id="op"))

    def keys(**arguments: Any) -> tuple[list[str], str | None]:
        page = stores.dynamo.query(LockRow, "p", **arguments)
        return [row.sk for row in page.rows], page.next_key

    assert keys() == (["a1", "a2", "a3", "b1", "b2"], None)
    assert keys(limit=2) == (["a1", "a2"], "a2")
    assert keys(limit=2, after="a2") == (["a3", "b1"], "b1")
    assert keys(prefix="a") == (["a1", "a2", "a3"], None)
    assert keys(prefix="a", start="a2") == (["a2", "a3"], None)
    assert keys(prefix="b", start="a2") == (["b1", "b2"], None)
    assert keys(prefix="a", start="b") == ([], None)
    assert keys(start="a25", limit=1) == (["a3"], "a3")
    assert keys(prefix="a", start="a2", limit=1) == (["a2"], "a2")
    assert keys(prefix="a", start="a2", after="a2") == (["a3"], None)


@contextmanager
def counted() -> Iterator[ConsumedCapacity]:
    used = ConsumedCapacity()
    token = dynamo.consumed_capacity.set(used)
    try:
        yield used
    finally:
        dynamo.consumed_capacity.reset(token)


def test_calls_and_units_of_a_request_are_counted(stores: Stores) -> None:
    with counted() as used:
        stores.dynamo.put(lock("a"))
        stores.dynamo.get(LockRow, "a", "-")
        stores.dynamo.query(LockRow, "a")
        stores.dynamo.transact([put("b")], token=stores.clock.new_id())

    assert used.calls == 4
    assert used.units > 0  # moto counts in its own way; tests/conformance/test_costs.py has the real figures
