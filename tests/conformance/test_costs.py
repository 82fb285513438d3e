"""What requests cost at 100, 10,000 and 100,000 volumes, in the capacity units that DynamoDB Local counts."""

import itertools
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from chalicelib.domain.claim import Claim
from chalicelib.domain.plugin import Instance, Node
from chalicelib.domain.volume import Capability, Volume
from chalicelib.service import claims, listing, volumes
from chalicelib.service.deps import Deps
from chalicelib.service.listing import Query
from chalicelib.settings import Settings
from chalicelib.store import tables
from chalicelib.store import volumes as store
from chalicelib.store.claims import ClaimStore
from chalicelib.store.dynamo import Consumed, Dynamo, consumed
from chalicelib.store.index import IndexStore
from chalicelib.store.namespaces import NamespaceStore
from chalicelib.store.operations import OperationStore
from chalicelib.store.plugins import PluginStore
from chalicelib.store.tables import MemberRow
from chalicelib.store.volumes import VolumeStore
from chalicelib.store.waits import WaitStore
from infra.local import dynamodb_local
from tests.fakes.clock import FakeClock
from tests.harness import REGION, FakeQueue, NoAsker, make_tables

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.allow_hosts(["127.0.0.1", "localhost"]),
    pytest.mark.timeout(600),
]
SIZES = (100, 10_000, 100_000)
SPARE = 10
"""More than are deregistered on the way, so that a page of 100 is full."""
ALLOWED = 0.2
"""Share by which a cost may differ from the smallest size's."""
SOME = Volume(
    namespace="default",
    id="",
    plugin_id="p",
    name="a volume like many",
    external_id="vol-0123456789abcdef0",
    capabilities=(Capability("multi-node-multi-writer", "file-system"),),
    parameters={"type": "fast", "encrypted": "true"},
    topologies=({"topology.example.com/zone": "zone-a"},),
    create_index=2,
    modify_index=2,
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("dynamodb")
    with dynamodb_local.running(folder) as url:
        yield url


@pytest.fixture
def deps(address: str, monkeypatch: pytest.MonkeyPatch) -> Deps:
    """The services on empty tables, with a plugin that only mounts, on one node."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", address)
    settings, clock = Settings(stage=f"t{secrets.token_hex(4)}"), FakeClock()
    make_tables(settings)
    dynamo = Dynamo(settings.table, region=REGION, sleep=clock.sleep, jitter=clock.jitter)
    index = IndexStore(dynamo)
    plugins = PluginStore(dynamo, index)
    assert plugins.put_node(
        Node("node-a", "a", "127.0.0.1:1", "key", "i", 1, clock.now(), plugin_ids=("p",)), digest="", read=None
    )
    plugins.change(
        "p", "node-a", Instance("p", "node-a", "127.0.0.1:1", healthy=True, node=True), run="r", now=clock.now()
    )
    return Deps(
        clock=clock,
        dynamo=dynamo,
        index=index,
        volumes=VolumeStore(dynamo),
        claims=ClaimStore(dynamo),
        operations=OperationStore(dynamo),
        plugins=plugins,
        namespaces=NamespaceStore(dynamo),
        waits=WaitStore(dynamo, limit=10),
        sealer=None,  # type: ignore[arg-type] # no secrets here
        queue=FakeQueue(),  # type: ignore[arg-type]
        asker=NoAsker(),  # type: ignore[arg-type]
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


def claim(deps: Deps, size: int) -> object:
    wanted = Claim(
        "default", volume_id(7), f"alloc-{size}", "node-a", "write", "multi-node-multi-writer", "file-system"
    )
    return claims.take(deps, wanted)


REQUESTS: dict[str, Callable[[Deps, int], object]] = {
    "page of 100": lambda d, s: full(listing.list_volumes(d, Query(per_page=100))),
    "page of 40 from the middle": lambda d, s: full(
        listing.list_volumes(d, Query(per_page=40, next_token="default.v-0400000")), 40
    ),
    "page of 100, all namespaces": lambda d, s: full(listing.list_volumes(d, Query(namespace="*", per_page=100))),
    "page of 100 of a plugin": lambda d, s: full(listing.list_volumes(d, Query(plugin_id="p", per_page=100))),
    "page of 10": lambda d, s: full(listing.list_volumes(d, Query(per_page=10)), 10),
    "page of 10 through a filter": lambda d, s: full(
        listing.list_volumes(d, Query(per_page=10, matches=lambda volume, plugin: volume.capacity == 0)), 10
    ),
    "read": lambda d, s: volumes.read(d, "default", volume_id(42)),
    "read of what is not there": lambda d, s: volumes.read(d, "default", "nope"),
    "poll of a list": lambda d, s: listing.current(d, "default"),
    "claim": claim,
    "deregistration": lambda d, s: volumes.deregister(d, "default", volume_id(50 + SIZES.index(s))),
}


def full(listed: listing.Listed, count: int = 100) -> None:
    assert len(listed.volumes) == count


def cost(deps: Deps, size: int, request: Callable[[Deps, int], object]) -> Consumed:
    used = Consumed()
    token = consumed.set(used)
    try:
        request(deps, size)
    finally:
        consumed.reset(token)
    return used


def test_requests_cost_the_same_at_every_number_of_volumes(deps: Deps) -> None:
    costs: dict[str, list[Consumed]] = {name: [] for name in REQUESTS}
    loaded = 0
    for size in SIZES:
        load(deps, range(loaded, size + SPARE))
        loaded = size + SPARE
        for name, request in REQUESTS.items():
            costs[name].append(cost(deps, size, request))

    print()  # noqa: T201
    for name, found in costs.items():
        figures = "".join(f"{used.units:9.1f} units {used.calls:3} calls" for used in found)
        print(f"{name:28}{figures}")  # noqa: T201
    for name, found in costs.items():
        first = found[0]
        for used in found[1:]:
            assert abs(used.units - first.units) <= ALLOWED * first.units, name
            assert used.calls == first.calls, name
