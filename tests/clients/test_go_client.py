"""Nomad's Go client, and so the CLI and Terraform: what it needs of headers and JSON, as measured.

tests/conformance/go_client runs the client itself.
"""

import json
import re
from typing import Any

import pytest

from tests.clients.terraform import definition
from tests.harness import Reply, System

CREATE, VOLUME = "/v1/volume/csi/data/create", "/v1/volume/csi/data"
READS = [
    ("/v1/volumes", "type=csi"),
    (VOLUME, ""),
    ("/v1/plugins", "type=csi"),
    ("/v1/plugin/csi/directory", ""),
    ("/v1/nodes", ""),
    ("/v1/namespaces", ""),
    ("/v1/namespace/default", ""),
]


@pytest.fixture
def made(system: System) -> System:
    assert system.call("PUT", CREATE, definition()).status == 200
    return system


@pytest.mark.parametrize(("path", "query"), [*READS, ("/v1/volume/csi/none", ""), ("/v1/plugin/csi/none", "")])
def test_a_read_has_all_three_headers_in_the_form_that_is_parsed(made: System, path: str, query: str) -> None:
    """Parsing ends at the first one that is not an integer, and the token of the next page would be lost."""
    headers = made.call("GET", path, query=query).headers
    assert re.fullmatch("[0-9]+", headers["X-Nomad-Index"])
    assert re.fullmatch("[0-9]+", headers["X-Nomad-Lastcontact"])
    assert headers["X-Nomad-Knownleader"] == "true"


def test_the_answers_of_a_plugin_have_index_zero_and_no_leader(made: System) -> None:
    made.plugin_queries.answers["list_volumes"] = lambda **_: {"entries": [], "next_token": "more"}
    reply = made.call("GET", "/v1/volumes/external", query="plugin_id=directory&per_page=30")
    assert (reply.headers["X-Nomad-Index"], reply.headers["X-Nomad-Knownleader"]) == ("0", "false")
    assert reply.json["NextToken"] == "more"


def test_lists_of_a_plugin_are_objects_and_never_null(made: System) -> None:
    """The client goes down over a null."""
    made.add_plugin(controller_capabilities=frozenset({"LIST_VOLUMES", "LIST_SNAPSHOTS", "CREATE_DELETE_SNAPSHOT"}))
    for question in ("list_volumes", "list_snapshots"):
        made.plugin_queries.answers[question] = lambda **_: {"entries": [], "next_token": ""}
    for path in ("/v1/volumes/external", "/v1/volumes/snapshot"):
        body = made.call("GET", path, query="plugin_id=directory").json
        assert isinstance(body, dict)
        assert set(body) >= {"NextToken"}


@pytest.mark.parametrize(("path", "query"), READS)
def test_every_number_is_a_plain_integer_and_every_time_has_a_zone(made: System, path: str, query: str) -> None:
    body = made.call("GET", path, query=query).body
    assert body != "null"
    found: list[Any] = []
    json.loads(body, parse_float=found.append)
    assert found == []
    for name, value in pairs(json.loads(body)):
        if name == "ResourceExhausted":
            assert value is None
        if name in ("CreateTime", "ModifyTime", "StatusUpdatedAt"):
            assert isinstance(value, int)
            assert 0 <= value < 2**63
        if name == "UpdateTime":
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value)
        if name.endswith("Index"):
            assert 0 <= value < 2**64


def test_maps_hold_text_only(made: System) -> None:
    for name, value in pairs(made.call("GET", VOLUME).json):
        if name in ("Context", "Parameters", "Segments"):
            assert all(isinstance(v, str) for v in value.values())


@pytest.mark.parametrize("method_path", [("PUT", CREATE), ("PUT", VOLUME), ("PUT", "/v1/volumes")])
def test_a_write_answers_exactly_200_with_a_body(made: System, method_path: tuple[str, str]) -> None:
    reply = made.call(*method_path, definition(ExternalID=""))
    assert reply.status == 200, reply.body
    assert reply.json["Volumes"][0]["ID"] == "data"
    assert reply.headers["X-Nomad-Index"] == str(reply.json["Index"])
    assert reply.json["LastContact"] == 0


def test_a_delete_answers_200_without_body_and_content_type(made: System) -> None:
    for path in (VOLUME, "/v1/namespace/team"):
        made.call("PUT", "/v1/namespace", {"Name": "team"})
        reply = made.call("DELETE", path)
        assert (reply.status, reply.body, reply.headers["Content-Type"]) == (200, "", "")


def test_a_write_answers_what_was_sent_and_not_yet_what_is_stored(system: System) -> None:
    volume = system.call("PUT", CREATE, definition()).json["Volumes"][0]
    assert (volume["CreateIndex"], volume["Schedulable"], volume["ControllersHealthy"]) == (0, False, 0)
    assert volume["ExternalID"] == "ext-1"


def test_errors_are_bare_text(made: System) -> None:
    for reply in (
        made.call("GET", "/v1/volume/csi/none"),
        made.call("PUT", VOLUME, b"{"),
        made.call("DELETE", "/v1/volume/csi/none"),
        made.call("POST", VOLUME),
    ):
        assert reply.status >= 400
        assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert not reply.body.startswith("{")
        assert reply.body == reply.body.strip() != ""


def test_a_body_needs_no_content_type_and_an_answer_that_is_plain_claims_no_encoding(system: System) -> None:
    headers = {"Accept-Encoding": "gzip", "User-Agent": "Go-http-client/1.1"}
    reply = system.call("PUT", CREATE, definition(), headers=headers)
    assert reply.status == 200
    assert "Content-Encoding" not in reply.headers
    assert reply.headers["Vary"] == "Accept-Encoding"


def test_zero_and_null_mean_not_given(system: System) -> None:
    reply = system.call("PUT", CREATE, definition(), query="namespace=default")
    assert reply.status == 200, reply.body
    read = system.call("GET", VOLUME).json
    assert (read["Namespace"], read["ResourceExhausted"]) == ("default", None)
    assert read["CreateTime"] > 0


def test_one_volume_by_every_spelling_of_its_id(system: System) -> None:
    """Sent raw in GET and PUT, escaped in DELETE."""
    body = definition("my vol[0]")
    assert system.call("PUT", "/v1/volume/csi/my%20vol[0]/create", body).status == 200
    for path in ("/v1/volume/csi/my vol[0]", "/v1/volume/csi/my%20vol%5B0%5D", "/v1/volume/csi/my%20vol[0]"):
        assert system.call("GET", path).json["ID"] == "my vol[0]"
    assert system.call("DELETE", "/v1/volume/csi/my%20vol%5B0%5D/delete").status == 200
    assert system.provider.volumes == {}


def test_an_id_with_a_slash_is_unusable_as_in_nomad(system: System) -> None:
    assert system.call("DELETE", "/v1/volume/csi/a%2Fb").body == "resource not found"
    assert system.call("GET", "/v1/volume/csi/a%2Fb").status == 405


def test_the_token_of_the_next_page_is_namespace_and_id_of_its_first_volume(system: System) -> None:
    volumes = [definition(f"v-{n}")["Volumes"][0] for n in range(3)]
    assert system.call("PUT", "/v1/volumes", {"Volumes": volumes}).status == 200
    first = system.call("GET", "/v1/volumes", query="type=csi&per_page=2")
    assert first.headers["X-Nomad-Nexttoken"] == "default.v-2"
    second = system.call("GET", "/v1/volumes", query="type=csi&per_page=2&next_token=default.v-2")
    assert [v["ID"] for v in second.json] == ["v-2"]
    assert "X-Nomad-Nexttoken" not in second.headers


def test_a_list_takes_every_query_option_of_the_client(made: System) -> None:
    query = "type=csi&prefix=da&filter=Name+is+not+empty&per_page=5&next_token=&stale=&reverse=true&region=global"
    assert [v["ID"] for v in made.call("GET", "/v1/volumes", query=query).json] == ["data"]


def test_wait_is_read_in_milliseconds_and_capped_below_the_gateways_limit(made: System) -> None:
    """The client waits without a limit of its own: a gateway's error would end its query."""
    listed = made.call("GET", "/v1/volumes", query="type=csi")
    for wait, low, high in (("1500ms", 1.5, 1.6), ("600000ms", 20.0, 29.0)):
        before = made.clock.moment
        reply = made.call("GET", "/v1/volumes", query=f"type=csi&index={listed.headers['X-Nomad-Index']}&wait={wait}")
        assert reply.status == 200
        assert low <= made.clock.moment - before <= high


def test_the_prefix_of_plugin_list_is_one_of_volumes(made: System) -> None:
    """CSIVolumes.PluginList sends its plugin as `prefix`."""
    assert made.call("GET", "/v1/volumes", query="type=csi&prefix=directory").json == []
    assert [v["ID"] for v in made.call("GET", "/v1/volumes", query="type=csi&plugin_id=directory").json] == ["data"]


def test_the_header_with_secrets_is_taken_everywhere_whatever_it_holds(made: System) -> None:
    """Write options are used again, and the header leaks into calls that have nothing to do with it."""
    for value in ("", "k=v,k2=v2", "malformed", "=", ","):
        headers = {"X-Nomad-Csi-Secrets": value}
        for path, query in READS:
            assert made.call("GET", path, query=query, headers=headers).status == 200
        assert made.call("PUT", VOLUME, definition(ExternalID=""), headers=headers).status == 200


def pairs(value: Any) -> list[tuple[str, Any]]:
    """Every key with its value, however deep."""
    if isinstance(value, list):
        return [pair for element in value for pair in pairs(element)]
    if not isinstance(value, dict):
        return []
    return [*value.items(), *(pair for element in value.values() for pair in pairs(element))]


def test_a_reply_is_what_the_client_prints(made: System) -> None:
    reply: Reply = made.call("GET", VOLUME, query="pretty")
    assert reply.body.endswith("}\n")
    assert json.loads(reply.body) == made.call("GET", VOLUME).json
