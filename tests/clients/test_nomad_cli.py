"""The nomad CLI cannot be installed from a package registry: each command is a test of what it asks, in its order.

Recorded from the CLI of Nomad 2.0.6. It speaks through the Go client: test_go_client.py has what that needs.
"""

from typing import Any

import pytest

from chalicelib.domain.plugin import Node
from tests.clients.terraform import definition
from tests.harness import Reply, System

VOLUME = "/v1/volume/csi/data"


@pytest.fixture
def made(system: System) -> System:
    """A volume `data`, one `database`, and the node that runs the plugin."""
    for volume_id in ("data", "database"):
        assert system.call("PUT", f"/v1/volume/csi/{volume_id}/create", definition(volume_id)).status == 200
    node = Node(
        "node-a", "alpha", "10.0.0.1:7443", key="k", instance_id="i", sequence=1, seen_at=0.0,
        plugin_ids=("directory",), modify_index=3,
    )  # fmt: skip
    assert system.deps.plugins.put_node(node, digest="d", read=None)
    return system


def ids(reply: Reply) -> list[str]:
    assert reply.status == 200, reply.body
    return [entry["ID"] for entry in reply.json]


def test_volume_status_asks_for_host_volumes_first_and_then_for_csi(made: System) -> None:
    host = made.call("GET", "/v1/volumes", query="type=host")
    assert (host.status, host.json) == (200, [])
    assert host.headers["X-Nomad-Index"] == "1"
    assert ids(made.call("GET", "/v1/volumes", query="type=csi")) == ["data", "database"]


def test_volume_status_of_an_id_picks_the_exact_one_of_the_prefix(made: System) -> None:
    assert made.call("GET", "/v1/volumes", query="prefix=data&type=host").json == []
    found = ids(made.call("GET", "/v1/volumes", query="prefix=data&type=csi"))
    assert found == ["data", "database"]
    body = made.call("GET", VOLUME).json
    assert (body["ID"], body["Allocations"], body["ReadAllocs"], body["WriteAllocs"]) == ("data", [], {}, {})


def test_volume_status_verbose_asks_each_plugin_for_thirty_volumes(made: System) -> None:
    made.plugin_queries.answers["list_volumes"] = lambda **_: {"entries": [], "next_token": ""}
    plugins = ids(made.call("GET", "/v1/plugins", query="type=csi"))
    assert plugins == ["directory"]
    assert made.call("GET", "/v1/volumes/external", query="per_page=30&plugin_id=directory").status == 200
    assert made.plugin_queries.asked[-1] == (
        "list_volumes",
        {"plugin_id": "directory", "per_page": 30, "next_token": ""},
    )


def test_volume_create_prints_the_external_id_of_the_answer(system: System) -> None:
    reply = system.call("PUT", f"{VOLUME}/create", definition(Secrets={"a": "b"}))
    assert [v["ExternalID"] for v in reply.json["Volumes"]] == list(system.provider.volumes)


def test_volume_register_takes_the_body_of_the_cli(system: System) -> None:
    assert system.call("PUT", VOLUME, definition(ExternalID="ext")).status == 200
    assert system.call("GET", VOLUME).json["ExternalID"] == "ext"


def test_volume_delete_looks_for_the_id_first_and_sends_secrets_in_the_header(made: System) -> None:
    assert "data" in ids(made.call("GET", "/v1/volumes", query="prefix=data&type=csi"))
    reply = made.call("DELETE", f"{VOLUME}/delete", headers={"X-Nomad-Csi-Secrets": "a=b,c=d"})
    assert (reply.status, reply.body) == (200, "")
    assert made.provider.secrets[-1] == {"a": "b", "c": "d"}


def test_volume_deregister_sends_force_and_keeps_the_storage(made: System) -> None:
    assert made.call("DELETE", VOLUME, query="force=false").status == 200
    assert len(made.provider.volumes) == 2


def test_volume_detach_finds_the_node_by_prefix_and_asks_for_its_id(made: System) -> None:
    assert ids(made.call("GET", "/v1/nodes", query="prefix=node-")) == ["node-a"]
    assert made.call("DELETE", f"{VOLUME}/detach", query="node=node-a").status == 200
    missing = made.call("DELETE", f"{VOLUME}/detach")
    assert (missing.status, missing.body) == (400, "detach requires node ID")


def test_volume_detach_of_an_unknown_node_falls_back_to_the_list_and_the_read(made: System) -> None:
    assert made.call("GET", "/v1/nodes", query="prefix=gone").json == []
    assert "data" in ids(made.call("GET", "/v1/volumes", query="prefix=data&type=csi"))
    assert made.call("GET", VOLUME).status == 200


def test_volume_snapshot_list_finds_the_plugin_by_prefix(made: System) -> None:
    made.plugin_queries.answers["list_snapshots"] = lambda **_: {"entries": [], "next_token": ""}
    made.add_plugin(controller_capabilities=frozenset({"LIST_SNAPSHOTS", "CREATE_DELETE_SNAPSHOT"}))
    assert ids(made.call("GET", "/v1/plugins", query="type=csi&prefix=dir")) == ["directory"]
    reply = made.call("GET", "/v1/volumes/snapshot", query="plugin_id=directory&per_page=30")
    assert (reply.status, reply.json["NextToken"]) == (200, "")


def test_plugin_status_of_an_id_lists_by_prefix_and_reads(made: System) -> None:
    assert ids(made.call("GET", "/v1/plugins", query="prefix=directory&type=csi")) == ["directory"]
    body = made.call("GET", "/v1/plugin/csi/directory").json
    assert (body["ControllersHealthy"], body["ControllersExpected"]) == (1, 1)
    assert set(body["Controllers"]) == set(body["Nodes"]) == {"node-a"}


def test_status_of_an_id_searches_everything(made: System) -> None:
    found = made.call("PUT", "/v1/search", {"Prefix": "database", "Context": "all"}).json["Matches"]
    assert {context: matches for context, matches in found.items() if matches} == {"volumes": ["database"]}


def test_status_without_an_id_lists_jobs_and_asks_the_agent_for_hints(made: System) -> None:
    assert made.call("GET", "/v1/jobs").json == []
    assert made.call("GET", "/v1/agent/self").json["config"]["UI"]["ShowCLIHints"] is False


def test_node_status_of_an_id_subtracts_numbers_that_must_be_there(made: System) -> None:
    assert ids(made.call("GET", "/v1/nodes", query="prefix=node-a")) == ["node-a"]
    body = made.call("GET", "/v1/node/node-a").json
    assert set(body["Resources"]) == set(body["Reserved"]) == {"CPU", "DiskMB", "MemoryMB"}
    for resources in (body["NodeResources"], body["ReservedResources"]):
        numbers = (resources["Cpu"]["CpuShares"], resources["Memory"]["MemoryMB"], resources["Disk"]["DiskMB"])
        assert numbers == (0, 0, 0)
    assert made.call("GET", "/v1/node/node-a/allocations").json == []
    assert set(body["CSIControllerPlugins"]) == {"directory"}


def test_node_status_goes_on_without_figures(made: System) -> None:
    reply = made.call("GET", "/v1/client/stats", query="node_id=node-a")
    assert (reply.status, reply.body) == (404, "No path to node")


def test_server_members_finds_the_leader_of_each_region(made: System) -> None:
    members = made.call("GET", "/v1/agent/members").json["Members"]
    assert [m["Tags"]["region"] for m in members] == ["global"]
    leader = made.call("GET", "/v1/status/leader", query="region=global").json
    assert leader in {f"{m['Tags']['rpc_addr']}:{m['Tags']['port']}" for m in members}
    assert made.call("GET", "/v1/agent/self").status == 200


def test_namespace_apply_reads_first_and_goes_on_after_a_404(system: System) -> None:
    missing = system.call("GET", "/v1/namespace/team")
    assert (missing.status, missing.body) == (404, "Namespace not found")
    body: dict[str, Any] = {
        "Name": "team", "Description": "a", "Quota": "", "Capabilities": None, "NodePoolConfiguration": None,
        "VaultConfiguration": None, "ConsulConfiguration": None, "Meta": None, "CreateIndex": 0, "ModifyIndex": 0,
        "RequiredExtraClaims": None, "OptionalExtraClaims": None,
    }  # fmt: skip
    reply = system.call("PUT", "/v1/namespace", body)
    assert (reply.status, reply.body) == (200, "")
    assert [n["Name"] for n in system.call("GET", "/v1/namespaces", query="prefix=te").json] == ["team"]


def test_namespace_delete_is_refused_while_volumes_are_in_it(system: System) -> None:
    system.call("PUT", "/v1/namespace", {"Name": "team"})
    system.call("PUT", f"{VOLUME}/create", definition(), query="namespace=team")
    reply = system.call("DELETE", "/v1/namespace/team")
    text = '1 error occurred:\n\t* namespace "team" has volumes associated with it in regions: [global]\n\n'
    assert (reply.status, reply.body) == (500, text)


def test_acl_token_create_asks_for_the_policy_first_and_hears_that_acls_are_off(system: System) -> None:
    reply = system.call("GET", "/v1/acl/policy/reader")
    assert (reply.status, reply.body) == (400, "ACL support disabled")


def test_operator_api_with_a_pipe_on_stdin_becomes_post_and_is_refused_as_in_nomad(made: System) -> None:
    reply = made.call("POST", VOLUME, definition())
    assert (reply.status, reply.body) == (405, "Invalid method")


def test_namespace_and_region_of_the_environment_are_taken_by_every_command(made: System) -> None:
    query = "namespace=default&region=global"
    for path in ("/v1/plugins", "/v1/nodes", "/v1/namespaces", VOLUME, "/v1/agent/members", "/v1/jobs"):
        assert made.call("GET", path, query=f"type=csi&{query}").status == 200
