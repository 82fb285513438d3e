"""The services on DynamoDB Local, with as many volumes as wanted, put there directly."""

import itertools
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import boto3
import pytest

from chalicelib.domain.plugin import Instance, Node
from chalicelib.domain.volume import Capability, Definition, Volume
from chalicelib.service.deps import Deps
from chalicelib.settings import Settings
from chalicelib.store import tables
from chalicelib.store import volumes as store
from chalicelib.store.stores import open_stores
from chalicelib.store.tables import MemberRow
from chalicelib.store.waits import WaitStore
from tests.fakes.clock import FakeClock
from tests.harness import REGION, AgreeablePlugins, FakeQueue, make_tables

SOME = Volume(
    namespace="default",
    id="",
    plugin_id="p",
    definition=Definition(
        name="a volume like many",
        external_id="vol-0123456789abcdef0",
        capabilities=(Capability("multi-node-multi-writer", "file-system"),),
        parameters={"type": "fast", "encrypted": "true"},
        topologies=({"topology.example.com/zone": "zone-a"},),
    ),
    create_index=2,
    modify_index=2,
)


def services(address: str, monkeypatch: pytest.MonkeyPatch) -> Deps:
    """The services on empty tables, with a plugin that only mounts, on one node."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", address)
    settings, clock = Settings(stage=f"t{secrets.token_hex(4)}"), FakeClock()
    make_tables(settings)
    stores = open_stores(settings.table, region=REGION, clock=clock)
    node = Node("node-a", "a", "127.0.0.1:1", "key", "i", 1, clock.now(), plugin_ids=("p",))
    assert stores.plugins.put_node(node, digest="", read=None)
    instance = Instance("p", "node-a", "127.0.0.1:1", healthy=True, node=True)
    stores.plugins.change("p", "node-a", instance, now=clock.now())
    stores.storages.end_upgrade()  # the volumes that `load` puts are none of an older version
    assert stores.storages.upgraded()  # which is read once in each process
    return Deps(
        **stores.parts(),
        waits=WaitStore(stores.dynamo, limit=10),
        sealer=None,  # type: ignore[arg-type] # no secrets here
        queue=FakeQueue(),
        plugin_queries=AgreeablePlugins(),
        wait_seconds=25,
    )


def load(deps: Deps, numbers: range) -> None:
    """Volumes and their memberships as the transactions leave them, 25 items at a time, on a few connections."""
    table = deps.dynamo.table("volumes")
    volume = store._row(replace(SOME, id="x")).serialize()
    member = MemberRow(tables.members_pk("p"), tables.member_sk("default", "x")).serialize()

    def items() -> Iterator[dict[str, Any]]:
        for number in numbers:
            name = volume_id(number)
            yield volume | {"sk": {"S": name}}
            yield member | {"sk": {"S": tables.member_sk("default", name)}}

    client = boto3.client("dynamodb", region_name=REGION)

    def put(batch: list[dict[str, Any]]) -> None:
        left: Any = {table: [{"PutRequest": {"Item": item}} for item in batch]}
        while left:
            left = client.batch_write_item(RequestItems=left)["UnprocessedItems"]

    waiting = items()
    batches = iter(lambda: list(itertools.islice(waiting, 25)), [])
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(put, batches):
            pass


def volume_id(number: int) -> str:
    """Spread over the order of IDs, so that the new ones lie between the old ones."""
    return f"v-{(number * 7919) % 1_000_003:07}"
