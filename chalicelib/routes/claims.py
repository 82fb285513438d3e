"""/v1/volume/csi/:volume_id/claim and claims: list, take, renew and release claims."""

from collections.abc import Mapping
from typing import Any

from chalicelib import wiring
from chalicelib.routes.call import Answer, Call, too_large
from chalicelib.routes.options import Options, budget, region
from chalicelib.service import claims as service
from chalicelib.service import releases
from chalicelib.wire import claims as wire
from chalicelib.wire.gojson import decode

BODY_LIMIT = 64 * 1024


def list_claims(call: Call, _given: Options, volume_id: str) -> Answer:
    index, claims = service.of_volume(wiring.deps(), call.namespace, volume_id)
    return Answer([wire.claim(claim) for claim in claims], index=index)


def claim_request(call: Call) -> Mapping[str, Any]:
    """Read the body of a take."""
    too_large(call.body, BODY_LIMIT)
    body = decode(call.body, wire.CLAIM_REQUEST)
    region(call)
    return body


def take(call: Call, body: Mapping[str, Any], volume_id: str) -> Answer:
    wanted = wire.from_body(body, namespace=call.namespace, volume_id=volume_id)
    deps = wiring.deps()
    held = service.take(deps, wanted, budget(call, deps))
    return Answer(wire.claim(held.claim), index=held.index)


def lease_seconds(call: Call) -> int:
    """Read the lease that a renewal asks for, in seconds. 0 if it does not say."""
    region(call)
    too_large(call.body, BODY_LIMIT)
    return int(decode(call.body, wire.RENEW_REQUEST)["LeaseSeconds"]) if call.body.strip() else 0


def renew(call: Call, seconds: int, volume_id: str, allocation_id: str) -> Answer:
    return Answer(wire.claim(service.renew(wiring.deps(), call.namespace, volume_id, allocation_id, seconds)))


def release(call: Call, volume_id: str, allocation_id: str) -> Answer:
    deps = wiring.deps()
    return Answer(index=releases.release(deps, call.namespace, volume_id, allocation_id, budget(call, deps)))
