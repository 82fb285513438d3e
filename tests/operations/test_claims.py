"""Claims over HTTP, with a provider that attaches: who gets one, what the provider sees, and how it goes away."""

from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.errors import PluginInDoubt, PluginRejected
from tests.harness import CAPABILITIES, Reply, System, definition
from tests.operations.invariants import violations

ATTACHES = CAPABILITIES | {"PUBLISH_UNPUBLISH_VOLUME"}
WRITER = ("single-node-writer", "file-system")
PATH = "/v1/volume/csi/data"


@pytest.fixture
def cluster(system: System) -> Iterator[System]:
    """Two nodes with a plugin whose controller attaches, and a volume."""
    for node in ("node-a", "node-b"):
        system.add_node(node, controller_capabilities=ATTACHES)
    volume(system)
    yield system
    assert violations(system) == []


def volume(system: System, *modes: tuple[str, str], volume_id: str = "data") -> None:
    capabilities = [{"AccessMode": a, "AttachmentMode": t} for a, t in modes or (WRITER,)]
    body = definition(volume_id, RequestedCapabilities=capabilities)
    assert system.call("PUT", f"/v1/volume/csi/{volume_id}/create", body).status == 200


def claim(system: System, alloc: str = "alloc-1", node: str = "node-a", mode: str = "write", **fields: Any) -> Reply:
    body = {"AllocationID": alloc, "NodeID": node, "Mode": mode} | fields
    return system.call("PUT", f"{PATH}/claim", body)


def shown(system: System) -> Any:
    return system.call("GET", PATH).json


def test_a_claim_attaches_the_volume_and_its_release_detaches_it(cluster: System) -> None:
    taken = claim(cluster, JobID="web", TaskGroup="g", Name="web.g[0]")
    assert taken.status == 200, taken.body
    external_id = shown(cluster)["ExternalID"]
    assert taken.json["PublishContext"] == {"device": f"/dev/{external_id}"}
    assert (taken.json["State"], taken.json["AccessMode"], taken.json["Published"]) == ("taken", WRITER[0], True)
    assert cluster.provider.attached == {(external_id, "ext-node-a")}

    read = shown(cluster)
    assert (read["AccessMode"], read["AttachmentMode"]) == WRITER
    assert (read["WriteAllocs"], read["ReadAllocs"]) == ({"alloc-1": None}, {})
    assert [(a["ID"], a["JobID"], a["NodeID"]) for a in read["Allocations"]] == [("alloc-1", "web", "node-a")]
    listed = cluster.call("GET", "/v1/volumes", query="type=csi").json[0]
    assert (listed["CurrentWriters"], listed["CurrentReaders"]) == (1, 0)

    released = cluster.call("DELETE", f"{PATH}/claim/alloc-1")
    assert released.status == 200
    assert int(released.headers["X-Nomad-Index"]) == shown(cluster)["ModifyIndex"]
    assert cluster.provider.attached == set()
    after = shown(cluster)
    assert (after["AccessMode"], after["WriteAllocs"], after["Allocations"]) == ("", {}, [])
    assert cluster.call("GET", f"{PATH}/claims").json == []


def test_the_same_claim_again_is_the_same_claim(cluster: System) -> None:
    first, again = claim(cluster), claim(cluster)
    assert (first.status, again.status) == (200, 200)
    assert first.json["CreateIndex"] == again.json["CreateIndex"]
    assert shown(cluster)["WriteAllocs"] == {"alloc-1": None}
    other = claim(cluster, node="node-b")
    assert other.status == 409
    assert "release that claim first" in other.body


@pytest.mark.parametrize(
    ("modes", "held", "wanted", "fits"),
    [
        ("single-node-writer", "write", "write", False),
        ("single-node-writer", "write", "read", False),
        ("single-node-writer", "read", "read", False),
        ("single-node-reader-only", "read", "read", False),
        ("multi-node-reader-only", "read", "read", True),
        ("multi-node-single-writer", "write", "read", True),
        ("multi-node-single-writer", "read", "write", True),
        ("multi-node-single-writer", "write", "write", False),
        ("multi-node-multi-writer", "write", "write", True),
        ("multi-node-multi-writer", "write", "read", True),
    ],
)
def test_who_fits_beside_whom(system: System, modes: str, held: str, wanted: str, fits: bool) -> None:
    for node in ("node-a", "node-b"):
        system.add_node(node, controller_capabilities=ATTACHES)
    volume(system, (modes, "file-system"))
    assert claim(system, "one", mode=held).status == 200
    second = claim(system, "two", node="node-b", mode=wanted)
    if fits:
        assert second.status == 200, second.body
    else:
        assert (second.status, second.body) == (500, "volume max claims reached")
    assert system.call("DELETE", f"{PATH}/claim/one").status == 200
    assert claim(system, "three", node="node-a", mode=wanted).status == 200 or fits


def test_a_writer_is_refused_where_nobody_may_write(system: System) -> None:
    system.add_node()
    volume(system, ("multi-node-reader-only", "file-system"))
    assert (claim(system).status, claim(system).body) == (500, "volume is currently unschedulable")


def test_modes_in_force_are_those_of_the_first_claim(system: System) -> None:
    system.add_node()
    volume(system, ("multi-node-reader-only", "file-system"), ("multi-node-multi-writer", "file-system"))
    assert claim(system).body.startswith("AccessMode and AttachmentMode must be given")
    assert claim(system, "one", mode="read", AccessMode="multi-node-reader-only").status == 200
    refused = claim(system, "two", AccessMode="multi-node-multi-writer", AttachmentMode="file-system")
    assert refused.body == (
        "volume is claimed as multi-node-reader-only, file-system: other modes must wait for its last claim"
    )
    assert claim(system, "two", mode="read").status == 200
    for alloc in ("one", "two"):
        assert system.call("DELETE", f"{PATH}/claim/{alloc}").status == 200
    assert claim(system, "two", AccessMode="multi-node-multi-writer", AttachmentMode="file-system").status == 200


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"AllocationID": ""}, "AllocationID is missing"),
        ({"AllocationID": "a\nb"}, "control characters"),
        ({"NodeID": "nowhere"}, "node nowhere is unknown"),
        ({"Mode": "append"}, 'Mode must be "read" or "write"'),
        ({"AccessMode": "some-mode", "AttachmentMode": "file-system"}, "unknown volume access mode"),
        ({"AccessMode": "multi-node-multi-writer", "AttachmentMode": "file-system"}, "requested capabilities"),
        ({"LeaseSeconds": 1}, "LeaseSeconds must be between"),
        ({"TargetPath": "relative"}, "absolute path"),
        ({"TargetPath": "/mnt/x"}, "go together"),
    ],
)
def test_a_bad_claim_is_refused_with_a_text_that_says_why(cluster: System, body: Any, words: str) -> None:
    refused = claim(cluster, **body) if "AllocationID" not in body else claim(cluster, alloc=body["AllocationID"])
    if "NodeID" in body:
        refused = claim(cluster, node=body["NodeID"])
    elif "Mode" in body:
        refused = claim(cluster, mode=body["Mode"])
    assert refused.status in (400, 500)
    assert words in refused.body
    assert shown(cluster)["WriteAllocs"] == {}
    assert cluster.provider.attached == set()


def test_a_volume_in_use_is_neither_deleted_nor_deregistered_nor_changed(cluster: System) -> None:
    assert claim(cluster).status == 200
    for path, query in ((f"{PATH}/delete", ""), (PATH, ""), (PATH, "force=true")):
        refused = cluster.call("DELETE", path, query=query)
        assert (refused.status, refused.body) == (500, "volume in use: data")
    assert len(cluster.provider.volumes) == 1
    body = definition(RequestedCapabilities=[{"AccessMode": "multi-node-reader-only", "AttachmentMode": "file-system"}])
    refused = cluster.call("PUT", PATH, body)
    assert refused.body == (
        "unable to update volume: 2 errors occurred:\n"
        "\t* volume requested capabilities update was not compatible with existing capability in use\n"
        "\t* can not update mount options while volume is in use\n\n"
    )
    assert cluster.call("PUT", PATH, definition(MountOptions={})).status == 200


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"])
def test_a_publish_that_proves_that_nothing_happened_leaves_no_claim(cluster: System, code: str) -> None:
    cluster.provider.before.append(failing("ControllerPublishVolume", PluginRejected("no", code=code)))
    refused = claim(cluster)
    assert (refused.status, refused.body) == (500, "no")
    assert shown(cluster)["WriteAllocs"] == {}
    assert "ControllerUnpublishVolume" not in [rpc for rpc, *_ in cluster.provider.log]
    cluster.provider.before.clear()
    assert claim(cluster).status == 200


def test_a_publish_that_proves_nothing_is_unpublished_before_the_claim_goes(cluster: System) -> None:
    cluster.provider.after.append(failing("ControllerPublishVolume", PluginRejected("internal", code="INTERNAL")))
    refused = claim(cluster)
    assert (refused.status, refused.body) == (500, "internal")
    assert cluster.provider.attached
    assert shown(cluster)["WriteAllocs"] == {"alloc-1": None}, "it counts until it is surely off"
    assert claim(cluster, "other", node="node-b").body == "volume max claims reached"
    cluster.provider.after.clear()
    cluster.rest(5)
    assert cluster.provider.attached == set()
    assert shown(cluster)["WriteAllocs"] == {}
    assert claim(cluster, "other", node="node-b").status == 200


def test_a_publish_in_doubt_is_repeated_until_it_is_known(cluster: System) -> None:
    tries: list[str] = []

    def lose_the_answer(rpc: str, _: object) -> None:
        if rpc == "ControllerPublishVolume" and len(tries) < 3:
            tries.append(rpc)
            raise PluginInDoubt("no answer", code="UNAVAILABLE")

    cluster.provider.after.append(lose_the_answer)
    taken = claim(cluster)
    assert taken.status == 200, taken.body
    assert len(tries) == 3


def test_a_claim_that_is_released_while_it_is_published_leaves_nothing(cluster: System) -> None:
    cluster.pumping = False
    assert claim(cluster).status == 504
    released = cluster.call("DELETE", f"{PATH}/claim/alloc-1", headers={"Prefer": "respond-async"})
    assert released.status == 202
    cluster.queue.messages.reverse()
    cluster.pumping = True
    cluster.rest(5)
    assert cluster.provider.attached == set()
    assert shown(cluster)["WriteAllocs"] == {}


def test_two_claims_on_one_node_are_detached_by_the_last(system: System) -> None:
    system.add_node(controller_capabilities=ATTACHES)
    volume(system, ("multi-node-multi-writer", "file-system"))
    for alloc in ("one", "two"):
        assert claim(system, alloc).status == 200
    assert system.call("DELETE", f"{PATH}/claim/one").status == 200
    assert len(system.provider.attached) == 1
    assert system.call("DELETE", f"{PATH}/claim/two").status == 200
    assert system.provider.attached == set()


def test_mounts_come_and_go_in_order(cluster: System) -> None:
    paths = {"StagingPath": "/stage", "TargetPath": "/mnt/data"}
    taken = claim(cluster, **paths)
    assert taken.status == 200, taken.body
    assert cluster.call("DELETE", f"{PATH}/claim/alloc-1").status == 200
    assert [rpc for rpc, *_ in cluster.provider.log[1:]] == [
        "ControllerPublishVolume", "NodeStageVolume", "NodePublishVolume",
        "NodeUnpublishVolume", "NodeUnstageVolume", "ControllerUnpublishVolume",
    ]  # fmt: skip
    assert cluster.provider.mounted == set()


@pytest.mark.parametrize("rpc", ["NodeStageVolume", "NodePublishVolume"])
def test_a_mount_that_fails_is_undone(cluster: System, rpc: str) -> None:
    cluster.provider.after.append(failing(rpc, PluginRejected("bad disk", code="INTERNAL")))
    assert claim(cluster, StagingPath="/stage", TargetPath="/mnt/data").body == "bad disk"
    cluster.provider.after.clear()
    cluster.rest(5)
    assert (cluster.provider.mounted, cluster.provider.attached) == (set(), set())
    assert shown(cluster)["WriteAllocs"] == {}


def test_what_has_no_claim_is_not_found(cluster: System) -> None:
    missing = cluster.call("DELETE", f"{PATH}/claim/nobody")
    assert (missing.status, missing.body) == (404, "allocation nobody has no claim on volume data")
    assert cluster.call("PUT", f"{PATH}/claim/nobody/renew").status == 404
    assert cluster.call("GET", "/v1/volume/csi/nothing/claims").status == 404


def test_detach_refuses_a_live_claim_and_takes_a_prefix_of_the_node(cluster: System) -> None:
    assert claim(cluster).status == 200
    refused = cluster.call("DELETE", f"{PATH}/detach", query="node=node-a")
    assert (refused.status, refused.body) == (500, "volume in use: data")
    several = cluster.call("DELETE", f"{PATH}/detach", query="node=node")
    assert "is not one node" in several.body
    assert cluster.call("DELETE", f"{PATH}/detach", query="node=node-b").status == 200
    assert shown(cluster)["WriteAllocs"] == {"alloc-1": None}


def failing(rpc: str, error: Exception) -> Any:
    def hook(called: str, _: object) -> None:
        if called == rpc:
            raise error

    return hook
