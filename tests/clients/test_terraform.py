"""Terraform's provider cannot be installed from a package registry: each rule that it goes by is a test of the answers.

The name of a test is the rule; terraform.py has the lists. The provider speaks through Nomad's Go client, so the rules
of test_go_client.py are its rules too.
"""

from typing import Any

import pytest

from tests.clients.terraform import (
    MAY_NOT_CHANGE,
    REPLACES,
    STOPS_RETRIES,
    UPDATES,
    definition,
    gives_up_at,
    takes_for_gone,
)
from tests.harness import Reply, System

CREATE, REGISTER = "/v1/volume/csi/data/create", "/v1/volume/csi/data"
NAMESPACE = "namespace=default"
TOPOLOGY = {"Required": [{"Segments": {"zone": "a"}}], "Preferred": None}


def create(system: System, **fields: Any) -> Reply:
    return system.call("PUT", CREATE, definition(**fields), query=NAMESPACE)


def register(system: System, **fields: Any) -> Reply:
    return system.call("PUT", REGISTER, definition(**({"ExternalID": "ext"} | fields)), query=NAMESPACE)


def read(system: System) -> Any:
    reply = system.call("GET", REGISTER, query=NAMESPACE)
    assert reply.status == 200, reply.body
    return reply.json


PERMANENT: list[tuple[str, dict[str, Any]]] = [
    ("validation:", {"ID": ""}),
    ("validation:", {"PluginID": ""}),
    ("validation:", {"RequestedCapabilities": None}),
    ("validation:", {"SnapshotID": "s", "CloneID": "c"}),
    ("LimitBytes cannot be less than", {"RequestedCapacityMin": 2000, "RequestedCapacityMax": 1000}),
]


@pytest.mark.parametrize(("marker", "fields"), PERMANENT)
def test_a_definition_that_can_never_be_made_stops_the_retries(
    system: System, marker: str, fields: dict[str, Any]
) -> None:
    reply = create(system, **fields)
    assert reply.status in (400, 500)
    assert marker in reply.body
    assert marker in STOPS_RETRIES
    assert system.provider.volumes == {}


def test_a_body_without_a_volume_stops_the_retries(system: System) -> None:
    reply = system.call("PUT", CREATE, {"Volumes": []}, query=NAMESPACE)
    assert (reply.status, reply.body) == (500, "missing volume definition")
    assert gives_up_at(reply.body)


@pytest.mark.parametrize(
    ("plugin", "text"),
    [
        ({"controller": False}, "plugin has no controller"),
        ({"controller_capabilities": frozenset({"LIST_VOLUMES"})}, "plugin does not support creating volumes"),
    ],
)
def test_a_plugin_that_cannot_create_stops_the_retries(system: System, plugin: dict[str, Any], text: str) -> None:
    system.add_plugin("other", **plugin)
    reply = create(system, PluginID="other")
    assert (reply.status, reply.body) == (500, text)
    assert gives_up_at(reply.body)


@pytest.mark.parametrize(
    "change",
    [{"Name": "x"}, {"PluginID": "other"}, {"Parameters": {"a": "b"}}, {"SnapshotID": "s"}, {"CloneID": "c"}],
    ids=lambda change: next(iter(change)),
)
def test_what_an_update_may_not_change_stops_the_retries(system: System, change: dict[str, Any]) -> None:
    system.add_plugin("other")
    assert create(system).status == 200
    made, registered = create(system, **change), register(system, ExternalID="", **change)
    assert made.status == registered.status == 500
    assert made.body.startswith("1 error occurred:\n\t* 1 error occurred:\n\t* volume ")
    assert registered.body.startswith("unable to update volume: 1 error occurred:\n\t* volume ")
    assert "cannot be updated" in made.body
    assert "cannot be updated" in registered.body


def test_another_topology_for_a_volume_that_has_one_stops_the_retries(system: System) -> None:
    assert create(system, RequestedTopologies=TOPOLOGY).status == 200
    reply = create(system, RequestedTopologies={"Required": [{"Segments": {"zone": "b"}}], "Preferred": None})
    assert "not compatible with existing" in reply.body
    assert gives_up_at(reply.body)


def test_a_capacity_below_the_present_one_stops_the_retries(system: System) -> None:
    assert create(system, RequestedCapacityMin=21_000_000).status == 200
    reply = create(system, RequestedCapacityMax=16_000_000)
    assert "max requested capacity (16 MB) less than or equal to current (21 MB)" in reply.body
    assert gives_up_at(reply.body)


def test_other_mount_options_while_the_volume_is_in_use_stop_the_retries(system: System) -> None:
    assert create(system).status == 200
    in_use(system)
    reply = create(system, MountOptions={"FSType": "xfs", "MountFlags": None})
    assert "can not update mount options while volume is in use" in reply.body
    assert gives_up_at(reply.body)


def test_what_may_pass_by_itself_is_retried(system: System) -> None:
    system.add_plugin("down", healthy=False)
    texts = [create(system, PluginID="down").body, create(system, PluginID="not-there-yet").body]
    system.pumping = False
    texts += [create(system).body, create(system, Parameters={"other": "request"}).body]
    assert "no healthy controllers" in texts[0]
    assert "still running" in texts[2]
    assert "operation in progress" in texts[3]
    assert not any(gives_up_at(text) for text in texts)


def test_a_retried_create_that_is_still_running_joins_it_and_makes_one_volume(system: System) -> None:
    system.pumping = False
    assert create(system).status == 504
    system.pumping = True
    assert create(system).status == 200
    assert len(system.provider.volumes) == 1


def test_a_read_sees_the_write_just_made(system: System) -> None:
    for number in range(5):
        volume_id = f"data-{number}"
        path = f"/v1/volume/csi/{volume_id}"
        assert system.call("PUT", f"{path}/create", definition(volume_id), query=NAMESPACE).status == 200
        assert system.call("GET", path, query=NAMESPACE).status == 200
        assert system.call("DELETE", f"{path}/delete", query=NAMESPACE).status == 200
        assert system.call("GET", path, query=NAMESPACE).status == 404


@pytest.mark.parametrize("key", REPLACES)
def test_a_read_names_what_else_would_replace_the_volume(system: System, key: str) -> None:
    create(system)
    assert read(system)[key] == {"ID": "data", "Namespace": "default", "PluginID": "directory"}[key]


@pytest.mark.parametrize("key", UPDATES)
def test_a_read_names_what_else_would_update_the_volume_for_ever(system: System, key: str) -> None:
    create(system)
    assert read(system)[key] == definition()["Volumes"][0][key]


@pytest.mark.parametrize("asked", [None, TOPOLOGY, {"Required": None, "Preferred": [{"Segments": {"zone": "a"}}]}])
def test_requested_topologies_come_back_as_they_were_sent_or_the_volume_is_replaced(
    system: System, asked: dict[str, Any] | None
) -> None:
    create(system, RequestedTopologies=asked)
    assert read(system)["RequestedTopologies"] == asked


def test_create_on_a_volume_that_exists_is_an_update(system: System) -> None:
    create(system)
    wider = [{"AccessMode": "multi-node-reader-only", "AttachmentMode": "file-system"}]
    reply = create(system, RequestedCapabilities=wider, RequestedCapacityMin=5_000_000)
    assert reply.status == 200, reply.body
    after = read(system)
    assert (after["RequestedCapabilities"], after["Capacity"]) == (wider, 5_000_000)
    assert len(system.provider.volumes) == 1


def test_an_update_changes_nothing_that_terraform_expects_to_stay(system: System) -> None:
    create(system, RequestedTopologies=TOPOLOGY, Parameters={"kind": "fast"})
    before = read(system)
    options = {"RequestedTopologies": TOPOLOGY, "RequestedCapacityMin": 7_000_000, "Parameters": {"kind": "fast"}}
    assert create(system, **options, MountOptions={"FSType": "ext4", "MountFlags": ["noatime"]}).status == 200
    after = read(system)
    assert {key: after[key] for key in MAY_NOT_CHANGE} == {key: before[key] for key in MAY_NOT_CHANGE}
    assert after["ModifyIndex"] > before["ModifyIndex"]


def test_an_update_changes_none_of_that_while_the_plugin_is_down(system: System) -> None:
    create(system)
    before = read(system)
    system.add_plugin(healthy=False)
    after = read(system)
    assert {key: after[key] for key in MAY_NOT_CHANGE} == {key: before[key] for key in MAY_NOT_CHANGE}
    assert (before["Schedulable"], after["Schedulable"]) == (True, False)


def test_mount_flags_and_secrets_come_back_redacted_and_null(system: System) -> None:
    options = {"FSType": "ext4", "MountFlags": ["noatime", "password=xyzzy"]}
    made = create(system, MountOptions=options, Secrets={"key": "xyzzy"})
    for volume in (made.json["Volumes"][0], read(system)):
        assert volume["Secrets"] is None
        assert volume["MountOptions"] == {"FSType": "ext4", "MountFlags": ["[REDACTED]"]}
        assert "xyzzy" not in str(volume)


def test_namespace_star_arrives_escaped_and_lists_all(system: System) -> None:
    system.call("PUT", "/v1/namespace", {"Name": "team"})
    create(system)
    system.call("PUT", REGISTER, definition(), query="namespace=team")
    listed = system.call("GET", "/v1/volumes", query="type=csi&namespace=%2A")
    assert [(v["Namespace"], v["ID"]) for v in listed.json] == [("default", "data"), ("team", "data")]


def test_a_list_by_plugin_and_node_is_a_list_even_if_nothing_is_there(system: System) -> None:
    for query in ("type=csi&namespace=default&plugin_id=none", "type=csi&namespace=default&node_id=none"):
        reply = system.call("GET", "/v1/volumes", query=query)
        assert (reply.status, reply.json) == (200, [])


def test_destroy_of_a_missing_volume_says_what_nomad_says(system: System) -> None:
    """Every error of a destroy is retried for nine minutes, this one too: the state was wrong, not the server."""
    for path, query in ((REGISTER, "force=true&namespace=default"), (f"{REGISTER}/delete", NAMESPACE)):
        reply = system.call("DELETE", path, query=query)
        assert (reply.status, reply.body) == (500, "volume not found: data")


def test_destroy_deregisters_with_force_and_keeps_the_storage(system: System) -> None:
    create(system)
    reply = system.call("DELETE", REGISTER, query="force=true&namespace=default")
    assert (reply.status, reply.body) == (200, "")
    assert len(system.provider.volumes) == 1


def test_a_volume_in_use_is_not_destroyed_with_force_either(system: System) -> None:
    create(system)
    in_use(system)
    for path, query in ((REGISTER, "force=true"), (f"{REGISTER}/delete", "")):
        reply = system.call("DELETE", path, query=query)
        assert (reply.status, reply.body) == (500, "volume in use: data")
    assert len(system.provider.volumes) == 1
    assert read(system)["ID"] == "data"


def test_only_a_missing_volume_is_taken_for_gone(system: System) -> None:
    assert takes_for_gone(error(system.call("GET", "/v1/volume/csi/none", query=NAMESPACE)))
    create(system)
    for query in ("region=nope", "wait=bogus", "index=-1", "stale=x", "per_page=x"):
        assert not takes_for_gone(error(system.call("GET", REGISTER, query=query)))


def test_the_error_of_a_read_does_not_repeat_the_id_of_the_volume(system: System) -> None:
    """An ID like disk-404 in another error would make the provider forget the volume."""
    for volume_id in ("disk-404", "404"):
        assert system.call("GET", f"/v1/volume/csi/{volume_id}").body == "volume not found"
        assert "404" not in system.call("GET", f"/v1/volume/csi/{volume_id}", query="region=nope").body


def test_a_store_that_fails_during_a_read_is_not_taken_for_gone(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(system)

    def broken(**_: Any) -> Any:
        from botocore.exceptions import ClientError

        meta = {"RequestId": "1404A404", "HTTPStatusCode": 404}
        raise ClientError({"Error": {"Code": "InternalServerError"}, "ResponseMetadata": meta}, "GetItem")  # type: ignore[typeddict-item]

    monkeypatch.setattr(system.deps.dynamo.client, "get_item", broken)
    reply = system.call("GET", REGISTER, query=NAMESPACE)
    assert reply.status == 503
    assert not takes_for_gone(error(reply))


def test_a_plugin_is_waited_for_until_all_that_is_expected_is_healthy(system: System) -> None:
    system.add_plugin(node_id="node-b", healthy=False)
    waiting = system.call("GET", "/v1/plugin/csi/directory").json
    assert (waiting["ControllersExpected"], waiting["ControllersHealthy"]) == (2, 1)
    assert (waiting["NodesExpected"], waiting["NodesHealthy"]) == (2, 1)
    system.add_plugin(node_id="node-b")
    healthy = system.call("GET", "/v1/plugin/csi/directory").json
    assert healthy["ControllersExpected"] == healthy["ControllersHealthy"] == 2
    assert healthy["NodesExpected"] == healthy["NodesHealthy"] == 2


def test_a_plugin_that_is_not_there_yet_is_gone_and_not_an_error(system: System) -> None:
    reply = system.call("GET", "/v1/plugin/csi/none")
    assert (reply.status, reply.body) == (404, "plugin not found")


def test_a_namespace_is_an_object_and_a_missing_one_is_gone(system: System) -> None:
    assert system.call("PUT", "/v1/namespace", {"Name": "team", "Meta": {"a": "b"}}).body == ""
    assert system.call("GET", "/v1/namespace/team").json["Meta"] == {"a": "b"}
    reply = system.call("GET", "/v1/namespace/none")
    assert (reply.status, reply.body) == (404, "Namespace not found")


def test_an_unknown_namespace_is_named_before_anything_is_made(system: System) -> None:
    reply = system.call("PUT", CREATE, definition(), query="namespace=none")
    text = "1 error occurred:\n\t* volume data is in nonexistent namespace none\n\n"
    assert (reply.status, reply.body) == (500, text)
    assert system.provider.volumes == {}
    assert system.call("GET", REGISTER, query="namespace=none").body == "volume not found"


def error(reply: Reply) -> str:
    """What the Go client makes of an answer that is no success."""
    return f"Unexpected response code: {reply.status} ({reply.body.strip()})"


def in_use(system: System) -> None:
    """An allocation has the volume open."""
    system.add_node()
    claim = {"AllocationID": "a", "NodeID": "node-a", "Mode": "read"}
    claim |= {"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}
    reply = system.call("PUT", "/v1/volume/csi/data/claim", claim, query=NAMESPACE)
    assert reply.status == 200, reply.body
