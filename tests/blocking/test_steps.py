"""The real code makes the requests that the explorer's table names, in that order, and nothing between them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.harness import System, definition

INDEX = "index item"
VOLUME = "volume"
ALLOCATE = ("UpdateItem", INDEX, "allocate")
PUBLISH = ("UpdateItem", INDEX, "publish")
ABANDON = ("UpdateItem", INDEX, "abandon")
WRITE = ("TransactWriteItems", VOLUME, "strong")
WRITE_ALONE = ("PutItem", VOLUME, "alone")
LOOK = ("GetItem", VOLUME, "strong")
WATCH = ("GetItem", INDEX, "strong")
POLL_INDEX = ("GetItem", INDEX, "eventual")
POLL_VOLUME = ("GetItem", VOLUME, "eventual")
STORAGE = ("GetItem", "storage", "strong")
QUERY = ("Query", VOLUME, "strong")
Step = tuple[str, str, str]


@contextmanager
def steps(system: System) -> Iterator[list[Step]]:
    """What is asked of DynamoDB about volumes and indexes, in order."""
    seen: list[Step] = []

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        step = _step(model.name, params)
        if step is not None:
            seen.append(step)

    events = system.deps.dynamo.client.meta.events
    events.register("provide-client-params.dynamodb.*", note)
    try:
        yield seen
    finally:
        events.unregister("provide-client-params.dynamodb.*", note)


def _step(name: str, params: dict[str, Any]) -> Step | None:
    if name == "TransactWriteItems":
        return WRITE
    table = params.get("TableName", "")
    how = "alone" if name == "PutItem" else "strong" if params.get("ConsistentRead") else "eventual"
    if params.get("Key", {}).get("pk", {}).get("S", "").startswith("storage#"):
        return STORAGE
    if table.endswith("-volumes"):
        return (name, VOLUME, how)
    if table.endswith("-meta") and params.get("Key", {}).get("pk") == {"S": "index"}:
        return (name, INDEX, _how(params["UpdateExpression"]) if name == "UpdateItem" else how)
    return None


def _how(expression: str) -> str:
    return "allocate" if "#at = " in expression else "publish" if expression.startswith("SET") else "abandon"


@pytest.fixture
def volume(system: System) -> System:
    assert system.call("PUT", "/v1/volume/csi/data", definition(ExternalID="e-1")).status == 200
    return system


def test_a_writer_allocates_writes_and_publishes(system: System) -> None:
    with steps(system) as registered:
        system.call("PUT", "/v1/volume/csi/data", definition(ExternalID="e-1"))
    with steps(system) as updated:
        system.call("PUT", "/v1/volume/csi/data", definition(ExternalID="e-1"))
    with steps(system) as gone:
        system.call("DELETE", "/v1/volume/csi/data")

    # The first registration of a stage looks once whether there are volumes of an older version.
    assert [s for s in registered if s[0] != "GetItem"] == [QUERY, ALLOCATE, WRITE, PUBLISH]
    assert [s for s in updated if s[0] != "GetItem"] == [ALLOCATE, WRITE_ALONE, PUBLISH]
    assert gone == [LOOK, STORAGE, ALLOCATE, WRITE, PUBLISH]


def test_a_refused_writer_abandons_looks_and_allocates_again(volume: System) -> None:
    """Somebody updates the volume between the look and the write, once."""

    def interfere(model: Any, **_: Any) -> None:
        events.unregister("provide-client-params.dynamodb.TransactWriteItems", interfere)
        volume.deps.dynamo.client.update_item(
            TableName=volume.deps.dynamo.table("volumes"),
            Key={"pk": {"S": "ns#default"}, "sk": {"S": "data"}},
            UpdateExpression="SET modify_index = :n",
            ExpressionAttributeValues={":n": {"N": "1000000"}},
        )
        volume.deps.dynamo.client.update_item(
            TableName=volume.deps.dynamo.table("meta"),
            Key={"pk": {"S": "index"}, "sk": {"S": "index"}},
            UpdateExpression="SET seq = :n",
            ExpressionAttributeValues={":n": {"N": "1000001"}},
        )

    events = volume.deps.dynamo.client.meta.events
    events.register("provide-client-params.dynamodb.TransactWriteItems", interfere)
    with steps(volume) as seen:
        reply = volume.call("DELETE", "/v1/volume/csi/data")

    assert reply.status == 200
    assert seen[0] == LOOK
    assert seen[-6:] == [ABANDON, LOOK, STORAGE, ALLOCATE, WRITE, PUBLISH]


@pytest.mark.parametrize("query", ["type=csi", "type=csi&prefix=d&per_page=5", "type=csi&namespace=*"])
def test_a_list_watches_strongly_before_it_reads_strongly(volume: System, query: str) -> None:
    with steps(volume) as seen:
        volume.call("GET", "/v1/volumes", query=query)

    assert seen == [WATCH, QUERY]


def test_a_blocked_list_polls_the_index_and_then_reads_anew(volume: System) -> None:
    index = volume.call("GET", "/v1/volumes", query="type=csi").headers["X-Nomad-Index"]

    with steps(volume) as seen:
        volume.call("GET", "/v1/volumes", query=f"type=csi&index={index}&wait=1s")

    assert set(seen[:-2]) == {POLL_INDEX}
    assert seen[-2:] == [WATCH, QUERY]


def test_a_read_gets_the_volume_and_polls_only_it(volume: System) -> None:
    with steps(volume) as once:
        index = volume.call("GET", "/v1/volume/csi/data").headers["X-Nomad-Index"]
    with steps(volume) as blocked:
        volume.call("GET", "/v1/volume/csi/data", query=f"index={index}&wait=1s")

    assert once == [LOOK]
    assert set(blocked[:-1]) == {POLL_VOLUME}
    assert blocked[-1] == LOOK


def test_what_is_not_there_is_looked_for_again_after_the_floor(volume: System) -> None:
    with steps(volume) as seen:
        assert volume.call("GET", "/v1/volume/csi/nope").status == 404

    assert seen == [LOOK, WATCH, LOOK]


def test_a_read_with_a_lists_index_polls_the_scope_too(volume: System) -> None:
    index = volume.call("GET", "/v1/volumes", query="type=csi").headers["X-Nomad-Index"]

    with steps(volume) as seen:
        volume.call("GET", "/v1/volume/csi/data", query=f"index={index}&wait=1s")

    assert seen[:4] == [POLL_VOLUME, POLL_INDEX] * 2
    assert seen[-1] == LOOK
