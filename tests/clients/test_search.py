"""PUT and POST /v1/search and /v1/search/fuzzy: contexts, order, truncation, errors (recorded of Nomad 2.0.6)."""

from typing import Any

import pytest

from chalicelib.domain.plugin import Node
from tests.harness import System, definition

CONTEXTS = "allocs jobs nodes node_pools evals deployment plugins volumes scaling_policy vars namespaces host_volumes"


@pytest.fixture
def filled(system: System) -> System:
    """Volumes `ms-00` to `ms-24` and `other`, a namespace `team-a` with one volume, plugins and nodes."""
    for name in ("team-a", "steam"):
        assert system.call("PUT", "/v1/namespace", {"Name": name}).status == 200
    body = {"Volumes": [definition(f"ms-{n:02}")["Volumes"][0] for n in range(25)]}
    assert system.call("PUT", "/v1/volumes", body).status == 200
    assert system.call("PUT", "/v1/volumes", definition("other")).status == 200
    assert system.call("PUT", "/v1/volumes", definition("ms-far"), query="namespace=team-a").status == 200
    system.add_plugin("disk", node_id="node-b")
    for node_id, name in (("node-a", "Alpha"), ("node-b", "beta-alpha")):
        node = Node(node_id, name, "10.0.0.1:7443", key="k", instance_id="i", sequence=1, seen_at=0.0, modify_index=3)
        assert system.deps.plugins.put_node(node, digest="d", read=None)
    return system


def search(system: System, body: dict[str, Any], *, query: str = "", path: str = "/v1/search") -> dict[str, Any]:
    reply = system.call("PUT", path, body, query=query)
    assert reply.status == 200, reply.body
    assert int(reply.headers["X-Nomad-Index"]) == reply.json["Index"]
    assert {"KnownLeader", "LastContact", "NextToken"} < set(reply.json)
    answer: dict[str, Any] = reply.json
    return answer


def test_volumes_by_prefix_are_the_first_twenty_in_order_and_say_that_there_are_more(filled: System) -> None:
    found = search(filled, {"Prefix": "ms-", "Context": "volumes"})
    assert found["Matches"] == {"volumes": [f"ms-{n:02}" for n in range(20)]}
    assert found["Truncations"] == {"volumes": True}
    exact = search(filled, {"Prefix": "ms-1", "Context": "volumes"})
    assert exact["Matches"] == {"volumes": [f"ms-{n}" for n in range(10, 20)]}
    assert exact["Truncations"] == {"volumes": False}


def test_post_does_what_put_does(filled: System) -> None:
    body = {"Prefix": "oth", "Context": "volumes"}
    assert filled.call("POST", "/v1/search", body).json == search(filled, body)


def test_a_deleted_volume_is_not_found(filled: System) -> None:
    assert filled.call("DELETE", "/v1/volume/csi/other").status == 200
    assert search(filled, {"Prefix": "other", "Context": "volumes"})["Matches"] == {"volumes": None}


def test_all_contexts_have_null_where_nothing_is_and_leave_out_what_no_uuid_begins_with(filled: System) -> None:
    found = search(filled, {"Prefix": "ms-", "Context": "all"})
    assert len(found["Matches"].pop("volumes")) == 20
    # As recorded: no allocs, evals, deployment, nodes for a text that is no beginning of a UUID.
    kinds = {"vars", "namespaces", "host_volumes", "jobs", "node_pools", "plugins", "scaling_policy"}
    assert found["Matches"] == dict.fromkeys(kinds)
    assert set(found["Truncations"]) == kinds | {"volumes"}
    everything = search(filled, {"Prefix": "", "Context": "all"})["Matches"]
    assert set(everything) == set(CONTEXTS.split())
    assert everything["plugins"] == ["directory", "disk"]


def test_nodes_plugins_and_namespaces_by_prefix(filled: System) -> None:
    def ids(context: str, prefix: str) -> Any:
        return search(filled, {"Prefix": prefix, "Context": context})["Matches"][context]

    assert ids("nodes", "") == ["node-a", "node-b"]
    assert ids("nodes", "node-b") == ["node-b"]
    assert ids("plugins", "dir") == ["directory"]
    assert ids("namespaces", "") == ["default", "steam", "team-a"]
    assert ids("namespaces", "te") == ["team-a"]
    assert ids("jobs", "") is None
    # `nomad status node-b` asks for everything and must find the node though its ID is no UUID.
    assert search(filled, {"Prefix": "node-b", "Context": "all"})["Matches"]["nodes"] == ["node-b"]


def test_the_namespace_of_the_query_counts_then_that_of_the_body(filled: System) -> None:
    body = {"Prefix": "ms-f", "Context": "volumes"}
    assert search(filled, body)["Matches"]["volumes"] is None
    assert search(filled, body, query="namespace=team-a")["Matches"]["volumes"] == ["ms-far"]
    assert search(filled, body, query="namespace=*")["Matches"]["volumes"] == ["ms-far"]
    assert search(filled, body | {"Namespace": "team-a"})["Matches"]["volumes"] == ["ms-far"]


def test_the_go_clients_body_with_all_query_options_is_understood(filled: System) -> None:
    options = {
        "Region": "", "Namespace": "", "AllowStale": False, "Filter": "", "NextToken": "", "PerPage": 0, "Params": None,
        "Prefix": "other", "AuthToken": "", "WaitIndex": 0, "WaitTime": 0, "Headers": None, "Reverse": False,
    }  # fmt: skip
    assert search(filled, options | {"Context": "volumes"})["Matches"]["volumes"] == ["other"]


def test_an_index_rises_when_a_volume_comes(filled: System) -> None:
    before = search(filled, {"Prefix": "", "Context": "volumes"})["Index"]
    assert filled.call("PUT", "/v1/volumes", definition("more")).status == 200
    assert search(filled, {"Prefix": "", "Context": "volumes"})["Index"] > before > 0


def test_fuzzy_finds_names_that_hold_the_text_in_any_case_best_first(filled: System) -> None:
    found = search(filled, {"Text": "ALPHA", "Context": "nodes"}, path="/v1/search/fuzzy")
    assert found["Matches"] == {
        "nodes": [{"ID": "Alpha", "Scope": ["node-a"]}, {"ID": "beta-alpha", "Scope": ["node-b"]}]
    }
    found = search(filled, {"Text": "team", "Context": "namespaces"}, path="/v1/search/fuzzy")
    assert found["Matches"] == {"namespaces": [{"ID": "team-a"}, {"ID": "steam"}]}


def test_fuzzy_over_everything_has_the_recorded_keys(filled: System) -> None:
    found = search(filled, {"Text": "ms-1", "Context": "all"}, path="/v1/search/fuzzy")
    assert found["Matches"] == {
        "deployment": [],
        "evals": [],
        "host_volumes": [],
        "scaling_policy": [],
        "volumes": [{"ID": f"ms-{n}"} for n in range(10, 20)],
    }
    assert found["Truncations"] == dict.fromkeys(CONTEXTS.split(), False)


def test_what_a_search_refuses(system: System) -> None:
    def refused(body: Any, *, method: str = "PUT", path: str = "/v1/search", query: str = "") -> tuple[int, str]:
        reply = system.call(method, path, body, query=query)
        return reply.status, reply.body

    bogus = f"context must be one of [{CONTEXTS}] or 'all' for all contexts; got \"bogus\""
    assert refused({"Prefix": "", "Context": "bogus"}) == (500, bogus)
    assert refused({"Text": "ab", "Context": "bogus"}, path="/v1/search/fuzzy") == (500, bogus)
    short = "fuzzy search query must be at least 2 characters, got 1"
    assert refused({"Text": "a", "Context": "all"}, path="/v1/search/fuzzy") == (500, short)
    assert refused(None) == (400, "Request body is empty")
    assert refused(None, method="GET") == (405, "Invalid method")
    wrong = "json: cannot unmarshal number into Go struct field SearchRequest.Prefix of type string"
    assert refused({"Prefix": 1}) == (400, wrong)
    assert refused({"Prefix": "", "Context": "all", "Region": "nope"}) == (500, "No path to region")
    assert refused({"Prefix": "", "Context": "all"}, query="region=nope") == (500, "No path to region")


def test_a_search_queries_and_never_scans(filled: System) -> None:
    asked: list[str] = []
    events = filled.deps.dynamo.client.meta.events
    events.register("before-call.dynamodb", lambda model, **_: asked.append(model.name), unique_id="count")
    search(filled, {"Prefix": "", "Context": "all"}, query="namespace=*")
    search(filled, {"Text": "al", "Context": "all"}, path="/v1/search/fuzzy")
    events.unregister("before-call.dynamodb", unique_id="count")
    assert set(asked) <= {"Query", "GetItem", "BatchGetItem"}
    assert len(asked) < 30
