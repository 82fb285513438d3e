"""Several volumes in one request: each stands alone, and they are done side by side."""

import threading
import time
from typing import Any

import pytest

from chalicelib.errors import PluginRejected
from tests.harness import Reply, System, definition

CREATE = "/v1/volume/csi/any/create"
REGISTER = "/v1/volumes"
BUSY = "volume busy has an operation in progress: create"


def several(*volume_ids: str, **fields: Any) -> dict[str, Any]:
    return {"Volumes": [definition(i, **fields)["Volumes"][0] for i in volume_ids]}


def create(system: System, *volume_ids: str, headers: Any = None, **fields: Any) -> Reply:
    return system.call("PUT", CREATE, several(*volume_ids, **fields), headers=headers)


def names(system: System) -> list[str]:
    return [v["ID"] for v in system.call("GET", "/v1/volumes", query="type=csi").json]


def make_busy(system: System) -> None:
    """A create of `busy` that nobody works on."""
    system.pumping = False
    reply = create(system, "busy", headers={"Prefer": "respond-async"}, Parameters={"other": "request"})
    assert reply.status == 202
    system.queue.messages.clear()
    system.pumping = True


def test_one_that_another_request_holds_does_not_keep_the_others_from_being_made(system: System) -> None:
    make_busy(system)
    reply = create(system, "a", "busy", "c")
    assert (reply.status, reply.body) == (409, f"1 error occurred:\n\t* {BUSY}\n\n")
    assert names(system) == ["a", "c"]
    alone = create(system, "busy")
    assert (alone.status, alone.body) == (409, BUSY)


def test_different_troubles_are_told_in_one_text_in_order(system: System) -> None:
    make_busy(system)

    def refuse(rpc: str, _: object) -> None:
        if system.provider.log[-1][1].startswith("bad"):
            raise PluginRejected("no room", code="OUT_OF_RANGE")

    system.provider.before.append(refuse)
    reply = create(system, "bad", "busy", "good")
    no_room = (
        'controller create volume: CSI.ControllerCreateVolume: unsupported capacity_range for volume "bad": '
        "rpc error: code = OutOfRange desc = no room"
    )
    assert (reply.status, reply.body) == (500, f"2 errors occurred:\n\t* {no_room}\n\t* {BUSY}\n\n")
    assert names(system) == ["good"]


def test_expansions_of_one_request_are_side_by_side(system: System) -> None:
    ids = [f"v{number}" for number in range(8)]
    assert create(system, *ids, RequestedCapacityMin=1024).status == 200
    began = system.clock.now()
    system.pumping = False
    waiting = create(system, *ids, RequestedCapacityMin=4096)
    assert waiting.status == 504
    assert system.clock.now() - began <= 25
    assert len(system.queue.messages) >= 8, "all were begun before the first was waited for"
    system.pumping = True
    assert create(system, *ids, RequestedCapacityMin=4096).status == 200
    assert {v.capacity for v in system.provider.volumes.values()} == {4096}


def test_only_new_volumes_are_wanted_and_one_exists(system: System) -> None:
    assert create(system, "old").status == 200
    reply = create(system, "new", "old", headers={"If-None-Match": "*"})
    assert (reply.status, reply.body) == (412, "volume old exists: If-None-Match asks for a new one")
    system.rest(2)
    assert names(system) == ["old"]
    assert len(system.provider.volumes) == 1


def test_plugins_are_asked_about_several_volumes_at_once(system: System) -> None:
    together = threading.Barrier(8)
    system.plugin_queries.answers["validate_volume"] = lambda **_: together.wait(timeout=10)
    ids = [f"v{number}" for number in range(8)]
    body = {"Volumes": [several(i, ExternalID=i)["Volumes"][0] for i in ids]}
    assert system.call("PUT", REGISTER, body).status == 200
    assert names(system) == ids


def test_of_several_that_a_plugin_refuses_the_first_is_told_and_none_is_registered(system: System) -> None:
    def refuse(volume_id: str, **_: object) -> None:
        time.sleep(0.05 if volume_id == "b" else 0)  # noqa: TID251 - the answers come in another order
        if volume_id != "a":
            raise PluginRejected(f"no {volume_id}", code="NOT_FOUND")

    system.plugin_queries.answers["validate_volume"] = refuse
    reply = system.call("PUT", REGISTER, several("a", "b", "c"))
    assert (reply.status, reply.body) == (500, "no b")
    assert names(system) == []


def test_a_request_is_answered_in_time_whatever_it_waits_for(system: System) -> None:
    """Questions first, then an expansion: together no longer than the gateway waits."""
    assert create(system, "data", RequestedCapacityMin=1024).status == 200

    def slow(**_: object) -> None:
        system.clock.moment += 18

    system.plugin_queries.answers["validate_volume"] = slow
    system.pumping = False
    began = system.clock.now()
    body = several("data", RequestedCapacityMin=4096)
    reply = system.call("PUT", REGISTER, body)
    assert (reply.status, "is still running" in reply.body) == (504, True)
    assert system.clock.now() - began <= 25.1


def test_the_same_request_in_another_order_joins(system: System) -> None:
    system.pumping = False
    later = {"Prefer": "respond-async"}
    first = create(system, "data", headers=later, Parameters={"a": "1", "b": "2"})
    again = create(system, "data", headers=later, Parameters={"b": "2", "a": "1"})
    assert (first.status, again.status, again.body) == (202, 202, first.body)
    other = create(system, "data", headers=later, Parameters={"b": "2", "a": "3"})
    assert other.status == 409


@pytest.mark.parametrize(("changes", "status"), [({}, 200), ({"MountOptions": {"FSType": "xfs"}}, 409)])
def test_no_claim_comes_while_an_expansion_changes_what_it_is_judged_by(
    system: System, changes: dict[str, Any], status: int
) -> None:
    system.add_node()
    both = [("multi-node-multi-writer", "file-system"), ("single-node-writer", "file-system")]
    capabilities = [{"AccessMode": a, "AttachmentMode": t} for a, t in both]
    assert create(system, "data", RequestedCapabilities=capabilities, RequestedCapacityMin=1024).status == 200
    system.pumping = False
    wanted = {"RequestedCapabilities": capabilities, "RequestedCapacityMin": 4096, "MountOptions": {}} | changes
    assert create(system, "data", headers={"Prefer": "respond-async"}, **wanted).status == 202
    claim = {"AllocationID": "a", "NodeID": "node-a", "Mode": "write", "AccessMode": "multi-node-multi-writer"}
    reply = system.call("PUT", "/v1/volume/csi/data/claim", claim | {"AttachmentMode": "file-system"})
    assert reply.status == status, reply.body
    if status == 409:
        assert reply.body == "volume data has an operation in progress: update"
        assert create(system, "data", headers={"Prefer": "respond-async"}, **wanted).status == 202, "it joins"
    system.pumping = True
    assert create(system, "data", **wanted).status == 200


def test_too_many_volumes_at_once_are_refused(system: System) -> None:
    reply = create(system, *(f"v{number}" for number in range(65)))
    assert (reply.status, reply.body) == (413, "more than 64 volumes at once: send them in several requests")
    assert names(system) == []
