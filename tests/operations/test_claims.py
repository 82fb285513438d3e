"""Claims over HTTP, with a provider that attaches: who gets one, what the provider sees, and how it goes away."""

from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.domain.outcome import GO_NAMES
from chalicelib.domain.volume import Volume
from chalicelib.errors import PluginInDoubt, PluginRejected
from chalicelib.service import counters as counter_service
from chalicelib.service import releases
from chalicelib.service.deps import Deps
from chalicelib.service.liveness import release_lost_claims
from chalicelib.sweeps import claims, counters, liveness
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


ATTACH = "controller publish: CSI.ControllerAttachVolume: rpc error: code ="


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"])
def test_a_publish_that_proves_that_nothing_happened_leaves_no_claim(cluster: System, code: str) -> None:
    cluster.provider.before.append(failing("ControllerPublishVolume", PluginRejected("no", code=code)))
    refused = claim(cluster)
    assert (refused.status, refused.body) == (500, f"{ATTACH} {GO_NAMES[code]} desc = no")
    assert shown(cluster)["WriteAllocs"] == {}
    assert "ControllerUnpublishVolume" not in [rpc for rpc, *_ in cluster.provider.log]
    cluster.provider.before.clear()
    assert claim(cluster).status == 200


def test_a_publish_that_proves_nothing_is_undone_at_once(cluster: System) -> None:
    cluster.provider.after.append(failing("ControllerPublishVolume", PluginRejected("internal", code="INTERNAL")))
    refused = claim(cluster)
    assert (refused.status, refused.body) == (500, f"{ATTACH} Internal desc = internal")
    assert [rpc for rpc, *_ in cluster.provider.log][-2:] == ["ControllerPublishVolume", "ControllerUnpublishVolume"]
    assert cluster.provider.attached == set()
    assert shown(cluster)["WriteAllocs"] == {}
    cluster.provider.after.clear()
    assert claim(cluster, "other", node="node-b").status == 200


def publish_that_may_land_later(cluster: System) -> None:
    cluster.provider.after.append(failing("ControllerPublishVolume", PluginRejected("who knows", code="UNKNOWN")))
    refused = claim(cluster)
    assert (refused.status, refused.body) == (500, f"{ATTACH} Unknown desc = who knows")
    cluster.provider.after.clear()
    assert cluster.provider.attached
    assert shown(cluster)["WriteAllocs"] == {"alloc-1": None}, "it counts until it is surely off"
    assert claim(cluster, "other", node="node-b").body == "volume max claims reached"


def test_a_publish_that_may_land_later_is_undone_when_it_cannot(cluster: System) -> None:
    publish_that_may_land_later(cluster)
    cluster.rest(5)
    assert cluster.provider.attached == set()
    assert shown(cluster)["WriteAllocs"] == {}
    assert claim(cluster, "other", node="node-b").status == 200


def test_a_release_waits_for_the_undo_of_the_publish_not_for_its_answer(cluster: System) -> None:
    publish_that_may_land_later(cluster)
    cluster.pumping = False
    waiting = cluster.call("DELETE", f"{PATH}/claim/alloc-1")
    assert waiting.status == 504
    assert "still running" in waiting.body
    cluster.pumping = True
    cluster.clock.moment += 120
    released = cluster.call("DELETE", f"{PATH}/claim/alloc-1")
    assert (released.status, released.body) == (200, "")
    assert int(released.headers["X-Nomad-Index"]) == shown(cluster)["ModifyIndex"]
    assert (cluster.provider.attached, shown(cluster)["WriteAllocs"]) == (set(), {})


def test_a_release_that_was_given_up_says_why_and_is_taken_up_by_the_next(cluster: System) -> None:
    assert claim(cluster).status == 200
    cluster.provider.before.append(failing("ControllerUnpublishVolume", PluginRejected("stuck", code="INTERNAL")))
    assert cluster.call("DELETE", f"{PATH}/claim/alloc-1").status == 504
    cluster.rest(400)
    operation = cluster.call("GET", "/v1/operations", query="status=in%20doubt").json["Operations"][0]
    text = "controller detach volume: CSI.ControllerDetachVolume: rpc error: code = Internal desc = stuck"
    assert (operation["Kind"], operation["LastError"]) == ("unpublish", text)
    assert shown(cluster)["WriteAllocs"] == {"alloc-1": None}
    cluster.provider.before.clear()
    assert cluster.call("DELETE", f"{PATH}/claim/alloc-1").status == 200
    assert (cluster.provider.attached, shown(cluster)["WriteAllocs"]) == (set(), {})


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
    body = claim(cluster, StagingPath="/stage", TargetPath="/mnt/data").body
    assert body == f"CSI.{rpc}: rpc error: code = Internal desc = bad disk"
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


def names(reply: Reply) -> list[str]:
    return [v["ID"] for v in reply.json]


def test_lists_by_node_find_what_is_claimed_there(cluster: System) -> None:
    volume(cluster, volume_id="other")
    assert claim(cluster).status == 200

    def listed(query: str) -> list[str]:
        return names(cluster.call("GET", "/v1/volumes", query=f"type=csi&{query}"))

    assert listed("node_id=node-a") == ["data"]
    assert listed("node_id=node") == ["data"]
    assert listed("node_id=node-b") == []
    assert listed("node_id=node-a&plugin_id=directory") == ["data"]
    assert listed("node_id=node-a&plugin_id=nope") == []
    assert listed("node_id=node-a&prefix=zz") == []
    assert listed("node_id=node-a&namespace=*") == ["data"]
    assert listed("filter=WriteAllocs+is+not+empty") == ["data"]
    assert listed("filter=CurrentWriters+==+0") == ["other"]
    assert listed('filter=AccessMode+==+"single-node-writer"') == ["data"]


def test_a_list_by_node_has_pages(system: System) -> None:
    system.add_node()
    for number in range(5):
        volume(system, volume_id=f"v{number}")
        body = {"AllocationID": "a", "NodeID": "node-a", "Mode": "write"}
        assert system.call("PUT", f"/v1/volume/csi/v{number}/claim", body).status == 200
    seen: list[str] = []
    token = ""
    while True:
        page = system.call("GET", "/v1/volumes", query=f"type=csi&node_id=node-a&per_page=2&next_token={token}")
        seen += names(page)
        token = page.headers.get("X-Nomad-Nexttoken", "")
        if not token:
            break
    assert seen == [f"v{n}" for n in range(5)]


class Later:
    """Time that passes for claims: sweeps once a minute, with every node but the silent ones seen."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.leases_since = system.clock.now()
        self.down: set[str] = set()

    def minutes(self, count: int) -> None:
        for _ in range(count):
            self.system.clock.moment += 60
            for node in self.system.deps.plugins.nodes():
                if node.id not in self.down:
                    later = self.system.clock.now()
                    self.system.deps.plugins.heartbeat(node, sequence=node.sequence + 1, seen_at=later)
            self.sweep()

    def sweep(self) -> claims.Report:
        nodes = liveness.Report(down=tuple(self.down), leases_since=self.leases_since)
        released = claims.sweep(self.system.deps, nodes)
        self.system.sweep()
        self.system.pump()
        return released


def test_a_lease_that_is_renewed_lasts_and_one_that_is_not_runs_out(cluster: System) -> None:
    later = Later(cluster)
    assert claim(cluster, LeaseSeconds=120).json["LeaseSeconds"] == 120
    for _ in range(5):
        later.minutes(1)
        assert cluster.call("PUT", f"{PATH}/claim/alloc-1/renew").status == 200
    index = shown(cluster)["ModifyIndex"]
    assert shown(cluster)["WriteAllocs"] == {"alloc-1": None}
    later.minutes(3)
    assert shown(cluster)["WriteAllocs"] == {}
    assert shown(cluster)["ModifyIndex"] > index
    assert cluster.provider.attached == set()
    assert cluster.call("PUT", f"{PATH}/claim/alloc-1/renew").status == 404


def test_a_claim_without_a_lease_is_not_renewed_and_lasts(cluster: System) -> None:
    assert claim(cluster).status == 200
    refused = cluster.call("PUT", f"{PATH}/claim/alloc-1/renew")
    assert (refused.status, "has no lease" in refused.body) == (400, True)
    Later(cluster).minutes(100)
    assert shown(cluster)["WriteAllocs"] == {"alloc-1": None}


def test_after_a_day_asleep_every_lease_has_a_fresh_period(cluster: System) -> None:
    later = Later(cluster)
    assert claim(cluster, LeaseSeconds=600).status == 200
    cluster.clock.moment += 24 * 3600
    later.leases_since = cluster.clock.now()
    later.minutes(9)
    assert shown(cluster)["WriteAllocs"] == {"alloc-1": None}
    assert cluster.call("PUT", f"{PATH}/claim/alloc-1/renew").status == 200
    later.minutes(11)
    assert shown(cluster)["WriteAllocs"] == {}


def test_the_lease_of_a_silent_node_is_not_judged_before_the_node_is(cluster: System) -> None:
    later = Later(cluster)
    assert claim(cluster, LeaseSeconds=60).status == 200
    for node in cluster.deps.plugins.nodes():
        cluster.deps.plugins.heartbeat(node, sequence=node.sequence + 1, seen_at=cluster.clock.now())
    cluster.clock.moment += 1000
    later.sweep()
    assert shown(cluster)["WriteAllocs"] == {"alloc-1": None}


def go_down(system: System, later: Later, node_id: str) -> None:
    later.down.add(node_id)
    system.set_healthy(node_id, healthy=False)


def come_back(system: System, later: Later, node_id: str) -> None:
    later.down.remove(node_id)
    system.set_healthy(node_id, healthy=True)


def test_a_claim_on_a_node_that_is_down_is_taken_away_by_the_controller(cluster: System) -> None:
    later = Later(cluster)
    assert claim(cluster, StagingPath="/stage", TargetPath="/mnt/data").status == 200
    assert claim(cluster, "other", node="node-b").body == "volume max claims reached"
    go_down(cluster, later, "node-a")
    later.minutes(2)
    assert cluster.provider.attached == set()
    assert "NodeUnpublishVolume" not in [rpc for rpc, *_ in cluster.provider.log]
    assert shown(cluster)["WriteAllocs"] == {}
    assert claim(cluster, "other", node="node-b").status == 200
    cluster.provider.mounted.clear()  # what the dead machine had mounted is gone with it


def test_a_writer_that_no_controller_can_stop_is_lost_until_somebody_is_sure(system: System) -> None:
    for node in ("node-a", "node-b"):
        system.add_node(node)
    volume(system)
    later = Later(system)
    assert claim(system).status == 200
    go_down(system, later, "node-a")
    later.minutes(5)
    assert shown(system)["WriteAllocs"] == {"alloc-1": None}
    assert [(a["ClientStatus"], a["ClientDescription"]) for a in shown(system)["Allocations"]] == [
        ("lost", "node lost")
    ]
    assert system.call("GET", f"{PATH}/claims").json[0]["State"] == "node lost"
    assert claim(system, "other", node="node-b").body == "volume max claims reached"
    refused = system.call("DELETE", f"{PATH}/detach", query="node=node-a")
    assert refused.body.startswith("node lost: nothing proves that allocation alloc-1")
    assert system.call("DELETE", f"{PATH}/detach", query="node=node-a&force=true").status == 200
    assert claim(system, "other", node="node-b").status == 200


def test_a_lost_writer_is_unmounted_by_its_own_node_when_that_is_back(system: System) -> None:
    system.add_node()
    volume(system)
    later = Later(system)
    assert claim(system, StagingPath="/stage", TargetPath="/mnt/data").status == 200
    go_down(system, later, "node-a")
    later.minutes(2)
    assert shown(system)["WriteAllocs"] == {"alloc-1": None}
    come_back(system, later, "node-a")
    past = release_lost_claims(system.deps, "node-a")
    assert [c.allocation_id for c in past] == ["alloc-1"]
    system.rest(3)
    assert system.provider.mounted == set()
    assert shown(system)["WriteAllocs"] == {}


MOUNTED = {"StagingPath": "/stage", "TargetPath": "/mnt/data"}


def calls(system: System) -> list[str]:
    return [rpc for rpc, *_ in system.provider.log]


def test_a_writer_whose_unmount_failed_before_its_node_went_down_is_lost_not_free(system: System) -> None:
    for node in ("node-a", "node-b"):
        system.add_node(node)
    volume(system)
    later = Later(system)
    assert claim(system, **MOUNTED).status == 200
    system.provider.before.append(failing("NodeUnpublishVolume", PluginRejected("busy", code="INTERNAL")))
    assert system.call("DELETE", f"{PATH}/claim/alloc-1", headers={"Prefer": "wait=1"}).status == 504
    go_down(system, later, "node-a")
    later.minutes(5)
    assert system.provider.mounted
    assert system.call("GET", f"{PATH}/claims").json[0]["State"] == "node lost"
    assert claim(system, "other", node="node-b").body == "volume max claims reached"
    released = system.call("DELETE", f"{PATH}/claim/alloc-1")
    assert (released.status, released.body.startswith("node lost: nothing proves")) == (500, True)
    assert system.call("DELETE", f"{PATH}/detach", query="node=node-a&force=true").status == 200
    assert claim(system, "other", node="node-b").status == 200
    system.provider.mounted.clear()  # the machine was off, as the operator said


def test_nobody_is_let_in_by_the_owner_of_a_writer_on_a_silent_node(system: System) -> None:
    system.add_node()
    volume(system)
    later = Later(system)
    assert claim(system).status == 200
    go_down(system, later, "node-a")
    assert system.call("DELETE", f"{PATH}/claim/alloc-1").body.startswith("node lost: nothing proves")
    assert shown(system)["WriteAllocs"] == {"alloc-1": None}


def test_a_reader_on_a_node_that_is_down_does_not_keep_the_writer_attached(system: System) -> None:
    for node in ("node-a", "node-b"):
        system.add_node(node, controller_capabilities=ATTACHES)
    volume(system, ("multi-node-single-writer", "file-system"))
    later = Later(system)
    assert claim(system, "writer").status == 200
    assert claim(system, "reader", mode="read").status == 200
    go_down(system, later, "node-a")
    assert system.call("DELETE", f"{PATH}/claim/writer").status == 200
    assert system.provider.attached == set(), "only that proves that it does not write any more"
    later.minutes(2)
    assert shown(system)["ReadAllocs"] == {}


def test_a_volume_stays_staged_and_attached_while_another_claim_may_have_it_mounted(system: System) -> None:
    system.add_node(controller_capabilities=ATTACHES)
    volume(system, ("multi-node-multi-writer", "file-system"))
    for alloc in ("one", "two"):
        assert claim(system, alloc, StagingPath="/stage", TargetPath=f"/mnt/{alloc}").status == 200

    def busy(rpc: str, _: object) -> None:
        if rpc == "NodeUnpublishVolume" and calls(system).count(rpc) == 1:
            raise PluginRejected("busy", code="INTERNAL")

    system.provider.before.append(busy)
    assert system.call("DELETE", f"{PATH}/claim/one", headers={"Prefer": "wait=0"}).status == 504
    system.pump()
    assert calls(system)[-1] == "NodeUnpublishVolume"
    assert system.call("DELETE", f"{PATH}/claim/two").status == 200
    assert not {"NodeUnstageVolume", "ControllerUnpublishVolume"} & set(calls(system)), "one is still mounted"
    assert system.call("DELETE", f"{PATH}/claim/one").status == 200
    assert calls(system)[-2:] == ["NodeUnstageVolume", "ControllerUnpublishVolume"]
    assert (system.provider.attached, system.provider.mounted) == (set(), set())


def test_a_lease_that_is_renewed_while_it_is_judged_goes_on(cluster: System, monkeypatch: pytest.MonkeyPatch) -> None:
    later = Later(cluster)
    assert claim(cluster, LeaseSeconds=60).status == 200
    begin = releases.begin_release

    def renewed_before(deps: Deps, *args: Any, **given: Any) -> Any:
        assert cluster.call("PUT", f"{PATH}/claim/alloc-1/renew").status == 200
        return begin(deps, *args, **given)

    monkeypatch.setattr(releases, "begin_release", renewed_before)
    cluster.clock.moment += 61
    later.sweep()
    assert cluster.call("GET", f"{PATH}/claims").json[0]["State"] == "taken"
    assert cluster.provider.attached


def test_more_leases_than_one_page_are_looked_at(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    system.add_node()
    volume(system, ("multi-node-multi-writer", "file-system"))
    for number in range(5):
        assert claim(system, f"alloc-{number}", LeaseSeconds=60).status == 200
    query = system.deps.dynamo.client.query
    monkeypatch.setattr(system.deps.dynamo.client, "query", lambda **given: query(**{"Limit": 2, **given}))
    system.clock.moment += 61
    assert len(list(system.deps.claims.run_out(system.clock.now()))) == 5


def test_a_publish_that_was_given_up_ends_with_its_claim(cluster: System) -> None:
    cluster.provider.before.append(
        failing("ControllerPublishVolume", PluginInDoubt("no answer", code="DEADLINE_EXCEEDED"))
    )
    assert claim(cluster).status == 504
    cluster.rest(400)
    assert cluster.call("GET", "/v1/operations", query="status=in%20doubt").json["Operations"][0]["Kind"] == "publish"
    cluster.provider.before.clear()
    assert cluster.call("DELETE", f"{PATH}/claim/alloc-1").status == 200
    cluster.rest(2)
    assert cluster.call("GET", "/v1/operations", query="status=in%20doubt").json["Operations"] == []


def test_detach_of_a_lost_claim_works_once_its_node_is_back(system: System) -> None:
    system.add_node()
    volume(system)
    later = Later(system)
    assert claim(system, **MOUNTED).status == 200
    go_down(system, later, "node-a")
    later.minutes(2)
    assert system.call("GET", f"{PATH}/claims").json[0]["State"] == "node lost"
    come_back(system, later, "node-a")
    assert system.call("DELETE", f"{PATH}/detach", query="node=node-a").status == 200
    assert system.provider.mounted == set()


def test_a_forced_deregistration_drops_past_claims_and_never_a_live_one(system: System) -> None:
    system.add_node()
    volume(system)
    later = Later(system)
    assert claim(system).status == 200
    assert system.call("DELETE", PATH, query="force=true").body == "volume in use: data"
    go_down(system, later, "node-a")
    later.minutes(1)
    assert system.call("DELETE", PATH).body == "volume in use: data"
    assert system.call("DELETE", PATH, query="force=true").status == 200
    system.rest(3)
    assert system.deps.claims.of_volume("default", "data") == []


def test_a_volume_of_the_same_id_does_not_inherit_claims(system: System) -> None:
    for node in ("node-a", "node-b"):
        system.add_node(node, controller_capabilities=ATTACHES)
    volume(system)
    later = Later(system)
    assert claim(system).status == 200
    go_down(system, later, "node-a")
    system.pumping = False
    later.minutes(1)
    assert system.call("DELETE", PATH, query="force=true").status == 200
    system.pumping = True
    volume(system)
    system.rest(3)
    assert shown(system)["WriteAllocs"] == {}
    assert claim(system, "alloc-1", node="node-b").status == 200
    assert shown(system)["WriteAllocs"] == {"alloc-1": None}


def set_counters(system: System, **values: int) -> None:
    """As a record that was restored or changed by hand has them."""
    system.deps.dynamo.client.update_item(
        TableName="moorage-test-volumes",
        Key={"pk": {"S": "ns#default"}, "sk": {"S": "data"}},
        UpdateExpression="SET " + ", ".join(f"{name} = :{name}" for name in values),
        ExpressionAttributeValues={f":{name}": {"N": str(value)} for name, value in values.items()},
    )


def shown_counts(system: System) -> tuple[int, int]:
    (listed,) = system.call("GET", "/v1/volumes", query="type=csi&prefix=data").json
    return listed["CurrentReaders"], listed["CurrentWriters"]


@pytest.mark.parametrize(("readers", "writers"), [(7, 1), (0, 0), (1, 0)])
def test_a_sweep_sets_wrong_counters_right_and_says_so(
    cluster: System, capsys: pytest.CaptureFixture[str], readers: int, writers: int
) -> None:
    assert claim(cluster).status == 200
    set_counters(cluster, readers=readers, writers=writers)
    before = shown(cluster)["ModifyIndex"]
    capsys.readouterr()
    assert counters.sweep(cluster.deps).repaired == 1
    assert '"event": "counters repaired"' in capsys.readouterr().out
    assert shown_counts(cluster) == (0, 1)
    assert shown(cluster)["ModifyIndex"] > before, "who waits is woken"
    assert counters.sweep(cluster.deps).repaired == 0


def test_counters_are_not_set_right_under_a_claim_that_comes_meanwhile(cluster: System) -> None:
    set_counters(cluster, readers=7)
    stale = cluster.deps.volumes.get("default", "data")
    assert stale is not None
    assert counter_service.repair(cluster.deps, stale)
    assert claim(cluster).status == 200
    assert not counter_service.repair(cluster.deps, stale), "what was read before is over"
    assert shown_counts(cluster) == (0, 1)


def test_nobody_is_refused_because_of_a_wrong_counter(cluster: System) -> None:
    set_counters(cluster, writers=1)
    assert claim(cluster).status == 200
    assert cluster.call("DELETE", f"{PATH}/claim/alloc-1").status == 200
    set_counters(cluster, readers=3, past_claims=2)
    assert cluster.call("DELETE", f"{PATH}/delete").status == 200
    volume(cluster)
    set_counters(cluster, readers=1)
    assert cluster.call("DELETE", PATH).status == 200
    cluster.provider.volumes.clear()  # a volume that is deregistered leaves its storage on purpose


def test_every_volume_is_looked_at_in_turn(cluster: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "VOLUMES", 2)
    cluster.add_plugin("another", node_id="node-a")
    for volume_id in ("a", "b", "z"):
        volume(cluster, volume_id=volume_id)
    body = definition("x", PluginID="another")
    assert cluster.call("PUT", "/v1/volume/csi/x/create", body).status == 200
    names = ["a", "b", "data", "x", "z"]
    looked: list[str] = []

    def look(_: Deps, found: Volume) -> bool:
        looked.append(found.id)
        return False

    monkeypatch.setattr(counters, "repair", look)
    rounds = 0
    while sorted(set(looked)) != names:
        assert counters.sweep(cluster.deps).repaired == 0
        rounds += 1
        assert rounds < 6
    assert len(looked) <= 6, "two at a time, and none again before all were looked at"
