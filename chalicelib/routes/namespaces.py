"""/v1/namespaces, /v1/namespace and /v1/namespace/."""

from collections.abc import Mapping
from typing import Any

from chalicelib import wiring
from chalicelib.domain.volume import DEFINITION_LIMIT
from chalicelib.errors import RequestError
from chalicelib.routes.call import Answer, Call, Missing, too_large
from chalicelib.routes.options import Options, region
from chalicelib.service import namespaces as service
from chalicelib.store.namespaces import Namespace
from chalicelib.wire import namespaces as wire
from chalicelib.wire import shapes
from chalicelib.wire.gojson import decode


def list_namespaces(call: Call, _given: Options) -> Answer:
    index, found = service.list_namespaces(wiring.deps(), prefix=call.parameter("prefix"))
    return Answer([_shown(n) for n in found], index=index)


def read(_call: Call, _given: Options, name: str) -> Answer:
    index, found = service.read(wiring.deps(), name)
    if found is None:
        raise Missing("Namespace not found", index=index)
    return Answer(_shown(found), index=index)


def definition(call: Call) -> Mapping[str, Any]:
    """Read the body of a write. A name in the path must be the body's."""
    too_large(call.body, DEFINITION_LIMIT)
    body = decode(call.body, shapes.NAMESPACE)
    name = call.path.partition("/v1/namespace/")[2]
    if name and body["Name"] != name:
        raise RequestError("Namespace name does not match request path")
    region(call)
    return body


def write(_call: Call, body: Mapping[str, Any], _name: str = "") -> Answer:
    """Create or change the namespace of the body."""
    index = service.write(
        wiring.deps(), body["Name"], wire.stored(body), description=body["Description"], quota=body["Quota"]
    )
    return Answer(index=index, bare_index=True)


def delete(_call: Call, name: str) -> Answer:
    return Answer(index=service.delete(wiring.deps(), name), bare_index=True)


def _shown(found: Namespace) -> dict[str, object]:
    return wire.namespace(found.name, found.body, create_index=found.create_index, modify_index=found.modify_index)
