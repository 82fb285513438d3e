"""/v1/namespaces, /v1/namespace and /v1/namespace/."""

from chalicelib import wiring
from chalicelib.domain.volume import DEFINITION_LIMIT
from chalicelib.errors import RequestError
from chalicelib.routes.endpoint import Answer, Call, Missing, allow, method_not_allowed, too_large
from chalicelib.routes.options import options, region
from chalicelib.service import blocking
from chalicelib.service import namespaces as service
from chalicelib.store.index import NAMESPACES
from chalicelib.store.namespaces import Namespace
from chalicelib.wire import namespaces as wire
from chalicelib.wire.gojson import decode


def collection(call: Call) -> Answer:
    """GET /v1/namespaces."""
    allow(call, "GET")
    given = options(call)
    deps = wiring.deps()
    blocking.until_changed(
        deps, index=given.index, wait=given.wait, current=lambda: deps.index.watch(consistent=False).of(NAMESPACES)
    )
    index, found = service.list_namespaces(deps, prefix=call.parameter("prefix"))
    return Answer([_shown(n) for n in found], index=index)


def unnamed(call: Call) -> Answer:
    """PUT and POST /v1/namespace."""
    allow(call, "PUT", "POST")
    return _write(call, "")


def item(call: Call) -> Answer:
    """GET, PUT, POST and DELETE /v1/namespace/:name."""
    if not call.rest:
        raise RequestError("Missing Namespace Name")
    if call.method == "GET":
        return _read(call)
    if call.method in ("PUT", "POST"):
        return _write(call, call.rest)
    if call.method == "DELETE":
        region(call)
        return Answer(index=service.delete(wiring.deps(), call.rest), bare_index=True)
    raise method_not_allowed()


def _read(call: Call) -> Answer:
    given = options(call)
    deps = wiring.deps()
    blocking.until_changed(
        deps, index=given.index, wait=given.wait, current=lambda: deps.index.watch(consistent=False).of(NAMESPACES)
    )
    index, found = service.read(deps, call.rest)
    if found is None:
        raise Missing("Namespace not found", index=index)
    return Answer(_shown(found), index=index)


def _write(call: Call, name: str) -> Answer:
    too_large(call.body, DEFINITION_LIMIT)
    body = decode(call.body, wire.SHAPE)
    if name and body["Name"] != name:
        raise RequestError("Namespace name does not match request path")
    region(call)
    index = service.write(wiring.deps(), body["Name"], wire.stored(body))
    return Answer(index=index, bare_index=True)


def _shown(found: Namespace) -> dict[str, object]:
    return wire.namespace(found.name, found.body, create_index=found.create_index, modify_index=found.modify_index)
