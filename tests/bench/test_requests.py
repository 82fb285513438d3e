"""How long requests take, as multiples of one strong GetItem in the same process: a report, for comparing versions.

Times say little on a shared machine; their ratios say more. The services run in this process against DynamoDB Local
with 10,000 volumes, so what is measured is our code and its trips, not API Gateway or Lambda.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chalicelib.domain.volume import Definition, Volume
from chalicelib.service import listing, volumes
from chalicelib.service.deps import Deps
from chalicelib.service.listing import VolumeQuery
from chalicelib.store import volumes as store
from chalicelib.store.dynamo import ConsumedCapacity, consumed_capacity
from chalicelib.store.index import volume_scope
from infra.local import dynamodb_local
from tests.bench.loaded import SOME, load, services, volume_id

pytestmark = [pytest.mark.allow_hosts(["127.0.0.1", "localhost"]), pytest.mark.timeout(600)]
VOLUMES = 10_000
ROUNDS = 40
_IDS = itertools.count(1)


@pytest.fixture
def deps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deps]:
    with dynamodb_local.running(tmp_path) as url:
        built = services(url, monkeypatch)
        load(built, range(VOLUMES))
        yield built


def write(deps: Deps) -> None:
    """Allocate, write, publish: the index protocol around one transaction."""
    volume = Volume("default", f"w-{next(_IDS)}", "p", definition=Definition(capabilities=SOME.definition.capabilities))
    ticket = deps.index.allocate(volume_scope("default"), name=deps.clock.new_id(), now=deps.clock.now())
    deps.dynamo.transact(store.register(volume, ticket.index), token=ticket.id)
    deps.index.publish(ticket)


REQUESTS: dict[str, Callable[[Deps], object]] = {
    "one strong GetItem": lambda d: d.volumes.get("default", volume_id(3)),
    "read": lambda d: volumes.read(d, "default", volume_id(3)),
    "read of what is not there": lambda d: volumes.read(d, "default", "nope"),
    "poll of a blocked list": lambda d: listing.current(d, "default"),
    "write under the index protocol": write,
    "page of 10": lambda d: listing.list_volumes(d, VolumeQuery(per_page=10)),
    "page of 100": lambda d: listing.list_volumes(d, VolumeQuery(per_page=100)),
    "page of 100 of a plugin": lambda d: listing.list_volumes(d, VolumeQuery(per_page=100, plugin_id="p")),
    "page of 1,000": lambda d: listing.list_volumes(d, VolumeQuery(per_page=1000)),
}


def test_report_of_ratios(deps: Deps) -> None:
    times: dict[str, list[float]] = {name: [] for name in REQUESTS}
    used = {name: ConsumedCapacity() for name in REQUESTS}
    # Round by round, so that a slow moment of the machine falls on all alike.
    for _ in range(ROUNDS):
        for name, request in REQUESTS.items():
            token = consumed_capacity.set(used[name])
            start = time.perf_counter()
            request(deps)
            times[name].append(time.perf_counter() - start)
            consumed_capacity.reset(token)
    medians = {name: statistics.median(found) for name, found in times.items()}
    unit = medians["one strong GetItem"]

    print(f"\n{'request':34}{'times a GetItem':>16}{'calls':>8}{'units':>8}")
    for name, median in medians.items():
        print(f"{name:34}{median / unit:16.1f}{used[name].calls / ROUNDS:8.1f}{used[name].units / ROUNDS:8.1f}")
    assert all(used[name].calls >= ROUNDS for name in REQUESTS)
    assert medians["page of 1,000"] > medians["page of 10"], "the clock or the list is broken"
