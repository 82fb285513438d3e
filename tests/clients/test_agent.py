"""What clients ask an agent for beside volumes (recorded of Nomad 2.0.6)."""

import pytest

from tests.harness import System


def test_leader_and_peers_are_one_address_and_members_carry_it_in_parts(system: System) -> None:
    leader = system.call("GET", "/v1/status/leader").json
    assert system.call("GET", "/v1/status/peers").json == [leader]
    assert system.call("GET", "/v1/agent/servers").json == [leader]
    (member,) = system.call("GET", "/v1/agent/members").json["Members"]
    # `nomad server members` says who leads by comparing these two.
    assert f"{member['Tags']['rpc_addr']}:{member['Tags']['port']}" == leader
    assert member["Status"] == "alive"


def test_an_unknown_region_is_refused_by_the_leader_as_recorded(system: System) -> None:
    assert system.call("GET", "/v1/regions").json == ["global"]
    assert system.call("GET", "/v1/status/leader", query="region=global").status == 200
    reply = system.call("GET", "/v1/status/leader", query="region=nope")
    assert (reply.status, reply.body) == (500, "No path to region")


def test_agent_self_names_region_datacenter_and_that_acls_are_off(system: System) -> None:
    body = system.call("GET", "/v1/agent/self").json
    assert set(body) == {"config", "member", "stats"}
    assert (body["config"]["Region"], body["config"]["Datacenter"]) == ("global", "dc1")
    assert body["config"]["ACL"]["Enabled"] is False
    assert body["config"]["UI"] == {"Enabled": False, "ShowCLIHints": False}
    assert body["member"] == system.call("GET", "/v1/agent/members").json["Members"][0]
    # The Go client takes figures for text only.
    assert all(isinstance(v, str) for figures in body["stats"].values() for v in figures.values())


@pytest.mark.parametrize(("kind", "keys"), [("", {"server", "client"}), ("server", {"server"}), ("bogus", set())])
def test_health_by_kind(system: System, kind: str, keys: set[str]) -> None:
    body = system.call("GET", "/v1/agent/health", query=f"type={kind}" if kind else "").json
    assert set(body) == keys
    assert all(value == {"message": "ok", "ok": True} for value in body.values())


def test_nobody_joins_and_the_answer_counts_them(system: System) -> None:
    reply = system.call("PUT", "/v1/agent/join", query="address=nomad.local")
    assert (reply.status, reply.json["num_joined"]) == (200, 0)
    assert "no servers" in reply.json["error"]
    left = system.call("PUT", "/v1/agent/force-leave", query="node=gone")
    assert (left.status, left.body) == (200, "")
    refused = system.call("PUT", "/v1/agent/servers", query="address=10.0.0.1:4647")
    assert refused.status == 500
    assert "no servers" in refused.body


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/allocations", "/v1/evaluations", "/v1/deployments"])
def test_what_only_jobs_have_is_an_empty_list_that_never_changes(system: System, path: str) -> None:
    reply = system.call("GET", path, query="prefix=x&namespace=*&per_page=10&reverse=true")
    assert (reply.status, reply.json, reply.headers["X-Nomad-Index"]) == (200, [], "1")
    assert reply.headers["X-Nomad-Knownleader"] == "true"
    before = system.clock.moment
    system.call("GET", path, query="index=1&wait=4s")
    assert 4 <= system.clock.moment - before < 5
    assert system.call("GET", path, query="region=nope").body == "No path to region"
    assert system.call("DELETE", path).status == 405


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/v1/job/web", "job not found"),
        ("/v1/job/web/summary", "job not found"),
        ("/v1/allocation/8ba85cef-6cc2-4dcb-8a3c-4a5ac4a2ae1b", "alloc not found"),
        ("/v1/evaluation/8ba85cef-6cc2-4dcb-8a3c-4a5ac4a2ae1b", "eval not found"),
        ("/v1/deployment/8ba85cef-6cc2-4dcb-8a3c-4a5ac4a2ae1b", "deployment not found"),
    ],
)
def test_what_only_jobs_have_is_not_found(system: System, path: str, text: str) -> None:
    reply = system.call("GET", path)
    assert (reply.status, reply.body) == (404, text)
    assert reply.headers["X-Nomad-Index"] == "1"


@pytest.mark.parametrize(("method", "path"), [("PUT", "/v1/jobs"), ("POST", "/v1/job/web"), ("DELETE", "/v1/job/web")])
def test_jobs_are_refused_in_words(system: System, method: str, path: str) -> None:
    reply = system.call(method, path, {"Job": {"ID": "web"}})
    assert (reply.status, reply.body) == (
        500,
        "jobs are not served here, only storage volumes: run them on a Nomad cluster",
    )


def test_figures_of_a_node_are_refused_as_of_one_that_is_lost(system: System) -> None:
    for path in ("/v1/client/stats", "/v1/client/allocation/x/stats"):
        reply = system.call("GET", path, query="node_id=node-a")
        assert (reply.status, reply.body) == (404, "No path to node")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/acl/policies"),
        ("GET", "/v1/acl/policy/x"),
        ("PUT", "/v1/acl/policy/x"),
        ("GET", "/v1/acl/tokens"),
        ("GET", "/v1/acl/token/8ba85cef-6cc2-4dcb-8a3c-4a5ac4a2ae1b"),
        ("PUT", "/v1/acl/token"),
        ("POST", "/v1/acl/bootstrap"),
        ("GET", "/v1/acl/roles"),
        ("GET", "/v1/acl/auth-methods"),
        ("GET", "/v1/acl/binding-rules"),
        ("POST", "/v1/acl/login"),
    ],
)
def test_acl_endpoints_say_that_acls_are_off(system: System, method: str, path: str) -> None:
    reply = system.call(method, path)
    assert (reply.status, reply.body) == (400, "ACL support disabled")


def test_acl_methods_and_names_are_checked_before_that(system: System) -> None:
    assert (system.call("GET", "/v1/acl/bootstrap").status, system.call("GET", "/v1/acl/bootstrap").body) == (
        405,
        "Invalid method",
    )
    assert system.call("PATCH", "/v1/acl/policy/x").status == 405
    assert system.call("GET", "/v1/acl/policy/").body == "Missing Policy Name"


def test_token_self_is_the_token_of_everyone(system: System) -> None:
    reply = system.call("GET", "/v1/acl/token/self", headers={"X-Nomad-Token": "whatever"})
    assert reply.status == 200
    assert (reply.json["AccessorID"], reply.json["Type"]) == ("acls-disabled", "client")
    # The Go client reads times with a zone only, and a lifetime as text.
    assert (reply.json["CreateTime"], reply.json["ExpirationTTL"]) == ("0001-01-01T00:00:00Z", "")
    assert reply.headers["X-Nomad-Index"] == "0"
