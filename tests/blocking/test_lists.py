"""Lists in process: pages and their tokens, what they read for it, what they refuse."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.plugin import Plugin
from chalicelib.domain.volume import Capability, Definition, Volume, VolumeState
from chalicelib.errors import RequestError
from chalicelib.service import listing
from chalicelib.service.listing import QUERY_COST, READ_BUDGET, STUB_BYTES, VolumePage, VolumeQuery
from chalicelib.settings import MAX_WAITS, Settings
from chalicelib.store import tables
from chalicelib.store import volumes as store
from chalicelib.store.tables import MemberRow
from chalicelib.wire import volumes as wire
from chalicelib.wire.gojson import encode
from tests.harness import System

SOME = Volume(
    namespace="default",
    id="",
    plugin_id="directory",
    definition=Definition(name="n", capabilities=(Capability("single-node-writer", "file-system"),)),
    modify_index=5,
)


def fill(system: System, *volumes: Volume) -> None:
    """Records and memberships, as the transactions leave them, without their index."""
    table = system.deps.dynamo.table("volumes")
    requests = []
    for volume in volumes:
        requests.append({"PutRequest": {"Item": store._row(volume).serialize()}})
        if volume.exists:
            member = MemberRow(tables.members_pk(volume.plugin_id), tables.member_sk(volume.namespace, volume.id))
            requests.append({"PutRequest": {"Item": member.serialize()}})
    for first in range(0, len(requests), 25):
        system.deps.dynamo.client.batch_write_item(RequestItems={table: requests[first : first + 25]})


def numbered(count: int, **fields: Any) -> list[Volume]:
    return [replace(SOME, id=f"v-{number:05}", **fields) for number in range(count)]


@pytest.fixture
def budget(many: bool, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many records a list may read: as it is in `make conformance`, a tenth of it in `make test`."""
    if not many:
        monkeypatch.setattr(listing, "READ_BUDGET", READ_BUDGET // 10)
    return listing.READ_BUDGET


@contextmanager
def reads(system: System) -> Iterator[list[tuple[str, int]]]:
    """Every read of volumes and memberships, with how many records it may return."""
    seen: list[tuple[str, int]] = []

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        if model.name == "Query":
            kind = params["ExpressionAttributeValues"][":pk"]["S"].partition("#")[0]
            seen.append((kind, params.get("Limit", 0)))
        if model.name == "BatchGetItem":
            seen.append(("batch", sum(len(asked["Keys"]) for asked in params["RequestItems"].values())))

    events = system.deps.dynamo.client.meta.events
    events.register("provide-client-params.dynamodb.*", note)
    try:
        yield seen
    finally:
        events.unregister("provide-client-params.dynamodb.*", note)


def ids(page: VolumePage) -> list[str]:
    return [volume.id for volume, _ in page.volumes]


def pages(system: System, query: VolumeQuery) -> list[list[str]]:
    """All pages from the first on, each by the token of the one before."""
    out = []
    while True:
        listed = listing.list_volumes(system.deps, query)
        out.append([f"{volume.namespace}.{volume.id}" for volume, _ in listed.volumes])
        if not listed.next_token:
            return out
        assert listed.next_token.split(".") > query.next_token.split(".")
        query = replace(query, next_token=listed.next_token)
        assert len(out) < 1000


def test_a_small_page_reads_one_record_more_than_it_shows(system: System) -> None:
    fill(system, *numbered(600))

    with reads(system) as whole:
        page = listing.list_volumes(system.deps, VolumeQuery(per_page=10))
    with reads(system) as of_plugin:
        same = listing.list_volumes(system.deps, VolumeQuery(per_page=10, plugin_id="directory"))
    with reads(system) as everywhere:
        star = listing.list_volumes(system.deps, VolumeQuery(per_page=10, plugin_id="directory", namespace="*"))

    assert whole == [("ns", 11)]
    assert of_plugin == everywhere == [("plugin", 11), ("batch", 11)]
    assert ids(page) == ids(same) == ids(star) == [f"v-{number:05}" for number in range(10)]
    assert page.next_token == same.next_token == star.next_token == "default.v-00010"


def test_a_page_over_tombstones_doubles_what_it_reads(system: System) -> None:
    fill(system, *numbered(100, state=VolumeState.GONE, modify_index=9), replace(SOME, id="w"), replace(SOME, id="x"))

    with reads(system) as seen:
        page = listing.list_volumes(system.deps, VolumeQuery(per_page=1))

    assert seen == [("ns", 2), ("ns", 4), ("ns", 8), ("ns", 16), ("ns", 32), ("ns", 64)]
    assert (ids(page), page.next_token) == (["w"], "default.x")


def test_an_index_is_above_everything_that_was_read_even_what_is_not_shown(system: System) -> None:
    fill(system, replace(SOME, id="a", modify_index=50), replace(SOME, id="b", modify_index=70, state=VolumeState.GONE))

    assert listing.list_volumes(system.deps, VolumeQuery()).index == 70
    assert listing.list_volumes(system.deps, VolumeQuery(matches=lambda v, p, spend: False)).index == 70


@pytest.mark.parametrize("per_page", [1, 3, 7, 100])
@pytest.mark.parametrize(
    "query",
    [
        VolumeQuery(namespace="*"),
        VolumeQuery(namespace="*", plugin_id="directory"),
        VolumeQuery(namespace="*", plugin_id="directory", prefix="v-0000"),
        VolumeQuery(namespace="*", plugin_id="d"),
        VolumeQuery(namespace="*", plugin_id="d", prefix="v-0000"),
        VolumeQuery(namespace="*", prefix="v-00001"),
        VolumeQuery(plugin_id="d"),
        VolumeQuery(matches=lambda volume, plugin, spend: volume.id.endswith(("1", "4"))),
        VolumeQuery(namespace="*", plugin_id="directory", matches=lambda volume, plugin, spend: volume.id > "v-00003"),
    ],
)
def test_pages_in_sequence_are_the_whole_list_in_order(system: System, query: VolumeQuery, per_page: int) -> None:
    for name in ("team", "team-a"):
        assert system.call("PUT", "/v1/namespace", {"Name": name}).status == 200
    system.add_plugin("disk")
    system.add_plugin("other")
    for namespace in ("default", "team", "team-a"):
        fill(system, *numbered(6, namespace=namespace))
        fill(system, replace(SOME, namespace=namespace, id="v-00001x", plugin_id="disk"))
        fill(system, replace(SOME, namespace=namespace, id="v-00002x", plugin_id="other"))

    whole = pages(system, query)
    found = pages(system, replace(query, per_page=per_page))

    assert len(whole) == 1
    assert whole[0] == sorted(whole[0], key=lambda name: name.split("."))
    assert len(whole[0]) >= 2
    assert [name for page in found for name in page] == whole[0]
    assert all(len(page) == per_page for page in found[:-1])


@pytest.mark.parametrize("per_page", [-1, -100])
def test_a_negative_page_is_empty_and_has_the_first_as_its_token(system: System, per_page: int) -> None:
    fill(system, *numbered(3))

    with reads(system) as seen:
        page = listing.list_volumes(system.deps, VolumeQuery(per_page=per_page))

    assert (ids(page), page.next_token) == ([], "default.v-00000")
    assert seen == [("ns", 2)]


@pytest.mark.parametrize(
    ("token", "found"),
    [
        ("default.v-00001", ["v-00001", "v-00002"]),
        ("default.v-00001a", ["v-00002"]),
        ("default.zzz", []),
        ("a.v-00002", ["v-00000", "v-00001", "v-00002"]),
        ("team.v-00000", []),
    ],
)
def test_a_token_need_not_exist(system: System, token: str, found: list[str]) -> None:
    fill(system, *numbered(3))

    assert ids(listing.list_volumes(system.deps, VolumeQuery(next_token=token))) == found


def test_a_filter_that_lets_few_through_ends_with_a_short_page_and_its_token(system: System, budget: int) -> None:
    fill(system, *numbered(budget + 100))

    def rare(volume: Volume, plugin: Plugin | None, spend: Callable[[int], None]) -> bool:
        return volume.id in ("v-00003", f"v-{budget + 50:05}")

    first = listing.list_volumes(system.deps, VolumeQuery(per_page=2, matches=rare))
    second = listing.list_volumes(system.deps, VolumeQuery(per_page=2, matches=rare, next_token=first.next_token))
    unpaged = listing.list_volumes(system.deps, VolumeQuery(matches=rare))

    assert (ids(first), first.next_token) == (["v-00003"], f"default.v-{budget - QUERY_COST:05}")
    assert (ids(second), second.next_token) == ([f"v-{budget + 50:05}"], "")
    assert ids(unpaged) == ids(first) + ids(second)


def test_tombstones_and_empty_namespaces_are_read_within_the_budget(system: System, budget: int) -> None:
    gone = [replace(volume, state=VolumeState.GONE) for volume in numbered(budget + 20)]
    fill(system, *gone, replace(SOME, id="w"))

    first = listing.list_volumes(system.deps, VolumeQuery(per_page=1))
    second = listing.list_volumes(system.deps, VolumeQuery(per_page=1, next_token=first.next_token))

    assert ids(first) == []
    assert first.next_token.startswith("default.v-0")
    assert (ids(second), second.next_token) == (["w"], "")


def test_what_a_filter_asks_for_itself_counts(system: System) -> None:
    fill(system, *numbered(30))

    def costly(volume: Volume, plugin: Plugin | None, spend: Callable[[int], None]) -> bool:
        spend(READ_BUDGET // 10)
        return True

    page = listing.list_volumes(system.deps, VolumeQuery(per_page=25, matches=costly))

    assert 9 <= len(page.volumes) <= 12
    assert page.next_token == f"default.v-{len(page.volumes):05}"


def test_a_list_that_takes_too_long_is_refused_and_a_page_ends_short(system: System) -> None:
    fill(system, *numbered(5))
    now = system.deps.clock.monotonic()

    def slow(volume: Volume, plugin: Plugin | None, spend: Callable[[int], None]) -> bool:
        system.deps.clock.sleep(10)
        return True

    page = listing.list_volumes(system.deps, VolumeQuery(per_page=4, matches=slow, until=now + 15))
    assert (ids(page), page.next_token) == (["v-00000", "v-00001"], "default.v-00002")
    with pytest.raises(RequestError, match="takes too long in one piece: ask for pages with per_page"):
        listing.list_volumes(system.deps, VolumeQuery(matches=slow, until=system.deps.clock.monotonic() + 15))


def test_a_namespace_that_cannot_be_finds_nothing(system: System) -> None:
    """The keys of the namespace `a` and a volume `b#c` are not those of a namespace `a#b` and a volume `c`."""
    fill(system, replace(SOME, namespace="a", id="b#c"))

    for path, query in (
        ("/v1/volumes", "type=csi&namespace=a%23b"),
        ("/v1/volumes", "type=csi&namespace=a%23b&plugin_id=directory"),
        ("/v1/volumes", "type=csi&namespace=a%23b&node_id=n"),
    ):
        assert json.loads(system.call("GET", path, query=query).body) == []
    assert system.call("GET", "/v1/volume/csi/c", query="namespace=a%23b").status == 404
    assert system.call("GET", "/v1/volume/csi/b%23c", query="namespace=a").status == 200


def test_a_page_without_a_filter_is_full_however_long_it_is(system: System) -> None:
    fill(system, *numbered(1200))

    page = listing.list_volumes(system.deps, VolumeQuery(per_page=1100))

    assert (len(page.volumes), page.next_token) == (1100, "default.v-01100")


def test_a_list_that_is_too_large_for_an_answer_is_refused_and_a_page_ends_short(system: System) -> None:
    fill(system, *numbered(30, definition=replace(SOME.definition, name="n" * 250_000)))

    refused = system.call("GET", "/v1/volumes", query="type=csi")
    page = system.call("GET", "/v1/volumes", query="type=csi&per_page=30")
    pretty = system.call("GET", "/v1/volumes", query="type=csi&per_page=30&pretty")

    assert refused.status == 413
    assert refused.body == "the list is larger than 5.0 MB: ask for pages with per_page"
    assert len(page.json) == 20
    assert page.headers["X-Nomad-Nexttoken"] == "default.v-00020"
    assert len(pretty.json) == 13
    rest = system.call("GET", "/v1/volumes", query="type=csi&next_token=default.v-00020")
    assert len(rest.json) == 10


def test_an_entry_is_never_larger_than_it_is_counted_and_not_much_smaller() -> None:
    large = replace(
        SOME,
        id='v-"\\\n☃' * 20,
        definition=replace(
            SOME.definition,
            name="ä" * 50,
            external_id="e" * 300,
            provider="csi.example.com",
            topologies=({"topology.example.com/zone": "a" * 40}, {}, {"a": "b", "c": "d"}),
        ),
        access_mode="multi-node-multi-writer",
        attachment_mode="block-device",
        create_index=2**62,
        modify_index=2**62,
        create_time=2**62,
        modify_time=2**62,
        readers=2**30,
        writers=2**30,
    )
    counts = {"controllers_healthy": 2**30, "controllers_expected": 2**30, "nodes_healthy": 1, "nodes_expected": 2**30}
    plugin = Plugin("directory", **counts)  # type: ignore[arg-type]

    for volume in (large, replace(SOME, id="a")):
        counted = STUB_BYTES + listing._text_bytes(volume)
        # As its function returns it: the body is a string of its answer.
        shown = len(json.dumps(encode(wire.stub(volume, plugin), pretty=False).decode()))
        assert shown <= counted <= 1.7 * shown, (shown, counted)


def test_the_number_of_waits_is_a_setting() -> None:
    assert Settings.from_env({}).max_waits == MAX_WAITS
    assert Settings.from_env({"MOORAGE_MAX_WAITS": "7"}).max_waits == 7
    for wrong in ("-1", "many", "1.5", ""):
        with pytest.raises(ValueError, match="MOORAGE_MAX_WAITS"):
            Settings.from_env({"MOORAGE_MAX_WAITS": wrong})


def test_a_list_is_json_of_one_line_per_default(system: System) -> None:
    fill(system, *numbered(2))

    body = system.call("GET", "/v1/volumes", query="type=csi").body

    assert [v["ID"] for v in json.loads(body)] == ["v-00000", "v-00001"]
    assert "\n" not in body
