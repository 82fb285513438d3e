"""One store on moto, or with `--against=local` on the DynamoDB Local at DYNAMODB_LOCAL_URL: the tests are the same.

Moto's transactions are not safe for threads; there a lock makes each request atomic, as DynamoDB's are, so threads
still meet between any two requests.
"""

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from chalicelib.settings import Settings
from chalicelib.store.dynamo import Dynamo
from chalicelib.store.stores import Stores, open_stores
from infra.local.settings import tool_environment
from tests.fakes.clock import FakeClock
from tests.harness import REGION, make_tables

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """DynamoDB Local is on this machine's loopback."""
    if config.getoption("--against") == "local":
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.allow_hosts(["127.0.0.1", "localhost"]))


def raw(stores: Stores, table: str, pk: str, sk: str) -> dict[str, Any]:
    """The item as DynamoDB has it; empty when there is none."""
    found = stores.dynamo.client.get_item(
        TableName=stores.dynamo.table(table), Key={"pk": {"S": pk}, "sk": {"S": sk}}, ConsistentRead=True
    )
    return dict(found.get("Item", {}))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def stores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> Iterator[Stores]:
    """Everything that keeps something, on tables of its own."""
    where = _on_dynamodb_local if request.config.getoption("--against") == "local" else _on_moto
    with where(monkeypatch) as settings:
        built = open_stores(settings.table, region=REGION, clock=clock)
        if where is _on_moto:
            _one_at_a_time(built.dynamo, monkeypatch)
        yield built


@contextmanager
def _on_moto(monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    settings = Settings(stage="test")
    with mock_aws():
        make_tables(settings)
        yield settings


@contextmanager
def _on_dynamodb_local(monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    url = tool_environment().get("DYNAMODB_LOCAL_URL")
    assert url, "--against=local needs DYNAMODB_LOCAL_URL: `make conformance` starts DynamoDB Local and sets it"
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
    settings = Settings(stage=f"t{secrets.token_hex(4)}")
    make_tables(settings)
    yield settings
    client = boto3.client("dynamodb", region_name=REGION)
    for name in client.list_tables()["TableNames"]:
        if name.startswith(settings.table("")):
            client.delete_table(TableName=name)


def _one_at_a_time(dynamo: Dynamo, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, send = threading.Lock(), dynamo.client._make_api_call

    def one(*args: Any) -> Any:
        with lock:
            return send(*args)

    monkeypatch.setattr(dynamo.client, "_make_api_call", one)


def together(*actions: Callable[[], Any]) -> list[Any]:
    """What the actions return, or the exceptions they raise, when all start at once in threads."""
    start = threading.Barrier(len(actions))
    results: list[Any] = [None] * len(actions)

    def run(number: int) -> None:
        start.wait(timeout=30)
        try:
            results[number] = actions[number]()
        except Exception as exc:  # noqa: BLE001 - the test looks at it
            results[number] = exc

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    return results
