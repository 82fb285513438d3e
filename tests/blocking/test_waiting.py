"""Blocking queries in process, with a clock of our own: who is woken by what, what a wait costs, how many may wait."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from chalicelib.domain.deadlines import WAIT_LIMIT
from chalicelib.errors import Throttled
from chalicelib.store.waits import LEASE_MARGIN, SAMPLE, WaitStore
from tests.harness import Reply, System, definition

ELSEWHERE = "elsewhere"


@pytest.fixture
def busy(system: System) -> System:
    """A volume `data` in `default`, and a namespace in another scope."""
    system.call("PUT", "/v1/namespace", {"Name": ELSEWHERE})
    register("data")(system)
    return system


def register(volume_id: str, namespace: str = "default") -> Callable[[System], Reply]:
    body = definition(volume_id, ExternalID=volume_id)
    return lambda s: s.call("PUT", f"/v1/volume/csi/{volume_id}", body, query=f"namespace={namespace}")


def deregister(volume_id: str) -> Callable[[System], Reply]:
    return lambda s: s.call("DELETE", f"/v1/volume/csi/{volume_id}")


def unhealthy(s: System) -> None:
    s.add_plugin(healthy=False)


def blocked(system: System, path: str, query: str, *, while_waiting: Callable[[System], object] | None) -> float:
    """Seconds that a reader waits who has just read the same URL, when something happens after three seconds."""
    first = system.call("GET", path, query=query)
    start = system.clock.moment
    pending = [while_waiting] if while_waiting else []

    def happen() -> None:
        if pending and system.clock.moment >= start + 3:
            pending.pop()(system)

    system.clock.on_sleep.append(happen)
    again = system.call("GET", path, query=f"{query}&index={first.headers['X-Nomad-Index']}")
    system.clock.on_sleep.remove(happen)
    assert not pending
    assert int(again.headers["X-Nomad-Index"]) >= int(first.headers["X-Nomad-Index"])
    return system.clock.moment - start


def test_a_list_after_a_wait_that_took_too_long_is_answered(busy: System) -> None:
    """On a machine that is late the wait must not use up the time of a list of one volume."""
    index = busy.call("GET", "/v1/volumes", query="type=csi").headers["X-Nomad-Index"]

    def late() -> None:
        busy.clock.moment += 4

    busy.clock.on_sleep.append(late)
    answer = busy.call("GET", "/v1/volumes", query=f"type=csi&index={index}&wait=25s")
    assert (answer.status, [volume["ID"] for volume in answer.json]) == (200, ["data"])


WAKES = {
    "a new volume": ("/v1/volumes", "type=csi", register("new")),
    "an update": ("/v1/volumes", "type=csi", register("data")),
    "a deletion": ("/v1/volumes", "type=csi", deregister("data")),
    "a list of one plugin": ("/v1/volumes", "type=csi&plugin_id=directory", register("new")),
    "a list of one prefix": ("/v1/volumes", "type=csi&prefix=da", deregister("data")),
    "a filtered list": ("/v1/volumes", 'type=csi&filter=Name=="data"', deregister("data")),
    "a page": ("/v1/volumes", "type=csi&per_page=1", register("a")),
    "all namespaces": ("/v1/volumes", "type=csi&namespace=*", register("new", ELSEWHERE)),
    "the health that a list shows": ("/v1/volumes", "type=csi", unhealthy),
    "a volume's update": ("/v1/volume/csi/data", "", register("data")),
    "a volume's deletion": ("/v1/volume/csi/data", "", deregister("data")),
    "a volume that is made": ("/v1/volume/csi/new", "", register("new")),
    "the plugins' health": ("/v1/plugins", "type=csi", unhealthy),
    "a plugin's health": ("/v1/plugin/csi/directory", "", unhealthy),
    "a plugin that comes": ("/v1/plugin/csi/other", "", lambda s: s.add_plugin("other")),
    "a namespace that comes": ("/v1/namespaces", "", lambda s: s.call("PUT", "/v1/namespace", {"Name": "n"})),
    "a namespace that goes": ("/v1/namespaces", "", lambda s: s.call("DELETE", f"/v1/namespace/{ELSEWHERE}")),
    "one namespace": (
        f"/v1/namespace/{ELSEWHERE}",
        "",
        lambda s: s.call("PUT", "/v1/namespace", {"Name": ELSEWHERE, "Description": "new"}),
    ),
}


@pytest.mark.parametrize("name", WAKES)
def test_a_reader_is_woken_within_a_poll_by_every_change_that_its_answer_shows(busy: System, name: str) -> None:
    path, query, change = WAKES[name]

    assert 3 <= blocked(busy, path, query, while_waiting=change) <= 5


@pytest.mark.parametrize(
    ("path", "query", "change"),
    [
        ("/v1/volume/csi/data", "", register("other")),
        ("/v1/volumes", "type=csi", lambda s: s.call("PUT", "/v1/namespace", {"Name": "n"})),
        ("/v1/volumes", f"type=csi&namespace={ELSEWHERE}", register("other")),
        ("/v1/volumes", "type=csi", None),
        ("/v1/volume/csi/data", "", None),
        ("/v1/volume/csi/nope", "", None),
        ("/v1/plugins", "type=csi", None),
        ("/v1/plugin/csi/directory", "", None),
        ("/v1/nodes", "", None),
        ("/v1/namespaces", "", None),
        (f"/v1/namespace/{ELSEWHERE}", "", None),
    ],
)
def test_a_reader_sleeps_to_the_end_of_its_wait_when_nothing_of_its_answer_changes(
    busy: System, path: str, query: str, change: Callable[[System], object] | None
) -> None:
    assert blocked(busy, path, query, while_waiting=change) == pytest.approx(WAIT_LIMIT, abs=0.5)


def test_a_plugin_without_instances_goes_with_its_last_volume_and_its_readers_hear_of_it(busy: System) -> None:
    busy.deps.plugins.change("directory", "node-a", None, now=busy.clock.now())

    assert blocked(busy, "/v1/plugins", "type=csi", while_waiting=deregister("data")) < 5
    assert busy.call("GET", "/v1/plugins", query="type=csi").json == []


@pytest.mark.parametrize(("wait", "seconds"), [("3s", 3), ("0s", 0), ("-5s", 0), ("10m", WAIT_LIMIT), ("", WAIT_LIMIT)])
def test_a_wait_ends_when_it_should(busy: System, wait: str, seconds: float) -> None:
    index = busy.call("GET", "/v1/volumes", query="type=csi").headers["X-Nomad-Index"]
    start = busy.clock.moment

    busy.call("GET", "/v1/volumes", query=f"type=csi&index={index}&wait={wait}")

    assert busy.clock.moment - start == pytest.approx(seconds, abs=0.1)


@pytest.mark.parametrize("index", ["0", "1", ""])
def test_an_index_that_is_passed_does_not_wait(busy: System, index: str) -> None:
    start = busy.clock.moment

    for path in ("/v1/volumes", "/v1/volume/csi/data", "/v1/plugins", "/v1/namespaces"):
        busy.call("GET", path, query=f"type=csi&index={index}&wait=20s")

    assert busy.clock.moment == start
    assert places_taken(busy) == 0


def test_an_index_of_the_future_waits_out(busy: System) -> None:
    start = busy.clock.moment

    reply = busy.call("GET", "/v1/volumes", query="type=csi&index=99999999&wait=2s")

    assert busy.clock.moment - start == pytest.approx(2, abs=0.1)
    assert int(reply.headers["X-Nomad-Index"]) < 99999999


@pytest.mark.parametrize(("path", "query"), [("/v1/volumes", "type=csi"), ("/v1/volume/csi/data", "")])
def test_an_idle_wait_costs_36_polls_and_three_requests_for_its_place(busy: System, path: str, query: str) -> None:
    """docs/lists-and-blocking.md gives these figures."""
    index = busy.call("GET", path, query=query).headers["X-Nomad-Index"]
    polls, others = 0, []

    def note(params: dict[str, object], model: object, **_: object) -> None:
        nonlocal polls
        name = str(getattr(model, "name", ""))
        if name == "GetItem" and params["ConsistentRead"] is False and "plugins" not in str(params["TableName"]):
            polls += 1
        else:
            others.append(name)

    events = busy.deps.dynamo.client.meta.events
    events.register("provide-client-params.dynamodb.*", note)
    busy.call("GET", path, query=f"{query}&index={index}")
    events.unregister("provide-client-params.dynamodb.*", note)

    assert polls == 36
    assert others[:3] == ["BatchGetItem", "PutItem", "DeleteItem"]
    assert len(others) <= 7


# How many may wait.


def test_who_waits_for_an_outcome_has_a_place_or_does_not_wait(busy: System) -> None:
    busy.pumping = False
    volume = {"ID": "late", "Name": "late", "PluginID": "directory"}
    volume["RequestedCapabilities"] = [  # type: ignore[assignment]
        {"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}
    ]
    begun = busy.call(
        "PUT", "/v1/volume/csi/late/create", {"Volumes": [volume]}, headers={"Prefer": "respond-async"}
    ).headers["Location"]
    for limit, seconds in ((0, 0.0), (SAMPLE, 10.0)):
        waits = limited(busy, limit)
        if limit:
            fill(busy, waits, 6)
        began = busy.clock.moment
        assert busy.call("GET", begun, query="wait=20s").json["Status"] == "pending"
        assert busy.clock.moment - began == pytest.approx(seconds, abs=1)


def places_taken(system: System) -> int:
    found = system.deps.dynamo.client.scan(
        TableName=system.deps.dynamo.table("meta"),
        FilterExpression="begins_with(pk, :wait)",
        ExpressionAttributeValues={":wait": {"S": "wait#"}},
    )
    return int(found["Count"])


def limited(system: System, limit: int) -> WaitStore:
    waits = WaitStore(system.deps.dynamo, limit=limit)
    system.deps = replace(system.deps, waits=waits)
    system.rewire(system.deps)
    return waits


def fill(system: System, waits: WaitStore, wanted: int, *, seconds: float = 25) -> None:
    """Take places until `wanted` are taken, as waiting readers in other containers would."""
    for number in itertools.count():
        if places_taken(system) >= wanted:
            return
        assert number < 50 * wanted
        waits.take(f"other-{number}", seconds=seconds, at=number % 97 / 97, now=system.clock.now())


def seconds_waited(system: System) -> float:
    index = system.call("GET", "/v1/volumes", query="type=csi").headers["X-Nomad-Index"]
    start = system.clock.moment
    assert system.call("GET", "/v1/volumes", query=f"type=csi&index={index}&wait=20s").status == 200
    return system.clock.moment - start


@pytest.mark.parametrize(("taken", "seconds"), [(0, 20.0), (4, 20.0), (5, 15.0), (6, 10.0), (7, 5.0), (8, 0.0)])
def test_the_more_places_are_taken_the_shorter_a_wait_down_to_none(busy: System, taken: int, seconds: float) -> None:
    waits = limited(busy, SAMPLE)
    fill(busy, waits, taken)

    assert seconds_waited(busy) == pytest.approx(seconds, abs=0.1)
    assert places_taken(busy) == taken


def test_no_more_readers_wait_than_there_are_places(busy: System) -> None:
    waits = limited(busy, 20)

    took = [waits.take(f"r{n}", seconds=25, at=n % 100 / 100, now=busy.clock.now()) for n in range(400)]

    assert sum(place is not None for place in took) == places_taken(busy) == 20
    assert {place.number for place in took if place} == set(range(20))


def test_without_places_nobody_waits_and_everybody_is_answered(busy: System) -> None:
    limited(busy, 0)

    assert seconds_waited(busy) == 0


def test_the_place_of_a_reader_that_died_is_free_when_its_lease_is_over(busy: System) -> None:
    waits = limited(busy, 1)
    dead = waits.take("dead", seconds=25, at=0, now=busy.clock.now())
    assert dead is not None
    assert seconds_waited(busy) == 0

    busy.clock.moment += 25 + LEASE_MARGIN

    assert seconds_waited(busy) == pytest.approx(20, abs=0.1)


def test_who_comes_late_does_not_free_what_another_holds_now(busy: System) -> None:
    waits = limited(busy, 1)
    late = waits.take("late", seconds=25, at=0, now=busy.clock.now())
    now = busy.clock.now() + 25 + LEASE_MARGIN
    assert late is not None
    assert waits.take("next", seconds=25, at=0, now=now) is not None

    waits.leave(late)

    assert waits.take("third", seconds=25, at=0, now=now) is None


@pytest.mark.parametrize("request_name", ["BatchGetItem", "DeleteItem"])
def test_a_store_that_throttles_places_does_not_fail_the_answer(busy: System, request_name: str) -> None:
    def throttled(model: object, **_: object) -> None:
        raise Throttled("the store is busy")

    event = f"provide-client-params.dynamodb.{request_name}"
    busy.deps.dynamo.client.meta.events.register(event, throttled)

    assert seconds_waited(busy) == (0 if request_name == "BatchGetItem" else pytest.approx(20, abs=0.1))
