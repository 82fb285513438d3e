"""docs/openapi.yaml as a judge of answers: which operation a request is, and what is wrong with an answer to it.

Paths that the document does not describe may be refused or redirected, and nothing else; so may methods that it does
not list. Beyond what JSON Schema says, no answer may hold a number with a fraction: Nomad's Go client refuses it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from tests.harness import Reply

FILE: Final = Path(__file__).parents[2] / "docs" / "openapi.yaml"
METHODS: Final = ("get", "put", "post", "delete", "head", "patch")
URI: Final = "urn:moorage:openapi"
REDIRECT: Final = 307
OWN_HEADERS: Final = ("x-nomad-", "location", "retry-after", "preference-applied")
"""Headers that the document must list where they are sent."""
ALSO: Final = ((re.compile(r"/v1/plugin/csi/[^/]+/[^/]*"), "/v1/plugin/csi/{plugin_id}"),)
"""Paths that are served as if they ended earlier, as in Nomad; nobody is told to use them."""


@dataclass(frozen=True)
class Operation:
    """One method of one path template."""

    method: str
    template: str
    body: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.body["operationId"])


class Document:
    """The parsed document."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content
        resource = Resource.from_contents(content, default_specification=DRAFT202012)
        self._registry: Registry[Any] = Registry().with_resource(URI, resource)
        self._validators: dict[str, Draft202012Validator] = {}

    @cached_property
    def operations(self) -> list[Operation]:
        return [
            Operation(method, template, body)
            for template, item in self.content["paths"].items()
            for method, body in item.items()
            if method in METHODS
        ]

    @cached_property
    def _templates(self) -> list[tuple[re.Pattern[str], str]]:
        """The most literal first, as OpenAPI has it."""
        ordered = sorted(self.content["paths"], key=lambda t: (t.count("{"), t))
        return [(re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(t))), t) for t in ordered]

    def templates(self, path: str) -> list[str]:
        """Every template that an unescaped path fits, the most literal first."""
        return [template for pattern, template in (*self._templates, *ALSO) if pattern.fullmatch(path)]

    def find(self, method: str, path: str) -> Operation | None:
        """The operation of a request, None if the document has none."""
        for template in self.templates(path):
            item = self.content["paths"][template]
            body = item.get(method.lower())
            if body is None and item.get("get", {}).get("x-any-method"):
                body = item["get"]
            if body is not None:
                return Operation(method.lower(), template, body)
        return None

    def resolve(self, value: Any) -> Any:
        """What a `$ref` points to, or the value itself."""
        while isinstance(value, Mapping) and "$ref" in value:
            found: Any = self.content
            for part in value["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            value = found
        return value

    def parameters(self, operation: Operation) -> list[Mapping[str, Any]]:
        return [self.resolve(p) for p in operation.body.get("parameters", ())]

    def validate(self, schema: Mapping[str, Any], instance: Any) -> list[str]:
        """What is wrong with an instance, in words."""
        key = json.dumps(schema, sort_keys=True)
        if key not in self._validators:
            absolute = json.loads(key.replace('"#/', f'"{URI}#/'))
            self._validators[key] = Draft202012Validator(absolute, registry=self._registry)
        return [f"{e.json_path}: {e.message[:300]}" for e in self._validators[key].iter_errors(instance)]

    def problems(self, method: str, path: str, reply: Reply) -> list[str]:
        """What is wrong with the answer to a request; `path` as it is sent, without its query."""
        reply = Reply(reply.status, {name.lower(): value for name, value in reply.headers.items()}, reply.body)
        if reply.status == REDIRECT:
            return [] if "location" in reply.headers else ["a redirect without Location"]
        operation = self.find(method, unquote(path))
        if operation is None:
            return list(_unlisted(reply))
        responses = operation.body["responses"]
        if str(reply.status) not in responses:
            listed = ", ".join(responses)
            return [f"status {reply.status} ({reply.body[:200]}) is not among those of {operation.id}: {listed}"]
        response = self.resolve(responses[str(reply.status)])
        headers = list(self._headers(response, reply))
        return headers if method == "HEAD" else [*headers, *self._body(response, reply)]

    def _headers(self, response: Mapping[str, Any], reply: Reply) -> Iterator[str]:
        listed = {name.lower(): self.resolve(header) for name, header in response.get("headers", {}).items()}
        for name, header in listed.items():
            if name in reply.headers:
                yield from (f"header {name}: {p}" for p in self.validate(header["schema"], reply.headers[name]))
            elif header.get("required"):
                yield f"header {name} is missing"
        for name in reply.headers.keys() - listed.keys():
            if name.startswith(OWN_HEADERS):
                yield f"header {name} is sent and not described"

    def _body(self, response: Mapping[str, Any], reply: Reply) -> Iterator[str]:
        content = response.get("content", {})
        kind = reply.headers.get("content-type", "").partition(";")[0]
        if not content or (not reply.body and response.get("x-may-be-empty")):
            if reply.body or kind:
                yield f"a body or a Content-Type where none is described: {kind} {reply.body[:100]}"
        elif kind not in content:
            yield f"Content-Type {kind!r} is not described"
        elif kind == "application/json":
            fractions: list[str] = []
            body = json.loads(reply.body, parse_float=fractions.append)
            yield from (f"a number with a fraction: {f}" for f in fractions)
            yield from self.validate(content[kind]["schema"], body)
        else:
            yield from self.validate(content[kind]["schema"], reply.body)


@cache
def document() -> Document:
    return Document(yaml.load(FILE.read_text("utf-8"), yaml.CSafeLoader))  # five times as fast as safe_load


def check(method: str, path: str, reply: Reply) -> None:
    """Fail a test whose answer is not as docs/openapi.yaml says."""
    problems = document().problems(method, path, reply)
    assert not problems, f"{method} {path} is not as docs/openapi.yaml describes it: " + "; ".join(problems[:5])


def _unlisted(reply: Reply) -> Iterator[str]:
    """What the document is silent about is refused."""
    if reply.status < 400:
        yield f"it is not described and was answered with {reply.status} {reply.body[:100]!r}: add it"
    elif reply.body and not reply.headers.get("content-type", "").startswith("text/plain"):
        yield "an error that is no text"
