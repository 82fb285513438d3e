"""/v1/volume/csi/:id/claim, /claims, /claim/:alloc_id and /claim/:alloc_id/renew."""

from chalicelib import wiring
from chalicelib.routes.endpoint import Answer, Call, allow, resource_not_found, too_large
from chalicelib.routes.options import budget, options, region
from chalicelib.service import blocking, releases, volumes
from chalicelib.service import claims as service
from chalicelib.wire import claims as wire
from chalicelib.wire.gojson import decode

BODY_LIMIT = 64 * 1024


def collection(call: Call, volume_id: str) -> Answer:
    """GET /v1/volume/csi/:id/claims; blocks on the volume."""
    allow(call, "GET")
    given = options(call)
    deps = wiring.deps()
    blocking.until_changed(
        deps,
        index=given.index,
        wait=given.wait,
        current=lambda: volumes.current(deps, call.namespace, volume_id, given.index),
    )
    index, found = service.of_volume(deps, call.namespace, volume_id)
    return Answer([wire.claim(c) for c in found], index=index)


def take(call: Call, volume_id: str) -> Answer:
    """PUT /v1/volume/csi/:id/claim."""
    allow(call, "PUT", "POST")
    too_large(call.body, BODY_LIMIT)
    body = decode(call.body, wire.CLAIM_REQUEST)
    region(call)
    wanted = wire.from_body(body, namespace=call.namespace, volume_id=volume_id)
    deps = wiring.deps()
    held = service.take(deps, wanted, budget(call, deps))
    return Answer(wire.claim(held.claim), index=held.index)


def one(call: Call, volume_id: str, allocation_id: str, action: str) -> Answer:
    """DELETE /v1/volume/csi/:id/claim/:alloc_id, PUT …/renew."""
    region(call)
    if action == "renew":
        allow(call, "PUT", "POST")
        too_large(call.body, BODY_LIMIT)
        seconds = decode(call.body, wire.RENEW_REQUEST)["LeaseSeconds"] if call.body.strip() else 0
        renewed = service.renew(wiring.deps(), call.namespace, volume_id, allocation_id, seconds)
        return Answer(wire.claim(renewed))
    if action:
        raise resource_not_found()
    allow(call, "DELETE")
    deps = wiring.deps()
    return Answer(index=releases.release(deps, call.namespace, volume_id, allocation_id, budget(call, deps)))
