"""Operations in their table: a result is written by the attempt that holds the record, or not at all."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.operation import KEEP_FINISHED, MESSAGE_GRACE, Kind, Operation, Status
from chalicelib.errors import LeaseLost
from chalicelib.store import operations as writes
from chalicelib.store.dynamo import TransactionRefused, Write
from chalicelib.store.stores import Stores
from tests.store.conftest import raw, together

NOW = 1_800_000_000.0
LEASE = 75.0
NEW = Operation(
    id="aaaop",
    kind=Kind.CREATE_SNAPSHOT,
    namespace="default",
    volume_id="data",
    plugin_id="directory",
    digest="d",
    step="create",
    subject="snapshot of data",
    params={"name": "x"},
    sealed_secrets=b"sealed",
    create_time=NOW,
    update_time=NOW,
)


def write(stores: Stores, *wanted: Write) -> None:
    stores.dynamo.transact(wanted, token=stores.clock.new_id())


def opened(stores: Stores, operation: Operation = NEW) -> Operation:
    write(stores, writes.open_operation(operation, now=NOW), *writes.lock(operation))
    return stored(stores, operation)


def stored(stores: Stores, operation: Operation = NEW) -> Operation:
    found = stores.operations.get(operation.id)
    assert found is not None
    return found


def acquire(stores: Stores, operation: Operation, now: float = NOW) -> Operation:
    return stores.operations.acquire(operation, now=now, call=60, lease=LEASE, grace=5)


def test_a_new_operation_is_pending_and_due_when_its_message_must_have_come(stores: Stores) -> None:
    found = opened(stores)

    assert found == replace(NEW, due_at=NOW + MESSAGE_GRACE)
    assert stores.operations.due(NOW + MESSAGE_GRACE - 1) == []
    assert stores.operations.due(NOW + MESSAGE_GRACE) == [found]


def test_an_operation_is_opened_once(stores: Stores) -> None:
    opened(stores)

    with pytest.raises(TransactionRefused) as refused:
        write(stores, writes.open_operation(NEW, now=NOW))

    assert writes.operation_of(refused.value.old["operation"]) == stored(stores)


def test_acquiring_counts_the_attempt_and_its_call_before_the_call_is_made(stores: Stores) -> None:
    acquired = acquire(stores, opened(stores))

    assert acquired == stored(stores)
    assert (acquired.status, acquired.attempt, acquired.tries, acquired.unanswered) == (Status.RUNNING, 1, 1, 1)
    assert (acquired.calls_until, acquired.lease_until, acquired.due_at) == (NOW + 65, NOW + LEASE, NOW + LEASE)


def test_calls_until_never_goes_back_and_only_calls_that_may_still_land_count(stores: Stores) -> None:
    first = acquire(stores, opened(stores))
    second = stores.operations.acquire(first, now=NOW + 10, call=1, lease=2, grace=1)
    third = stores.operations.acquire(second, now=NOW + 70, call=1, lease=2, grace=1)

    assert (second.unanswered, second.calls_until) == (2, NOW + 65)
    assert (third.unanswered, third.calls_until) == (1, NOW + 72)


def test_of_workers_that_read_the_same_record_one_acquires_it(stores: Stores) -> None:
    found = opened(stores)

    results = together(*(lambda: acquire(stores, found) for _ in range(6)))

    assert sum(isinstance(result, Operation) for result in results) == 1
    assert sum(isinstance(result, LeaseLost) for result in results) == 5
    assert stored(stores).attempt == 1


Result = Callable[[Stores, Operation], Any]
RESULTS: dict[str, Result] = {
    "checkpoint": lambda s, o: s.operations.checkpoint(o, now=NOW + 1, step="remove", external_id="e"),
    "postpone": lambda s, o: s.operations.postpone(o, now=NOW + 1, until=NOW + 9, last_error="busy", answered=True),
    "exhaust": lambda s, o: s.operations.exhaust(o, now=NOW + 1, last_error="no"),
    "succeed": lambda s, o: write(s, writes.succeed(o, now=NOW + 1, result={"index": 7})),
    "fail": lambda s, o: write(s, writes.fail(o, now=NOW + 1, error="no")),
    "undo": lambda s, o: write(s, writes.undo(o, now=NOW + 1, step="find", error="no", until=NOW + 9)),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_of_an_older_attempt_is_refused_and_changes_nothing(stores: Stores, name: str) -> None:
    older = acquire(stores, opened(stores))
    newer = acquire(stores, older, NOW + LEASE)

    with pytest.raises((LeaseLost, TransactionRefused)):
        RESULTS[name](stores, older)

    assert stored(stores) == newer
    RESULTS[name](stores, newer)
    assert stored(stores) != newer


@pytest.mark.parametrize("closing", ["succeed", "fail", "exhaust", "postpone"])
@pytest.mark.parametrize("late", [*RESULTS, "acquire"])
def test_what_a_worker_read_before_the_attempt_ended_gives_it_no_hold_on_the_record(
    stores: Stores, closing: str, late: str
) -> None:
    running = acquire(stores, opened(stores))
    RESULTS[closing](stores, running)
    after = stored(stores)

    with pytest.raises((LeaseLost, TransactionRefused)):
        RESULTS[late](stores, running) if late in RESULTS else acquire(stores, running, NOW + LEASE)

    assert stored(stores) == after


def test_a_checkpoint_goes_on_under_the_same_lease_with_its_call_answered(stores: Stores) -> None:
    acquired = acquire(stores, opened(stores))

    before = stores.operations.changes()
    after = stores.operations.checkpoint(acquired, now=NOW + 1, step="remove", external_id="e-1")
    assert stores.operations.changes() > before, "a reader sees the step, so it is woken"

    assert after == replace(acquired, step="remove", external_id="e-1", unanswered=0, tries=0, update_time=NOW + 1)


@pytest.mark.parametrize(("answered", "unanswered"), [(True, 0), (False, 1)])
def test_a_postponed_operation_is_due_later_and_its_call_counts_unless_it_was_answered(
    stores: Stores, answered: bool, unanswered: int
) -> None:
    acquired = acquire(stores, opened(stores))

    stores.operations.postpone(acquired, now=NOW + 1, until=NOW + 30, last_error="busy", answered=answered)

    found = stored(stores)
    assert (found.status, found.unanswered, found.lease_until) == (Status.PENDING, unanswered, 0)
    assert (found.not_before, found.last_error) == (NOW + 30, "busy")
    assert stores.operations.due(NOW + 29) == []
    assert stores.operations.due(NOW + 30) == [found]


def test_what_is_given_up_stays_for_ever_out_of_sight_and_can_be_resumed_once(stores: Stores) -> None:
    acquired = acquire(stores, opened(stores))
    stores.operations.exhaust(acquired, now=NOW + 1, last_error="no answer")
    given_up = stored(stores)

    assert (given_up.status, given_up.tries) == (Status.IN_DOUBT, 1)
    assert "expires_at" not in item(stores)
    assert stores.operations.due(NOW + 10**6) == []
    resumed = stores.operations.resume(given_up, now=NOW + 100)
    assert (resumed.status, resumed.attempt, resumed.tries) == (Status.PENDING, 1, 0)
    assert stores.operations.due(NOW + 100 + MESSAGE_GRACE) == [resumed]
    with pytest.raises(LeaseLost):
        stores.operations.resume(given_up, now=NOW + 101)


def test_an_operation_that_waits_for_its_next_try_is_resumed_once_with_its_tries_and_other_secrets(
    stores: Stores,
) -> None:
    stores.operations.postpone(
        acquire(stores, opened(stores)), now=NOW + 1, until=NOW + 500, last_error="busy", answered=True
    )
    waiting = stored(stores)

    resumed = stores.operations.resume(waiting, now=NOW + 2, secrets=b"others")

    assert resumed == replace(
        waiting, not_before=0, due_at=NOW + 2 + MESSAGE_GRACE, update_time=NOW + 2, sealed_secrets=b"others"
    )
    with pytest.raises(LeaseLost):
        stores.operations.resume(waiting, now=NOW + 3)
    assert stored(stores) == resumed


def test_a_worker_that_yields_gives_up_its_lease_and_a_stale_one_changes_nothing(stores: Stores) -> None:
    running = acquire(stores, opened(stores))

    assert stores.operations.reschedule(running, writes.Reason.YIELD, at=NOW + 40, now=NOW + 1)

    found = stored(stores)
    assert found == replace(running, status=Status.PENDING, lease_until=0, due_at=NOW + 40, update_time=NOW + 1)
    assert not stores.operations.reschedule(running, writes.Reason.YIELD, at=NOW + 50, now=NOW + 2)
    assert stored(stores) == found


def item(stores: Stores) -> dict[str, Any]:
    return raw(stores, "operations", "op#p", NEW.id)


@pytest.mark.parametrize("closing", ["succeed", "fail"])
def test_a_closed_operation_is_not_due_keeps_no_secrets_and_expires(stores: Stores, closing: str) -> None:
    RESULTS[closing](stores, acquire(stores, opened(stores)))

    found = stored(stores)
    assert not found.open
    assert found.sealed_secrets == b""
    assert found.unanswered == 0
    assert item(stores)["expires_at"] == {"N": str(int(NOW) + 1 + KEEP_FINISHED)}
    assert stores.operations.due(NOW + 10**6) == []
    assert (dict(found.result), found.error) == (({"index": 7}, "") if closing == "succeed" else ({}, "no"))


def test_an_undo_has_its_answer_and_goes_on_alone(stores: Stores) -> None:
    RESULTS["undo"](stores, acquire(stores, opened(stores)))

    found = stored(stores)
    assert (found.status, found.step, found.error) == (Status.PENDING, "find", "no")
    assert found.answered
    assert found.sealed_secrets == b"sealed"
    assert stores.operations.due(NOW + 9) == [found]


def test_one_of_several_sends_the_message_again(stores: Stores) -> None:
    found = opened(stores)
    now = found.due_at

    results = together(*(lambda: stores.operations.reschedule(found, writes.Reason.SEND, now=now) for _ in range(6)))

    assert sorted(results) == [False] * 5 + [True]
    assert stored(stores).due_at == now + MESSAGE_GRACE


def test_only_a_waiting_operation_is_woken(stores: Stores) -> None:
    found = opened(stores)
    assert stores.operations.reschedule(found, writes.Reason.YIELD, at=NOW + 500, now=NOW)
    assert stored(stores).due_at == NOW + 500

    assert stores.operations.wake(found.id, now=NOW + 1)
    assert stored(stores).due_at == NOW + 1
    running = acquire(stores, stored(stores), NOW + 2)
    assert not stores.operations.wake(found.id, now=NOW + 3)
    RESULTS["succeed"](stores, running)
    assert not stores.operations.wake(found.id, now=NOW + 3)
    assert not stores.operations.wake("nobody", now=NOW + 3)
    assert stores.operations.get("nobody") is None
    assert not stores.operations.reschedule(stored(stores), writes.Reason.YIELD, at=NOW + 500, now=NOW)


def test_a_subject_is_locked_by_one_open_operation_and_only_it_unlocks(stores: Stores) -> None:
    held, other = opened(stores), replace(NEW, id="bbbop")

    with pytest.raises(TransactionRefused) as refused:
        write(stores, writes.open_operation(other, now=NOW), *writes.lock(other))
    assert writes.holder(refused.value.old["lock"]) == held.id
    assert stores.operations.get(other.id) is None
    with pytest.raises(TransactionRefused):
        write(stores, *writes.unlock(other))

    running = acquire(stores, held)
    write(stores, writes.succeed(running, now=NOW, result={"index": 1}), *writes.unlock(running))
    opened(stores, other)
    assert writes.unlock(replace(other, subject="")) == []


def test_of_several_operations_on_one_subject_one_is_opened(stores: Stores) -> None:
    wanted = [replace(NEW, id=f"op{letter}") for letter in "abcdef"]

    results = together(*(lambda o=o: opened(stores, o) for o in wanted))

    winners = [result for result in results if isinstance(result, Operation)]
    assert len(winners) == 1
    refused = [result for result in results if isinstance(result, TransactionRefused)]
    assert len(refused) == 5
    assert {writes.holder(exc.old["lock"]) for exc in refused} == {winners[0].id}
    assert [o for o in wanted if stores.operations.get(o.id)] == [o for o in wanted if o.id == winners[0].id]


def test_due_operations_come_the_longest_waiting_first(stores: Stores) -> None:
    for number, letter in enumerate("cab"):
        operation = replace(NEW, id=f"op{letter}", subject="", not_before=NOW + 100 + number)
        write(stores, writes.open_operation(operation, now=NOW))

    assert [o.id for o in stores.operations.due(NOW + 101)] == ["opc", "opa"]
    assert [o.id for o in stores.operations.due(NOW + 200, limit=1)] == ["opc"]


def test_all_are_listed_the_newest_first_from_any_id_on(stores: Stores) -> None:
    ids = [f"{first}{last}" for first in "abcd" for last in "pqz"]
    for operation_id in ids:
        write(stores, writes.open_operation(replace(NEW, id=operation_id, subject=""), now=NOW))

    assert [o.id for o in stores.operations.newest()] == ids[::-1]
    assert [o.id for o in stores.operations.newest(start="bq")] == [i for i in ids[::-1] if i <= "bq"]
