"""/v1/bridge/: the messages of bridges (docs/interfaces.md, section 4)."""

import contextlib
from typing import Any

from chalicelib import wiring
from chalicelib.bridge_signature import Signature, verify_signature
from chalicelib.errors import NotFound, PermissionDenied, StoreError, StoreUnavailable
from chalicelib.routes.call import Answer, Call, too_large
from chalicelib.service import bridges as service
from chalicelib.service.deps import Deps
from chalicelib.store.namespaces import Trust
from chalicelib.wire import registrations as wire

BODY_LIMIT = 256 * 1024
SIGNATURE_HEADER = "X-Moorage-Signature"


def message(call: Call) -> dict[str, Any]:
    """Read the body, which is not trusted yet."""
    too_large(call.body, BODY_LIMIT)
    return wire.parse(call.body)


def register(call: Call, said: dict[str, Any], node_id: str) -> Answer:
    """Register a node and its plugins. This is also the heartbeat."""
    deps = wiring.deps()
    try:
        trust = _trust(deps)
        # The signature is checked first: nothing else is read from a message of unknown origin.
        signature = _verified(call, deps, trust, node_id, wire.certificate(said))
        registration = wire.registration(said, node_id, serial=signature.serial)
        registered = service.register(deps, registration, key=signature.key)
    except StoreUnavailable:
        _record_missed_heartbeat(deps)
        raise
    return Answer(wire.registered(registered.index, refused=trust.refused, lost=registered.lost))


def deregister(call: Call, said: dict[str, Any], node_id: str) -> Answer:
    """Forget the node of a bridge that stops in order."""
    deps = wiring.deps()
    node = deps.plugins.node(node_id)
    if node is None:
        raise NotFound(f"node {node_id} is not registered")
    # The key of the certificate that the node registered with must have signed.
    _verified(call, deps, _trust(deps), node_id, node.certificate_pem)
    return Answer(index=service.deregister(deps, node, wire.farewell(said, node_id)))


def _record_missed_heartbeat(deps: Deps) -> None:
    """Record that a heartbeat could not be taken. The fault is ours, so the bridges' silence must not count."""
    # A store that takes nothing also stops the sweeper, which is the one that judges the nodes.
    with contextlib.suppress(StoreError):
        deps.plugins.record_missed_heartbeat(deps.clock.now())


def _trust(deps: Deps) -> Trust:
    found = deps.namespaces.trust()
    if found is None:
        raise PermissionDenied("the control plane has no CA yet: run `moorage certs publish-worker`")
    return found


def _verified(call: Call, deps: Deps, trust: Trust, node_id: str, certificate_pem: str) -> Signature:
    return verify_signature(
        ca_pem=trust.ca_pem,
        refused=trust.refused,
        certificate_pem=certificate_pem,
        node_id=node_id,
        method=call.method,
        body=call.body,
        signature=call.header(SIGNATURE_HEADER),
        now=deps.clock.now(),
    )
