"""/v1/volumes and /v1/volume/csi/: which method and path means which action, checked in Nomad's order."""

from typing import Any

from chalicelib import wiring
from chalicelib.domain.volume import DEFINITION_LIMIT
from chalicelib.errors import Refused, RequestError
from chalicelib.routes.endpoint import (
    BODY_LIMIT,
    Answer,
    Call,
    Missing,
    allow,
    method_not_allowed,
    resource_not_found,
    too_large,
)
from chalicelib.service import volumes
from chalicelib.wire import shapes
from chalicelib.wire import volumes as wire
from chalicelib.wire.gojson import decode

SECRETS_HEADER = "X-Nomad-CSI-Secrets"
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def collection(call: Call) -> Answer:
    """GET lists, PUT and POST register."""
    if call.method in ("PUT", "POST"):
        return _register(call)
    kind = call.query.get("type")
    if kind is None:
        return Answer([])
    if kind[0] == "host":
        allow(call, "GET")
        return Answer([], index=1)
    if kind[0] != "csi":
        raise resource_not_found()
    allow(call, "GET")
    listed = volumes.list_volumes(wiring.deps(), call.namespace, prefix=call.parameter("prefix"))
    return Answer([wire.stub(v, p) for v, p in listed.volumes], index=listed.index)


def item(call: Call) -> Answer:
    """/v1/volume/csi/:id and /v1/volume/csi/:id/:action; the id is unescaped before the path is split, as in Nomad."""
    parts = call.rest.split("/")
    if len(parts) == 1:
        return _one(call, parts[0])
    if len(parts) > 2:
        raise resource_not_found()
    volume_id, action = parts
    if call.method == "PUT":
        if action == "create":
            return _create(call)
        raise resource_not_found()
    if call.method == "DELETE":
        if action == "delete":
            return _delete(call, volume_id)
        raise resource_not_found()
    raise method_not_allowed()


def _one(call: Call, volume_id: str) -> Answer:
    if call.method == "GET":
        return _read(call, volume_id)
    if call.method == "PUT":
        return _register(call)
    if call.method == "DELETE":
        return _deregister(call, volume_id)
    raise method_not_allowed()


def _read(call: Call, volume_id: str) -> Answer:
    if not volume_id:
        raise Refused("missing volume ID")
    found = volumes.read(wiring.deps(), call.namespace, volume_id)
    if found.volume is None:
        raise Missing("volume not found", index=found.index)
    return Answer(wire.volume(found.volume, found.plugin), index=found.index)


def _register(call: Call) -> Answer:
    written = volumes.register(wiring.deps(), _wanted(call, shapes.CSI_VOLUME_REGISTER_REQUEST))
    return Answer(_written(written), index=written.index)


def _create(call: Call) -> Answer:
    written = volumes.create(wiring.deps(), _wanted(call, shapes.CSI_VOLUME_CREATE_REQUEST))
    return Answer(_written(written), index=written.index)


def _deregister(call: Call, volume_id: str) -> Answer:
    force = call.parameter("force")
    if force and force not in _TRUE | _FALSE:
        raise RequestError("invalid force value")
    index = volumes.deregister(wiring.deps(), call.namespace, volume_id)
    return Answer(index=index)


def _delete(call: Call, volume_id: str) -> Answer:
    secrets = wire.secrets_header(call.header(SECRETS_HEADER))
    return Answer(index=volumes.delete(wiring.deps(), call.namespace, volume_id, secrets))


def _wanted(call: Call, shape: Any) -> list[volumes.Wanted]:
    too_large(call.body, BODY_LIMIT)
    body = decode(call.body, shape)
    out = []
    for element in body["Volumes"] or ():
        volume, secrets = wire.from_body(element, namespace=call.namespace)
        if sum(len(k) + len(v) for k, v in secrets.items()) > DEFINITION_LIMIT // 10:
            raise RequestError("Secrets are larger than 30 KB: leave out what is not needed", status=413)
        out.append(volumes.Wanted(volume, secrets))
    return out


def _written(written: volumes.Written) -> dict[str, Any]:
    return wire.written(written.index, [wire.volume(v, p) for v, p in written.volumes])
