"""/v1/volumes and /v1/volume/csi/: which method and path means which action, checked in Nomad's order."""

from collections.abc import Callable
from typing import Any

from chalicelib import wiring
from chalicelib.domain.deadlines import GATEWAY_TIMEOUT
from chalicelib.domain.plugin import Plugin
from chalicelib.domain.volume import DEFINITION_LIMIT, Volume
from chalicelib.errors import Refused, RequestError
from chalicelib.routes import claims, snapshots
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
from chalicelib.routes.options import FALSE, TRUE, budget, options, region
from chalicelib.service import blocking, definitions, listing, releases, volumes
from chalicelib.service import claims as claim_service
from chalicelib.service.batches import VolumeRequest
from chalicelib.wire import shapes
from chalicelib.wire import volumes as wire
from chalicelib.wire.gojson import decode

ANSWER_SECONDS = GATEWAY_TIMEOUT - 2.0
"""A list that takes longer, with the wait before it, is not heard by anybody."""
LEAST_LIST_SECONDS = 2.0
"""What a list has for itself, though the wait before it took longer than it should: that is not the list's fault."""
VOLUMES_LIMIT = 64
"""Of one request: each is reserved before the first is waited for."""


def collection(call: Call) -> Answer:
    """GET lists, PUT and POST register."""
    if call.method in ("PUT", "POST"):
        return _register(call)
    kind = call.query.get("type")
    if call.method not in ("GET", "HEAD"):
        raise method_not_allowed()
    if kind is None:
        return Answer([])
    if kind[0] not in ("host", "csi"):
        raise resource_not_found()
    allow(call, "GET")
    given = options(call)
    if kind[0] == "host":
        return Answer([], index=1)
    deps = wiring.deps()
    answer_by = deps.clock.monotonic() + ANSWER_SECONDS
    blocking.until_changed(
        deps,
        index=given.index,
        wait=given.wait,
        current=lambda: listing.current(deps, call.namespace),
    )
    query = listing.VolumeQuery(
        namespace=call.namespace,
        prefix=call.parameter("prefix"),
        plugin_id=call.parameter("plugin_id"),
        node_id=call.parameter("node_id"),
        per_page=given.per_page,
        next_token=given.next_token,
        matches=_filter(call),
        size_limit=listing.SIZE_LIMIT * 2 // 3 if call.pretty else listing.SIZE_LIMIT,
        until=max(answer_by, deps.clock.monotonic() + LEAST_LIST_SECONDS),
    )
    listed = listing.list_volumes(deps, query)
    shown = [wire.stub(v, p) for v, p in listed.volumes]
    return Answer(shown, index=listed.index, next_token=listed.next_token)


def item(call: Call) -> Answer:
    """/v1/volume/csi/:id and /v1/volume/csi/:id/:action; the id is unescaped before the path is split, as in Nomad."""
    parts = call.rest.split("/")
    if len(parts) == 1:
        return _one(call, parts[0])
    if parts[1] == "claim" and parts[2:3] not in ([], [""]) and len(parts) <= 4:
        return claims.one(call, parts[0], parts[2], parts[3] if len(parts) == 4 else "")
    if len(parts) > 2:
        raise resource_not_found()
    volume_id, action = parts
    if action in ("claim", "claims"):
        return claims.take(call, volume_id) if action == "claim" else claims.collection(call, volume_id)
    if action == "snapshot" and call.method in ("PUT", "POST"):
        return snapshots.create(call, volume_id)
    routes = {("PUT", "create"): _create, ("DELETE", "delete"): _delete, ("DELETE", "detach"): _detach}
    route = routes.get((call.method, action))
    if route is not None:
        return route(call, volume_id)
    if call.method in ("PUT", "DELETE"):
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
    given = options(call)
    if not volume_id:
        raise Refused("missing volume ID")
    deps = wiring.deps()
    blocking.until_changed(
        deps,
        index=given.index,
        wait=given.wait,
        current=lambda: volumes.current(deps, call.namespace, volume_id, given.index),
    )
    found = volumes.read(deps, call.namespace, volume_id)
    if found.volume is None:
        raise Missing("volume not found", index=found.index)
    return Answer(wire.volume(found.volume, found.plugin, found.claims), index=found.index)


def _register(call: Call) -> Answer:
    wanted = _wanted(call, shapes.CSI_VOLUME_REGISTER_REQUEST)
    deps = wiring.deps()
    return _written(definitions.register(deps, wanted, budget(call, deps)))


def _create(call: Call, _volume_id: str) -> Answer:
    wanted = _wanted(call, shapes.CSI_VOLUME_CREATE_REQUEST)
    deps = wiring.deps()
    return _written(definitions.create(deps, wanted, budget(call, deps)))


def _deregister(call: Call, volume_id: str) -> Answer:
    force = call.parameter("force")
    if force and force not in TRUE | FALSE:
        raise RequestError("invalid force value")
    region(call)
    return Answer(index=volumes.deregister(wiring.deps(), call.namespace, volume_id, force=force in TRUE))


def _delete(call: Call, volume_id: str) -> Answer:
    region(call)
    deps = wiring.deps()
    secrets = snapshots.secrets(call)
    return Answer(index=volumes.delete(deps, call.namespace, volume_id, secrets, budget(call, deps)))


def _detach(call: Call, volume_id: str) -> Answer:
    node_id = call.parameter("node")
    if not node_id:
        raise RequestError("detach requires node ID")
    region(call)
    force = call.parameter("force") in TRUE
    deps = wiring.deps()
    index = releases.detach(deps, call.namespace, volume_id, node_id, budget(call, deps), force=force)
    return Answer(index=index)


def _wanted(call: Call, shape: Any) -> list[VolumeRequest]:
    too_large(call.body, BODY_LIMIT)
    body = decode(call.body, shape)
    region(call)
    if body["Region"] not in ("", "global"):
        raise Refused("No path to region")
    out: list[VolumeRequest] = []
    if len(body["Volumes"] or ()) > VOLUMES_LIMIT:
        raise RequestError(f"more than {VOLUMES_LIMIT} volumes at once: send them in several requests", status=413)
    for element in body["Volumes"] or ():
        volume, secrets = wire.from_body(element, namespace=call.namespace)
        if sum(len(k) + len(v) for k, v in secrets.items()) > DEFINITION_LIMIT // 10:
            raise RequestError("Secrets are larger than 30 KB: leave out what is not needed", status=413)
        only_new = call.header("If-None-Match").strip() == "*"
        out.append(VolumeRequest(volume, secrets, only_new=only_new))
    return out


def _written(written: definitions.WriteResult) -> Answer:
    shown = [wire.volume(v, p) for v, p in written.volumes]
    return Answer(wire.written(written.index, shown), index=written.index)


def _filter(call: Call) -> listing.Matches | None:
    """The `filter` expression over every field of the list's answer and of the stored definition."""
    text = call.parameter("filter")
    if not text:
        return None
    from chalicelib.wire.bexpr import FilterError, compile_filter

    try:
        wanted = compile_filter(text, wire.FILTER_SHAPE)
    except FilterError as exc:
        raise RequestError(exc.text) from exc

    # Only a filter that may be about claims has them read, and only for volumes that have some.
    about_claims = "Alloc" in text or "Claims" in text
    deps = wiring.deps()

    def matches(volume: Volume, plugin: Plugin | None, spend: Callable[[int], None]) -> bool:
        if about_claims and volume.in_use:
            spend(listing.QUERY_COST)
        held = claim_service.its_claims(deps, volume) if about_claims else ()
        try:
            return wanted.matches(wire.filter_datum(volume, plugin, held))
        except FilterError as exc:
            raise RequestError(exc.text) from exc

    return matches
