"""docs/openapi.yaml itself: valid, complete in both directions, its examples true, and a judge that sees faults."""

import copy
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from openapi_spec_validator import validate

from chalicelib.routes.mux import ANY
from chalicelib.routes.table import ROUTES
from tests.harness import Reply, System
from tests.openapi.contract import METHODS, Document, Operation, document

OPERATIONS = document().operations
HOW = "describe it in docs/openapi.yaml"


def sample(template: str) -> str:
    """A path of the template, with the examples of its parameters."""
    path = template
    for operation in OPERATIONS:
        if operation.template == template:
            for parameter in document().parameters(operation):
                if parameter["in"] == "path":
                    path = path.replace(f"{{{parameter['name']}}}", quote(str(parameter["example"])))
    assert "{" not in path, f"{template}: a path parameter has no example"
    return path


DESCRIBED_AS = {
    "/ui/{path}": "/ui/",
    "/v1/client/{path}": "/v1/client/stats",
    "/v1/plugin/csi/{plugin_id}/{_more}": "/v1/plugin/csi/{plugin_id}",
}
"""Routes with more paths than anybody needs, and what is described of them."""


def served() -> set[tuple[str, str]]:
    """Method and path template of every row of the route table."""
    literal = [(route.methods, re.sub(r":\w+\((\w+)\)", r"\1", route.pattern)) for route in ROUTES]
    templates = [(methods, re.sub(r":(\w+)[?+*]?", r"{\1}", pattern)) for methods, pattern in literal]
    return {(method, DESCRIBED_AS.get(path, path)) for methods, path in templates for method in methods.split()}


def described(operation: Operation) -> tuple[str, str]:
    """Method and path template of an operation."""
    return ANY if "x-any-method" in operation.body else operation.method.upper(), operation.template


def test_the_document_is_valid_openapi_3_1() -> None:
    validate(document().content)
    assert document().content["openapi"].startswith("3.1")
    ids = [operation.id for operation in OPERATIONS]
    assert len(set(ids)) == len(ids)


def test_the_document_describes_the_routes_and_nothing_else() -> None:
    found = {described(operation) for operation in OPERATIONS}
    assert served() - found == set(), HOW
    assert found - served() == set(), "described and not in the route table"


def refused(reply: Reply) -> bool:
    """An unknown path or method, in the ways in which Nomad says so."""
    return reply.status == 405 or (reply.status == 404 and reply.body in ("", "resource not found"))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.id)
def test_every_method_described_is_served(system: System, operation: Operation) -> None:
    if operation.method == "head":
        assert system.call("HEAD", operation.template).status == 200
        return
    reply = system.call(operation.method.upper(), sample(operation.template), example(operation))
    assert not refused(reply), f"{operation.id} is described and answered {reply.status} {reply.body}"


@pytest.mark.parametrize("template", document().content["paths"])
def test_every_method_served_is_described(system: System, template: str) -> None:
    described = {o.method for o in OPERATIONS if template in document().templates(sample(o.template))}
    described |= {o.method for o in OPERATIONS if o.template in document().templates(sample(template))}
    if document().content["paths"][template].get("get", {}).get("x-any-method"):
        described |= set(METHODS)
    for method in METHODS:
        if method not in described:
            reply = system.call(method.upper(), sample(template))
            assert refused(reply), f"{method.upper()} {template} answers {reply.status} {reply.body}: {HOW}"


def example(operation: Operation) -> Any:
    content = operation.body.get("requestBody", {}).get("content", {})
    return content["application/json"]["example"] if content else None


def examples() -> Iterator[tuple[str, Any, Any]]:
    """Where, schema and value of every example."""
    for operation in OPERATIONS:
        body = operation.body.get("requestBody")
        if body:
            content = body["content"]["application/json"]
            yield f"{operation.id}, request", content["schema"], content["example"]
        for status, response in operation.body["responses"].items():
            for content in document().resolve(response).get("content", {}).values():
                if "example" in content:
                    yield f"{operation.id}, {status}", content["schema"], content["example"]
        for parameter in document().parameters(operation):
            if "example" in parameter:
                yield f"{operation.id}, {parameter['name']}", parameter["schema"], parameter["example"]


def test_every_example_is_what_its_schema_says() -> None:
    wrong = {where: found for where, schema, value in examples() if (found := document().validate(schema, value))}
    assert wrong == {}


def test_every_parameter_header_response_and_schema_is_used() -> None:
    text = json.dumps(document().content)
    for kind, members in document().content["components"].items():
        for name in members:
            assert f'"#/components/{kind}/{name}"' in text, f"{kind} {name} is not used"


@pytest.mark.parametrize(
    "change",
    [
        {"status": 418},
        {"body": "{}"},
        {"body": '{"a": 1}'},
        {"headers": {"X-Nomad-Index": "12.0"}},
        {"headers": {"X-Nomad-Index": None}},
        {"headers": {"X-Nomad-Nexttoken": "x"}},
        {"headers": {"Content-Type": "text/plain"}},
        {"body": ("ModifyIndex", 5.0)},
        {"body": ("ModifyIndex", -1)},
        {"body": ("Secrets", {"a": "b"})},
        {"body": ("MountOptions", {"FSType": "", "MountFlags": ["noatime"]})},
        {"body": ("Surprise", 1)},
        {"body": ("ID", None)},
        {"body": ("ResourceExhausted", "")},
    ],
    ids=str,
)
def test_the_judge_sees_what_is_wrong(change: dict[str, Any]) -> None:
    operation = document().find("GET", "/v1/volume/csi/data")
    assert operation is not None
    value = copy.deepcopy(operation.body["responses"]["200"]["content"]["application/json"]["example"])
    headers = {
        "Content-Type": "application/json",
        "X-Nomad-Index": "12",
        "X-Nomad-Knownleader": "true",
        "X-Nomad-Lastcontact": "0",
    }
    good = Reply(200, headers, json.dumps(value))
    assert document().problems("GET", "/v1/volume/csi/data", good) == []
    body = change.get("body")
    if isinstance(body, tuple):
        body = json.dumps(value | {body[0]: body[1]})
    changed = {k: v for k, v in (headers | change.get("headers", {})).items() if v is not None}
    bad = Reply(change.get("status", 200), changed, good.body if body is None else body)
    assert document().problems("GET", "/v1/volume/csi/data", bad) != []


def test_the_judge_refuses_what_is_not_described() -> None:
    answered = Reply(200, {"Content-Type": "application/json"}, "[]")
    for method, path in (("GET", "/v1/unknown"), ("POST", "/v1/volume/csi/data"), ("GET", "/v1/volume/csi/a/b/c")):
        assert document().problems(method, path, answered) != []
        assert document().problems(method, path, Reply(405, {"Content-Type": "text/plain"}, "Invalid method")) == []


def test_a_document_without_a_route_is_noticed() -> None:
    smaller = copy.deepcopy(dict(document().content))
    del smaller["paths"]["/v1/volumes"]
    listed = Reply(200, {"Content-Type": "application/json"}, "[]")
    assert "add it" in Document(smaller).problems("GET", "/v1/volumes", listed)[0]
