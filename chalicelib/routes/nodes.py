"""/v1/bridge/: what bridges say to the control plane (docs/interfaces.md, section 4)."""

import contextlib
import json
from typing import Any

from chalicelib import identity, wiring
from chalicelib.domain.deadlines import HEARTBEAT_SECONDS
from chalicelib.errors import NotFound, PermissionDenied, RequestError, StoreError, StoreUnavailable
from chalicelib.routes.endpoint import Answer, Call, allow, resource_not_found, too_large
from chalicelib.service import nodes
from chalicelib.service.deps import Deps
from chalicelib.store.namespaces import Trust
from chalicelib.wire import claims as wire

BODY_LIMIT = 256 * 1024
SIGNATURE = "X-Moorage-Signature"


def bridge(call: Call) -> Answer:
    """PUT registers and is the heartbeat, DELETE is an orderly stop."""
    allow(call, "PUT", "DELETE")
    node_id = call.rest
    if not node_id or "/" in node_id:
        raise resource_not_found()
    too_large(call.body, BODY_LIMIT)
    return _register(call, node_id) if call.method == "PUT" else _deregister(call, node_id)


def _register(call: Call, node_id: str) -> Answer:
    deps = wiring.deps()
    body = _object(call)
    try:
        trust = _trust()
        # Who it is comes first: nothing else of the body is looked at for a stranger.
        signer = _verified(call, trust, node_id, body.get("CertificatePEM"))
        registered = nodes.register(deps, nodes.parse(node_id, body, serial=signer.serial), key=signer.key)
    except StoreUnavailable:
        _record_missed_heartbeat(deps)
        raise
    return Answer(
        {
            "Protocol": nodes.PROTOCOL,
            "HeartbeatSeconds": HEARTBEAT_SECONDS,
            "Refused": list(trust.refused),
            "Index": registered.index,
            "Lost": [wire.lost(claim) for claim in registered.lost],
        }
    )


def _object(call: Call) -> dict[str, Any]:
    try:
        body = json.loads(call.body)
    except (ValueError, RecursionError) as exc:
        raise RequestError("registration is not JSON") from exc
    if not isinstance(body, dict):
        raise RequestError("registration must be a JSON object")
    return body


def _record_missed_heartbeat(deps: Deps) -> None:
    """Record that a heartbeat was lost on this side, so that no node counts as silent for it."""
    with contextlib.suppress(StoreError):  # a store that takes nothing stops the sweeper, too
        deps.plugins.record_missed_heartbeat(deps.clock.now())


def _deregister(call: Call, node_id: str) -> Answer:
    deps = wiring.deps()
    body = _object(call)
    found = deps.plugins.node(node_id)
    if found is None:
        raise NotFound(f"node {node_id} is not registered")
    # The certificate that it registered with: its key must have signed.
    _verified(call, _trust(), node_id, found.certificate_pem)
    instance_id, sequence = nodes.stop(node_id, body)
    return Answer(index=nodes.deregister(deps, found, instance_id=instance_id, sequence=sequence))


def _trust() -> Trust:
    found = wiring.deps().namespaces.trust()
    if found is None:
        raise PermissionDenied("the control plane has no CA yet: run `moorage certs publish-worker`")
    return found


def _verified(call: Call, trust: Trust, node_id: str, certificate_pem: Any) -> identity.Signer:
    if not isinstance(certificate_pem, str) or not certificate_pem:
        raise RequestError("CertificatePEM is missing or not a str")
    return identity.signer(
        ca_pem=trust.ca_pem,
        refused=trust.refused,
        certificate_pem=certificate_pem,
        node_id=node_id,
        method=call.method,
        body=call.body,
        signature=call.header(SIGNATURE),
        now=wiring.deps().clock.now(),
    )
