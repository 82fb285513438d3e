"""The route table: every row is reached, its handler takes what its pattern captures, and every refusal is given."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.errors import VolumesError
from chalicelib.routes.call import Answer, Call
from chalicelib.routes.endpoint import METHODS, Endpoint
from chalicelib.routes.mux import ANY, Mux, Refusal, Route, Rule, nothing
from chalicelib.routes.options import options
from chalicelib.routes.requirements import PUBLIC, SIGNED
from chalicelib.routes.table import REFUSALS, ROUTES

TYPES: tuple[str | None, ...] = (None, "csi", "host", "other")
"""Values of `type`, on which some rows depend."""

CAPTURE = re.compile(r":(\w+)(?:\((\w+)\)|[?+*])?")


def requests(rule: Rule) -> Iterator[tuple[str, str, str | None]]:
    """Method, path and `type` of requests that a row may be there for."""
    for method in METHODS if rule.methods == ANY else rule.methods.split():
        for kind in TYPES:
            yield method, CAPTURE.sub(lambda found: found[2] or found[1], rule.pattern), kind


def captured(rule: Rule) -> list[str]:
    """What the pattern captures of that path: each name, or the one word that may stand in its place."""
    return [word or name for name, word in CAPTURE.findall(rule.pattern)]


def event(method: str, path: str, kind: str | None) -> dict[str, Any]:
    query = None if kind is None else {"type": [kind]}
    return {"httpMethod": method, "path": path, "multiValueQueryStringParameters": query, "headers": {}}


def name(rule: Rule) -> str:
    return f"{rule.methods} {rule.pattern}"


@pytest.mark.parametrize("route", ROUTES, ids=name)
def test_every_route_is_reached_with_what_its_pattern_captures(route: Route) -> None:
    reached: list[tuple[Route, tuple[Any, ...]]] = []

    def recording(row: Route) -> Route:
        def handler(_call: Call, *given: Any) -> Answer:
            reached.append((row, given))
            return Answer()

        return dataclasses.replace(row, handler=handler, parse=nothing, watch=None)

    endpoint = Endpoint(Mux([recording(row) for row in ROUTES], REFUSALS))
    for method, path, kind in requests(route):
        endpoint(event(method, path, kind), b"")
    of_route = [given for row, given in reached if row is route]
    assert len(of_route) >= len(route.methods.split())
    assert set(of_route) == {tuple(captured(route))}


@pytest.mark.parametrize("route", ROUTES, ids=name)
def test_a_handler_takes_what_its_route_gives(route: Route) -> None:
    reads = inspect.signature(route.parse, eval_str=True).return_annotation is not None
    given = ["what was read"] if reads else []
    inspect.signature(route.handler).bind("the call", *given, *captured(route))


def test_blocking_queries_read_the_options_and_watch_what_was_captured() -> None:
    blocking = [route for route in ROUTES if route.watch is not None]
    assert len(blocking) > 10
    for route in blocking:
        assert route.watch is not None
        assert route.parse is options
        inspect.signature(route.watch).bind("the deps", "the call", 1, *captured(route)[:1])


@pytest.mark.parametrize("refusal", REFUSALS, ids=name)
def test_every_refusal_is_given(refusal: Refusal) -> None:
    class Given(VolumesError):
        """This refusal, and no other."""

    rows = [dataclasses.replace(r, error=lambda: Given("")) if r is refusal else r for r in REFUSALS]
    mux = Mux(ROUTES, rows)
    given = 0
    for method in METHODS if refusal.methods == ANY else refusal.methods.split():
        for kind in TYPES:
            path = re.sub(r":\w+\??", "x", re.sub(r":\w+[+*]", "x/y/z", refusal.pattern))
            query = {} if kind is None else {"type": [kind]}
            try:
                mux.find(Call(method, path, query, {}, b"", started=0.0))
            except Given:
                given += 1
            except VolumesError:
                continue
    assert given


def test_a_route_says_what_it_requires() -> None:
    required = {field.name for field in dataclasses.fields(Route) if field.default is dataclasses.MISSING}
    assert required == {"methods", "pattern", "handler", "requirement"}


def test_what_is_served_without_a_look_at_the_token() -> None:
    assert {route.pattern for route in ROUTES if route.requirement == PUBLIC} == {
        "/",
        "/ui/:path*",
        "/v1/volumes",
        "/v1/plugins",
        "/v1/status/leader",
        "/v1/status/peers",
        "/v1/regions",
        "/v1/agent/health",
        "/v1/acl/auth-methods",
        "/v1/acl/bootstrap",
        "/v1/acl/login",
    }


def test_bridges_sign_and_nobody_else_does() -> None:
    assert {route.pattern for route in ROUTES if route.requirement == SIGNED} == {"/v1/bridge/:node_id"}
