"""/v1/volumes and /v1/volume/csi/: list, read, register, create, deregister, delete and detach."""

from collections.abc import Callable
from typing import Any

from chalicelib import wiring
from chalicelib.domain.deadlines import GATEWAY_TIMEOUT
from chalicelib.domain.plugin import Plugin
from chalicelib.domain.volume import DEFINITION_LIMIT, Volume
from chalicelib.errors import Refused, RequestError
from chalicelib.routes import snapshots
from chalicelib.routes.call import BODY_LIMIT, Answer, Call, Missing, too_large
from chalicelib.routes.options import FALSE, TRUE, Options, budget, region
from chalicelib.service import claims as claim_service
from chalicelib.service import definitions, listing, releases, volumes
from chalicelib.service.batches import VolumeRequest
from chalicelib.wire import shapes
from chalicelib.wire import volumes as wire
from chalicelib.wire.gojson import decode

ANSWER_SECONDS = GATEWAY_TIMEOUT - 2.0
"""Seconds that a list may take, with the wait before it. After the gateway's timeout no answer arrives."""
LEAST_LIST_SECONDS = 2.0
"""Seconds that a list has in any case, if the wait before it took longer than it should."""
VOLUMES_LIMIT = 64
"""Volumes of one request. Each is reserved before the first is waited for."""


def list_no_type(_call: Call) -> Answer:
    """Return an empty list, before anything is checked, as in Nomad."""
    return Answer([])


def list_host(_call: Call, _given: Options) -> Answer:
    """Return an empty list: there are no host volumes here."""
    return Answer([], index=1)


def list_csi(call: Call, given: Options) -> Answer:
    deps = wiring.deps()
    query = listing.VolumeQuery(
        namespace=call.namespace,
        prefix=call.parameter("prefix"),
        plugin_id=call.parameter("plugin_id"),
        node_id=call.parameter("node_id"),
        per_page=given.per_page,
        next_token=given.next_token,
        matches=_filter(call),
        size_limit=listing.SIZE_LIMIT * 2 // 3 if call.pretty else listing.SIZE_LIMIT,
        until=max(call.started + ANSWER_SECONDS, deps.clock.monotonic() + LEAST_LIST_SECONDS),
    )
    listed = listing.list_volumes(deps, query)
    shown = [wire.stub(v, p) for v, p in listed.volumes]
    return Answer(shown, index=listed.index, next_token=listed.next_token)


def read(call: Call, _given: Options, volume_id: str) -> Answer:
    deps = wiring.deps()
    found = volumes.read(deps, call.namespace, volume_id)
    if found.volume is None:
        raise Missing("volume not found", index=found.index)
    body = wire.volume(found.volume, found.plugin, found.claims)
    if call.extended:
        body |= wire.extension(volumes.shared_with(deps, found.volume))
    return Answer(body, index=found.index)


def to_register(call: Call) -> list[VolumeRequest]:
    """Read the definitions of a register."""
    return _wanted(call, shapes.CSI_VOLUME_REGISTER_REQUEST)


def register(call: Call, wanted: list[VolumeRequest], _volume_id: str = "") -> Answer:
    """Register or update the volumes of the body. The ID in the path does not count, as in Nomad."""
    deps = wiring.deps()
    return _written(definitions.register(deps, wanted, budget(call, deps)))


def to_create(call: Call) -> list[VolumeRequest]:
    """Read the definitions of a create."""
    return _wanted(call, shapes.CSI_VOLUME_CREATE_REQUEST)


def create(call: Call, wanted: list[VolumeRequest], _volume_id: str) -> Answer:
    """Create or update the volumes of the body."""
    deps = wiring.deps()
    return _written(definitions.create(deps, wanted, budget(call, deps)))


def force(call: Call) -> bool:
    """Read `force` of a deregister. Raises RequestError 400."""
    text = call.parameter("force")
    if text and text not in TRUE | FALSE:
        raise RequestError("invalid force value")
    region(call)
    return text in TRUE


def deregister(call: Call, forced: bool, volume_id: str) -> Answer:
    return Answer(index=volumes.deregister(wiring.deps(), call.namespace, volume_id, force=forced))


def delete(call: Call, volume_id: str) -> Answer:
    deps = wiring.deps()
    return Answer(index=volumes.delete(deps, call.namespace, volume_id, snapshots.secrets(call), budget(call, deps)))


def node_to_detach(call: Call) -> str:
    """Read `node` of a detach. Raises RequestError 400."""
    node_id = call.parameter("node")
    if not node_id:
        raise RequestError("detach requires node ID")
    region(call)
    return node_id


def detach(call: Call, node_id: str, volume_id: str) -> Answer:
    forced = call.parameter("force") in TRUE
    deps = wiring.deps()
    index = releases.detach(deps, call.namespace, volume_id, node_id, budget(call, deps), force=forced)
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
    """Compile the `filter` expression, over every field of the list's answer and of the stored definition."""
    text = call.parameter("filter")
    if not text:
        return None
    from chalicelib.wire.bexpr import FilterError, compile_filter

    try:
        wanted = compile_filter(text, wire.FILTER_SHAPE)
    except FilterError as exc:
        raise RequestError(exc.text) from exc

    # Claims are read only for a filter that may be about them, and only of volumes that have some.
    about_claims = "Alloc" in text or "Claims" in text
    deps = wiring.deps()

    def matches(volume: Volume, plugin: Plugin | None, spend: Callable[[int], None]) -> bool:
        if about_claims and volume.in_use:
            spend(listing.QUERY_COST)
        held = claim_service.claims_on(deps, volume) if about_claims else ()
        try:
            return wanted.matches(wire.filter_datum(volume, plugin, held))
        except FilterError as exc:
            raise RequestError(exc.text) from exc

    return matches
