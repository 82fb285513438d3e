"""/v1/search and /v1/search/fuzzy: searches by prefix and by text."""

from collections.abc import Mapping
from typing import Any

from chalicelib import wiring
from chalicelib.errors import Refused
from chalicelib.routes.call import BODY_LIMIT, Answer, Call, too_large
from chalicelib.routes.options import REGION, options
from chalicelib.service import search as service
from chalicelib.wire import search as wire
from chalicelib.wire.gojson import decode
from chalicelib.wire.kinds import Struct


def prefix_request(call: Call) -> Mapping[str, Any]:
    """Read the body of a search by prefix."""
    return _request(call, wire.REQUEST)


def by_prefix(call: Call, body: Mapping[str, Any]) -> Answer:
    """Return the IDs that begin with a text. A context in which nothing was found has null."""
    found = service.by_prefix(wiring.deps(), _contexts(body), body["Prefix"], namespace=_namespace(call, body))
    matches = {context: ids or None for context, ids in found.matches.items()}
    return Answer(wire.answer(found.index, matches, found.truncated), index=found.index)


def fuzzy_request(call: Call) -> Mapping[str, Any]:
    """Read the body of a fuzzy search."""
    return _request(call, wire.FUZZY_REQUEST)


def fuzzy(call: Call, body: Mapping[str, Any]) -> Answer:
    """Return the names that contain a text. Contexts searched by prefix are shown even if empty, as in Nomad."""
    # Nomad counts bytes.
    if (length := len(body["Text"].encode("utf-8", "surrogatepass"))) < service.SHORTEST_TEXT:
        raise Refused(f"fuzzy search query must be at least {service.SHORTEST_TEXT} characters, got {length}")
    found = service.by_text(wiring.deps(), _contexts(body), body["Text"], namespace=_namespace(call, body))
    matches = {context: [wire.fuzzy_match(m.name, m.scope) for m in found.fuzzy[context]] for context in found.fuzzy}
    return Answer(wire.answer(found.index, matches, found.truncated), index=found.index)


def _request(call: Call, shape: Struct) -> Mapping[str, Any]:
    too_large(call.body, BODY_LIMIT)
    body = decode(call.body, shape)
    options(call)
    if body["Region"] not in ("", REGION):
        raise Refused("No path to region")
    return body


def _namespace(call: Call, body: Mapping[str, Any]) -> str:
    """Return the query's namespace, else the body's, else `default`."""
    return call.parameter("namespace") or body["Namespace"] or "default"


def _contexts(body: Mapping[str, Any]) -> tuple[str, ...]:
    context = body["Context"]
    if context == wire.ALL:
        return wire.CONTEXTS
    if context not in wire.CONTEXTS:
        raise Refused(wire.unknown_context(context))
    return (context,)
