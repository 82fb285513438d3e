"""What the emulator keeps over a kill: every item that was answered for, transactions whole, and other services."""

import json
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra.local import clock
from infra.local.say import Trouble
from tests.e2e.api import wait_for
from tests.emulator.conftest import Running

KEPT_AFTER = 2.0
"""Seconds after which the state of other services than DynamoDB is on disk."""


def make_table(client: Any, name: str = "things") -> None:
    client.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in ("pk", "sk", "gk")],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by-gk",
                "KeySchema": [{"AttributeName": "gk", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        BillingMode="PAY_PER_REQUEST",
    )


def put(client: Any, pk: str, sk: str, **more: Any) -> None:
    client.put_item(TableName="things", Item={"pk": {"S": pk}, "sk": {"S": sk}, **more})


def everything(client: Any) -> list[Any]:
    found = client.scan(TableName="things", ConsistentRead=True)["Items"]
    return sorted(found, key=lambda item: (item["pk"]["S"], item["sk"]["S"]))


def test_items_of_every_type_survive_a_kill(start: Callable[[], Running]) -> None:
    running = start()
    client = running.client("dynamodb")
    make_table(client)
    every = {
        "s": {"S": "ä\x00\u2028"}, "n": {"N": "1.5"}, "b": {"B": b"\x00\xff"}, "ss": {"SS": ["a"]}, "ns": {"NS": ["1"]},
        "l": {"L": [{"M": {"x": {"NULL": True}}}]}, "t": {"BOOL": True}, "gk": {"S": "g"},
    }  # fmt: skip
    put(client, "p", "1", **every)
    put(client, "p", "2")
    client.update_item(
        TableName="things", Key={"pk": {"S": "p"}, "sk": {"S": "2"}}, UpdateExpression="SET x = :x",
        ExpressionAttributeValues={":x": {"N": "7"}},
    )  # fmt: skip
    put(client, "p", "3")
    client.delete_item(TableName="things", Key={"pk": {"S": "p"}, "sk": {"S": "3"}})
    before = everything(client)
    running.kill()
    running.restart()
    assert everything(client) == before
    assert [item["sk"]["S"] for item in before] == ["1", "2"]
    found = client.query(
        TableName="things", IndexName="by-gk", KeyConditionExpression="gk = :g",
        ExpressionAttributeValues={":g": {"S": "g"}},
    )  # fmt: skip
    assert [item["sk"]["S"] for item in found["Items"]] == ["1"]
    assert client.describe_table(TableName="things")["Table"]["ItemCount"] == 2


def test_other_services_survive_a_kill(start: Callable[[], Running]) -> None:
    running = start()
    key = running.client("kms").create_key()["KeyMetadata"]["KeyId"]
    sealed = running.client("kms").encrypt(KeyId=key, Plaintext=b"secret")["CiphertextBlob"]
    queue = running.client("sqs").create_queue(QueueName="work")["QueueUrl"]
    running.client("sqs").send_message(QueueUrl=queue, MessageBody="hello")
    running.client("ssm").put_parameter(Name="/deployed", Value="yes", Type="String")
    clock.sleep(KEPT_AFTER)
    running.kill()
    running.restart()
    assert running.client("kms").decrypt(CiphertextBlob=sealed)["Plaintext"] == b"secret"
    assert running.client("sqs").receive_message(QueueUrl=queue)["Messages"][0]["Body"] == "hello"
    assert running.client("ssm").get_parameter(Name="/deployed")["Parameter"]["Value"] == "yes"


def test_a_transaction_is_kept_as_a_whole_or_not_at_all(start: Callable[[], Running]) -> None:
    running = start()
    client = running.client("dynamodb")
    make_table(client)
    over = threading.Event()
    answered = -1

    def write() -> None:
        nonlocal answered
        number = 0
        while not over.is_set():
            items = [{"pk": {"S": f"p{n}"}, "sk": {"S": "x"}, "n": {"N": str(number)}} for n in range(20)]
            try:
                client.transact_write_items(TransactItems=[{"Put": {"TableName": "things", "Item": i}} for i in items])
            except Exception:  # noqa: BLE001 - the kill ends it, in one of many ways
                return
            answered, number = number, number + 1

    writer = threading.Thread(target=write)
    writer.start()
    clock.sleep(2.3)
    running.kill()
    over.set()
    writer.join()
    running.restart()
    kept = {item["n"]["N"] for item in everything(client)}
    assert len(kept) == 1
    assert int(kept.pop()) - answered in (0, 1)
    assert len(everything(client)) == 20


def test_a_table_that_was_made_again_has_nothing_of_the_earlier_one(start: Callable[[], Running]) -> None:
    running = start()
    client = running.client("dynamodb")
    make_table(client)
    put(client, "p", "old")
    clock.sleep(KEPT_AFTER)
    client.delete_table(TableName="things")
    make_table(client)
    put(client, "p", "new")
    clock.sleep(KEPT_AFTER)
    running.kill()
    running.restart()
    assert [item["sk"]["S"] for item in everything(client)] == ["new"]
    running.emulator.stop()
    with sqlite3.connect(running.settings.emulator_state / "items.sqlite") as database:
        assert database.execute("SELECT COUNT(*) FROM items").fetchone() == (1,)


def test_a_stop_in_order_keeps_what_was_answered_just_before(start: Callable[[], Running]) -> None:
    running = start()
    client = running.client("dynamodb")
    make_table(client)
    for name in ("1", "2", "3"):
        clock.sleep(0.15 * int(name))  # between two writes, and while one goes on
        put(client, "p", name, text={"S": "x" * 300_000})
        assert running.emulator.stop()
        assert not running.emulator.was_killed
        running.restart()
    assert [item["sk"]["S"] for item in everything(client)] == ["1", "2", "3"]
    running.kill()
    assert running.emulator.was_killed


def give_state_of_the_first_version(running: Running) -> Any:
    """Stop it and put one item where version 0.1.0 kept items: in MiniStack's own file, and nothing in SQLite."""
    make_table(running.client("dynamodb"))
    running.emulator.stop()
    file = running.settings.emulator_state / "dynamodb.json"
    state = json.loads(file.read_text())
    table = next(iter(state["payload"]["tables"]["data"].values()))
    table["items"] = {"p": {"s": {"pk": {"S": "p"}, "sk": {"S": "s"}}}}
    file.write_text(json.dumps(state))
    (running.settings.emulator_state / "items.sqlite").unlink()
    return state


def test_state_of_the_first_version_is_taken_over(start: Callable[[], Running]) -> None:
    running = start()
    give_state_of_the_first_version(running)
    running.restart()
    clock.sleep(KEPT_AFTER)
    running.kill()
    running.restart()
    assert everything(running.client("dynamodb")) == [{"pk": {"S": "p"}, "sk": {"S": "s"}}]


def test_items_of_the_first_version_are_in_sqlite_before_its_file_loses_them(start: Callable[[], Running]) -> None:
    """Each stop and each kill on the way from one to the other leaves them in one of the two."""
    running = start()
    state = give_state_of_the_first_version(running)
    file = running.settings.emulator_state / "dynamodb.json"
    running.restart()
    blocker = sqlite3.connect(running.settings.emulator_state / "items.sqlite")
    blocker.execute("BEGIN EXCLUSIVE")  # as a full disk would, before the next write
    try:
        held = blocker.execute("SELECT COUNT(*) FROM items").fetchone()[0]
        with suppress(ClientError):  # refused where the first write after the start has met the lock already
            running.client("dynamodb").update_time_to_live(
                TableName="things", TimeToLiveSpecification={"Enabled": True, "AttributeName": "t"}
            )
        clock.sleep(KEPT_AFTER)
        assert held == 1 or json.loads(file.read_text()) == state
    finally:
        blocker.rollback()
        blocker.close()


def test_state_that_cannot_be_read_ends_the_start_and_is_not_replaced(start: Callable[[], Running]) -> None:
    running = start()
    client = running.client("dynamodb")
    make_table(client)
    put(client, "p", "1")
    running.emulator.stop()
    file = running.settings.emulator_state / "dynamodb.json"
    whole = file.read_text()
    for broken in ("", whole[:-10], "[]", whole.replace('"payload"', '"other"')):
        file.write_text(broken)
        with pytest.raises(Trouble, match=r"dynamodb\.json"):
            running.restart()
        assert file.read_text() == broken
    file.write_text(whole)
    running.restart()
    assert [item["sk"]["S"] for item in everything(client)] == ["1"]


def test_an_end_that_could_not_write_all_is_not_in_order(start: Callable[[], Running]) -> None:
    running = start()
    running.client("sqs").create_queue(QueueName="work")
    clock.sleep(KEPT_AFTER)
    (running.settings.emulator_state / "sqs.json.unfinished").mkdir()  # as a full disk would
    running.client("sqs").create_queue(QueueName="more")
    assert not running.emulator.stop()
    assert running.emulator.was_killed
    (running.settings.emulator_state / "sqs.json.unfinished").rmdir()
    running.restart()
    assert len(running.client("sqs").list_queues()["QueueUrls"]) == 1


def test_what_cannot_be_written_is_not_acknowledged(start: Callable[[], Running]) -> None:
    """A full disk: calls are refused until it can be written again, and what was answered is not lost by it."""
    running = start()
    client = running.client("dynamodb")
    make_table(client)
    put(client, "p", "before")
    blocker = sqlite3.connect(running.settings.emulator_state / "items.sqlite")
    blocker.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ClientError, match="cannot be written"):
        put(client, "p", "meanwhile")
    blocker.rollback()
    blocker.close()

    def again() -> bool:
        try:
            put(client, "p", "after")
        except ClientError:
            return False
        return True

    wait_for(again, seconds=10)
    running.kill()
    running.restart()
    assert {"before", "after"} <= {item["sk"]["S"] for item in everything(client)}


def test_one_write_costs_as_much_among_thousands_of_items_as_among_few(start: Callable[[], Running]) -> None:
    """Bytes that the emulator has written for ten changes follow from what changed, not from what there is."""
    running = start()
    client = running.client("dynamodb")
    make_table(client)

    def ten_changes() -> int:
        clock.sleep(KEPT_AFTER)
        before = running.written()
        for n in range(10):
            put(client, "p", f"changed-{n}", text={"S": "x" * 1000})
        clock.sleep(KEPT_AFTER)
        return running.written() - before

    few = ten_changes()
    for batch in range(80):
        items = [{"pk": {"S": f"p{batch}"}, "sk": {"S": str(n)}, "text": {"S": "x" * 1000}} for n in range(25)]
        client.batch_write_item(RequestItems={"things": [{"PutRequest": {"Item": item}} for item in items]})
    many = ten_changes()
    assert few > 0
    assert many < 6 * few  # each change is in another page of the tree; two thousand are 200 times ten
