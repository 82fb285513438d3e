"""Large requests: what fits is made and can be used and removed, what does not is refused before anything is made."""

import json
from typing import Any

import pytest

from tests.harness import CAPABILITIES, Reply, System, definition
from tests.operations.invariants import violations

KB = 1024
LARGEST = 296 * KB
"""Of one parameter, in bytes: the rest of the definition lies beside it."""


def create(system: System, **fields: Any) -> Reply:
    return system.call("PUT", "/v1/volume/csi/data/create", definition(**{"RequestedCapacityMin": 1024, **fields}))


@pytest.mark.parametrize("text", ["x", '"', "\\", "é", "€", "\u0001"])
def test_the_largest_definition_is_made_expanded_claimed_and_deleted(system: System, text: str) -> None:
    system.add_node(controller_capabilities=CAPABILITIES | {"PUBLISH_UNPUBLISH_VOLUME"})
    stored = len(json.dumps(text, ensure_ascii=False).encode()) - 2
    fields: dict[str, Any] = {"Parameters": {"p": text * (LARGEST // stored)}, "Secrets": {"token": "s" * 29 * KB}}
    made = create(system, **fields)
    assert made.status == 200, made.body[:200]
    grown = create(system, **fields, RequestedCapacityMin=4096)
    assert grown.status == 200, grown.body[:200]
    claim = {"AllocationID": "a", "NodeID": "node-a", "Mode": "write", "StagingPath": "/s", "TargetPath": "/t"}
    claimed = system.call("PUT", "/v1/volume/csi/data/claim", claim)
    assert claimed.status == 200, claimed.body[:200]
    assert system.call("DELETE", "/v1/volume/csi/data/claim/a").status == 200
    assert system.call("DELETE", "/v1/volume/csi/data/delete").status == 200
    assert violations(system) == []


def test_an_answer_of_a_plugin_that_cannot_be_stored_leaves_nothing_behind(system: System) -> None:
    system.provider.context = {"echo": "x" * 60 * KB}
    reply = create(system, Parameters={"p": "x" * LARGEST})
    assert (reply.status, "larger than it can be" in reply.body) == (500, True)
    system.rest(5)
    assert system.provider.volumes == {}
    assert violations(system) == []
    assert system.call("GET", "/v1/operations").json["Operations"][0]["Status"] == "failed"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/v1/volume/csi/data/create", definition(Parameters={"p": "x" * 301 * KB})),
        ("PUT", "/v1/volumes", definition(Parameters={"p": "x" * 301 * KB})),
        ("PUT", "/v1/volume/csi/data/create", definition(Secrets={"p": "x" * 31 * KB})),
        ("PUT", "/v1/volumes/snapshot", {"Snapshots": [{"SourceVolumeID": "data", "Name": "x" * 301 * KB}]}),
        ("PUT", "/v1/namespace", {"Name": "team", "Meta": {"m": "x" * 301 * KB}}),
        ("PUT", "/v1/volume/csi/data/claim", {"AllocationID": "x" * 65 * KB}),
        ("PUT", "/v1/volume/csi/data/create", b"x" * (2 * 1024 * KB + 1)),
        ("PUT", "/v1/volume/csi/data/create", b'{"Volumes":[' + b"{}," * 60_000 + b"{}]}"),
        ("PUT", "/v1/volume/csi/data/create", b'{"Unknown":' + b"[" * 60_000),
        ("PUT", "/v1/bridge/n1", b"x" * (257 * KB)),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("/") else "",
)
def test_what_is_too_large_is_said_so_before_anything_is_made(
    system: System, method: str, path: str, body: Any
) -> None:
    reply = system.call(method, path, body)
    assert reply.status == 413, reply.body[:200]
    assert "larger than" in reply.body or "too many values" in reply.body
    assert system.provider.log == []
    assert system.queue.messages == []
