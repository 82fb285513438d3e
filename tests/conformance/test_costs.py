"""What requests cost at 100, 10,000 and 100,000 volumes, in the capacity units that DynamoDB Local counts."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chalicelib.domain.claim import Claim
from chalicelib.service import claims, listing, volumes
from chalicelib.service.deps import Deps
from chalicelib.service.listing import VolumeQuery
from chalicelib.store.dynamo import ConsumedCapacity, consumed_capacity
from infra.local import dynamodb_local
from tests.bench.loaded import load, services, volume_id
from tests.harness import BUDGET
from tests.reporting import MEASURED

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


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("dynamodb")
    with dynamodb_local.running(folder) as url:
        yield url


@pytest.fixture
def deps(address: str, monkeypatch: pytest.MonkeyPatch) -> Deps:
    return services(address, monkeypatch)


def claim(deps: Deps, size: int) -> object:
    wanted = Claim(
        "default", volume_id(7), f"alloc-{size}", "node-a", "write", "multi-node-multi-writer", "file-system"
    )
    return claims.take(deps, wanted, BUDGET)


REQUESTS: dict[str, Callable[[Deps, int], object]] = {
    "page of 100": lambda d, s: full(listing.list_volumes(d, VolumeQuery(per_page=100))),
    "page of 40 from the middle": lambda d, s: full(
        listing.list_volumes(d, VolumeQuery(per_page=40, next_token="default.v-0400000")), 40
    ),
    "page of 100, all namespaces": lambda d, s: full(listing.list_volumes(d, VolumeQuery(namespace="*", per_page=100))),
    "page of 100 of a plugin": lambda d, s: full(listing.list_volumes(d, VolumeQuery(plugin_id="p", per_page=100))),
    "page of 10": lambda d, s: full(listing.list_volumes(d, VolumeQuery(per_page=10)), 10),
    "page of 10 through a filter": lambda d, s: full(
        listing.list_volumes(
            d, VolumeQuery(per_page=10, matches=lambda volume, plugin, spend: volume.definition.capacity == 0)
        ),
        10,
    ),
    "read": lambda d, s: volumes.read(d, "default", volume_id(42)),
    "read of what is not there": lambda d, s: volumes.read(d, "default", "nope"),
    "poll of a list": lambda d, s: listing.current(d, "default"),
    "claim": claim,
    "deregistration": lambda d, s: volumes.deregister(d, "default", volume_id(50 + SIZES.index(s))),
}


def full(listed: listing.VolumePage, count: int = 100) -> None:
    assert len(listed.volumes) == count


def cost(deps: Deps, size: int, request: Callable[[Deps, int], object]) -> ConsumedCapacity:
    used = ConsumedCapacity()
    token = consumed_capacity.set(used)
    try:
        request(deps, size)
    finally:
        consumed_capacity.reset(token)
    return used


def test_requests_cost_the_same_at_every_number_of_volumes(
    deps: Deps, record_property: Callable[[str, object], None]
) -> None:
    costs: dict[str, list[ConsumedCapacity]] = {name: [] for name in REQUESTS}
    loaded = 0
    for size in SIZES:
        load(deps, range(loaded, size + SPARE))
        loaded = size + SPARE
        for name, request in REQUESTS.items():
            costs[name].append(cost(deps, size, request))

    for name, found in costs.items():
        figures = "".join(f"{used.units:9.1f} units {used.calls:3} calls" for used in found)
        record_property(MEASURED, f"{name:28}{figures}")
    for name, found in costs.items():
        first = found[0]
        for used in found[1:]:
            assert abs(used.units - first.units) <= ALLOWED * first.units, name
            assert used.calls == first.calls, name
