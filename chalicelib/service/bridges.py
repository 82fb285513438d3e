"""Register bridges and take their heartbeats, which are registrations too, and deregister those that stop in order.

A registration that says nothing new costs two reads of the node and one write unit, and moves no index. One that says
something new has four steps, in this order:

1. Write the node with the union of its old and new plugins and without a digest. So after a crash the node still names
   every instance on it.
2. Write each changed instance, together with its plugin's counts.
3. Let go of the claims that the node has lost.
4. Write the node with its digest. Until then, the next heartbeat repeats all steps.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace

from chalicelib.domain.claim import Claim
from chalicelib.domain.deadlines import SILENT_AFTER
from chalicelib.domain.plugin import LEFT, Node
from chalicelib.domain.registration import Farewell, Registration
from chalicelib.errors import RequestError, WriteConflict
from chalicelib.service import liveness, nodes
from chalicelib.service.deps import Deps
from chalicelib.store import plugins as plugin_store
from chalicelib.store.dynamo import Write
from chalicelib.store.plugins import MovedOn


@dataclass(frozen=True, slots=True)
class Registered:
    """What a registration changed.

    `index` is 0 if nothing changed. `lost` are the claims on this node that are no longer its own. The node is told of
    them when it comes back or says something new.
    """

    index: int = 0
    lost: tuple[Claim, ...] = ()


def register(deps: Deps, registration: Registration, *, key: str) -> Registered:
    """Store what a bridge says of its node. `key` is the fingerprint of the key that signed it.

    Raises RequestError 409 if another key holds the node ID, if another host with the same key sent a message a moment
    ago, or if a later message of the same bridge is known.
    """
    read = deps.plugins.node(registration.node_id)
    _check_owner(read, registration, key)
    now = deps.clock.now()
    digest = digest_of(registration)
    if read is not None and read.instance_id != registration.instance_id:
        _check_alone(read, registration, now)
    same = read is not None and read.instance_id == registration.instance_id and read.healthy
    if read is not None and same and deps.plugins.digest(read.id) == digest:
        if deps.plugins.heartbeat(read, sequence=registration.sequence, seen_at=now):
            return Registered()
        raise WriteConflict("the node is being registered by another request: it will be tried again")
    return _changed(deps, registration, read, key=key, digest=digest, now=now)


def deregister(deps: Deps, node: Node, farewell: Farewell) -> int:
    """Forget the node of a bridge that stops in order, and return the index.

    A node with a claim on it is kept, since the end of a bridge unmounts nothing. Its instances become unhealthy, and
    it is silent from then on. Raises RequestError 409 if the last message is another bridge's, or a later one of this
    bridge.
    """
    if node.instance_id != farewell.instance_id or farewell.sequence <= node.sequence:
        raise _later_message(node.id)
    try:
        if next(deps.claims.on_node(node.id), None) is None:
            return nodes.forget(deps, node)
        return _stopped(deps, node, farewell.sequence)
    except MovedOn:
        # Another bridge runs there already, or the node was marked down: that message has the last word.
        raise _later_message(node.id) from None


def _later_message(node_id: str) -> RequestError:
    return RequestError(f"a later message of node {node_id} is known already", status=409)


def _stopped(deps: Deps, node: Node, sequence: int) -> int:
    now = deps.clock.now()
    left = replace(node, instance_id=LEFT, sequence=sequence, seen_at=now)
    # Without a digest, the next bridge registers in full.
    index = nodes.write(
        deps, node, lambda index: plugin_store.put_node(replace(left, modify_index=index), digest="", read=node)
    )
    for plugin_id in node.plugin_ids:
        index = max(index, liveness.mark_unhealthy(deps, left, plugin_id, reason=left.trouble, overwrite=True))
    return index


def _changed(deps: Deps, said: Registration, read: Node | None, *, key: str, digest: str, now: float) -> Registered:
    ids = tuple(sorted(i.plugin_id for i in said.instances))
    before = read.plugin_ids if read else ()
    node = Node(
        id=said.node_id,
        name=said.node_name,
        address=said.address,
        key=key,
        instance_id=said.instance_id,
        sequence=said.sequence,
        seen_at=now,
        plugin_ids=tuple(sorted({*ids, *before})),
        bridge_version=said.bridge_version,
        certificate_pem=said.certificate_pem,
        create_index=read.create_index if read else 0,
    )

    def write(index: int) -> Write:
        numbered = replace(node, create_index=node.create_index or index, modify_index=index)
        return plugin_store.put_node(numbered, digest="", read=read)

    try:
        index = nodes.write(deps, node, write)
    except MovedOn:
        raise WriteConflict("the node is being registered by another request: it will be tried again") from None
    node = replace(node, create_index=node.create_index or index, modify_index=index)
    wanted = {i.plugin_id: replace(i, update_time=deps.clock.now_ns()) for i in said.instances}
    for plugin_id in node.plugin_ids:
        try:
            changed = deps.plugins.change(plugin_id, node.id, wanted.get(plugin_id), now=deps.clock.now(), read=node)
        except MovedOn:
            # A message of the same node that came meanwhile has the last word.
            raise _later_message(node.id) from None
        index = max(index, changed)
    lost = liveness.release_lost_claims(deps, node.id)
    # Under the condition that this registration is still the last, so the digest of a later one is not overwritten.
    deps.plugins.put_node(replace(node, plugin_ids=ids), digest=digest, read=node)
    return Registered(index, tuple(lost))


def _check_owner(read: Node | None, said: Registration, key: str) -> None:
    if read is None:
        return
    if read.key != key:
        raise RequestError(
            f"node {said.node_id} ({read.name}, {read.address}) is registered with another key: "
            "give this host a node ID of its own, or stop the other bridge in order",
            status=409,
        )
    if read.instance_id == said.instance_id and said.sequence <= read.sequence:
        raise _later_message(said.node_id)


def _check_alone(read: Node, said: Registration, now: float) -> None:
    """Raise RequestError 409 for a copy of a host, with its state folder and key, while the first sends heartbeats."""
    if not read.trouble and read.address != said.address and now - read.seen_at < SILENT_AFTER:
        raise RequestError(
            f"node {said.node_id} was heard of at {read.address} {now - read.seen_at:.0f} s ago, and this bridge is at "
            f"{said.address}: if this host is a copy, give it a state folder of its own; if the node has moved, "
            f"it is taken up {SILENT_AFTER:.0f} s after the other was last heard of",
            status=409,
        )


def digest_of(said: Registration) -> str:
    """Return the SHA-256 (hex) of what the registration says, without what changes at every heartbeat."""
    plugins = [
        {name: sorted(value) if isinstance(value, frozenset) else value for name, value in asdict(instance).items()}
        for instance in sorted(said.instances, key=lambda i: i.plugin_id)
    ]
    text = json.dumps(
        [said.node_name, said.address, said.bridge_version, said.certificate_pem, plugins], sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()
