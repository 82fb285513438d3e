"""Nodes and what runs on them: registration, which is also the heartbeat.

A registration that says nothing new costs one read and one write unit and moves no index. One that does writes, in
this order: the node with the union of its old and new plugins and no digest (so that a crash leaves nothing that the
node does not name), each changed instance together with its plugin's counts, then lets go of the claims that the node
has lost, and at last writes the node with its digest: until then the next heartbeat does all of it again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from chalicelib.domain.claim import Claim
from chalicelib.domain.deadlines import GRACE, LONGEST_CALL, LONGEST_GRACE, SILENT_AFTER
from chalicelib.domain.plugin import LEFT, Instance, Node
from chalicelib.errors import RequestError, WriteConflict
from chalicelib.service import liveness
from chalicelib.service.deps import Deps
from chalicelib.store import plugins as plugin_store
from chalicelib.store.commit import Change, RefusedWrites
from chalicelib.store.dynamo import Write
from chalicelib.store.index import NODES
from chalicelib.store.plugins import MovedOn

PROTOCOL: Final = 1
"""What is spoken with bridges. A bridge that is one behind or one ahead is understood, and understands."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What a bridge says, checked for its form."""

    node_id: str
    node_name: str
    instance_id: str
    sequence: int
    address: str
    bridge_version: str
    certificate_pem: str
    instances: tuple[Instance, ...]


def stop(node_id: str, body: Mapping[str, Any]) -> tuple[str, int]:
    """Instance ID and sequence of a bridge that says that it stops; raises RequestError that names the field."""
    if _field(body, "NodeID", str) != node_id:
        raise RequestError("NodeID in the body does not match the request path")
    return _field(body, "InstanceID", str), _field(body, "Sequence", int)


def parse(node_id: str, body: Mapping[str, Any], *, serial: str = "") -> Registration:
    """The registration of a body, with the serial of the certificate that signed it; raises RequestError that names
    the field.
    """
    protocol = _field(body, "Protocol", int)
    if protocol < max(1, PROTOCOL - 1):
        raise RequestError(
            f"bridge protocol {protocol} is too old, {PROTOCOL} is spoken: update the bridge", status=426
        )
    if protocol > PROTOCOL + 1:
        raise RequestError(
            f"bridge protocol {protocol} is too new, {PROTOCOL} is spoken: update the control plane first", status=426
        )
    if _field(body, "NodeID", str) != node_id:
        raise RequestError("NodeID in the body does not match the request path")
    plugins = _field(body, "Plugins", list)
    instances = tuple(
        replace(_instance(node_id, _field(body, "Address", str), item, f"Plugins[{i}]"), serial=serial)
        for i, item in enumerate(plugins)
    )
    ids = [i.plugin_id for i in instances]
    if len(set(ids)) < len(ids):
        raise RequestError("Plugins holds one ID twice: run one plugin of an ID on a node")
    return Registration(
        node_id=node_id,
        node_name=_optional(body, "NodeName", str) or node_id,
        instance_id=_field(body, "InstanceID", str),
        sequence=_field(body, "Sequence", int),
        address=_field(body, "Address", str),
        bridge_version=_optional(body, "BridgeVersion", str) or "",
        certificate_pem=_field(body, "CertificatePEM", str),
        instances=instances,
    )


@dataclass(frozen=True, slots=True)
class Registered:
    """`index` is 0 when nothing changed; `lost` are the claims on this node that are not its own any more, told to it
    when it comes back or says something new.
    """

    index: int = 0
    lost: tuple[Claim, ...] = ()


def register(deps: Deps, registration: Registration, *, key: str) -> Registered:
    """Take over what the node says of itself.

    Raises RequestError 409 when another key holds the node ID, when another host with the same key was heard of a
    moment ago, or when an older message of the same bridge comes late.
    """
    read = deps.plugins.node(registration.node_id)
    _check_owner(read, registration, key)
    now = deps.clock.now()
    digest = _digest(registration)
    if read is not None and read.instance_id != registration.instance_id:
        _check_alone(read, registration, now)
    same = read is not None and read.instance_id == registration.instance_id and read.healthy
    if read is not None and same and deps.plugins.digest(read.id) == digest:
        if deps.plugins.heartbeat(read, sequence=registration.sequence, seen_at=now):
            return Registered()
        raise WriteConflict("the node is being registered by another request: it will be tried again")
    return _changed(deps, registration, read, key=key, digest=digest, now=now)


def deregister(deps: Deps, node: Node, *, instance_id: str, sequence: int) -> int:
    """The bridge stops in order. Without claims the node is forgotten; with some it is kept, its instances unhealthy,
    and is silent from now on: that its bridge stops does not unmount anything.

    Raises RequestError 409 when it is not this bridge, or a later message of it, that was heard last.
    """
    if node.instance_id != instance_id or sequence <= node.sequence:
        raise RequestError(f"a later message of node {node.id} is known already", status=409)
    try:
        if next(deps.claims.on_node(node.id), None) is None:
            return forget(deps, node)
        return _stopped(deps, node, sequence)
    except MovedOn:
        # Another bridge runs there already, or the node was marked down: that message has the last word.
        raise RequestError(f"a later message of node {node.id} is known already", status=409) from None


def purge(deps: Deps, node: Node) -> int:
    """Forget a node that will not come back; returns the index. Raises RequestError 409 with what is in the way."""
    if not node.trouble:
        raise RequestError(
            f"node {node.id} is up: stop its bridge, which deregisters it, or wait until it is down", status=409
        )
    place = next(deps.claims.on_node(node.id), None)
    if place is not None:
        raise RequestError(
            f"volume {place[1]} in namespace {place[0]} is claimed on node {node.id}: detach it first", status=409
        )
    try:
        return forget(deps, node)
    except MovedOn:
        raise RequestError(f"node {node.id} was heard of at this moment: it is not purged", status=409) from None


def forget(deps: Deps, node: Node) -> int:
    """Remove the node's instances, then the node; returns the index. Raises MovedOn when it was heard of meanwhile."""
    now, last = deps.clock.now(), 0
    for plugin_id in node.plugin_ids:
        last = max(last, deps.plugins.change(plugin_id, node.id, None, now=now, read=node))
    return max(last, _write(deps, node, lambda _: plugin_store.delete_node(node)))


def _write(deps: Deps, node: Node, write: Callable[[int], Write]) -> int:
    """Write the node's row under its condition; returns the index. Raises MovedOn when it was heard of meanwhile."""

    def build(refused: RefusedWrites) -> Change[None]:
        if refused:
            raise MovedOn(f"node {node.id} moved on")
        return Change(None, lambda index: [write(index)])

    index, _ = deps.committer.commit(NODES, build=build, what=f"node {node.id}")
    return index


def _stopped(deps: Deps, node: Node, sequence: int) -> int:
    now = deps.clock.now()
    left = replace(node, instance_id=LEFT, sequence=sequence, seen_at=now)
    # Without a digest: whatever bridge comes next registers in full.
    index = _write(
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
        index = _write(deps, node, write)
    except MovedOn:
        raise WriteConflict("the node is being registered by another request: it will be tried again") from None
    node = replace(node, create_index=node.create_index or index, modify_index=index)
    wanted = {i.plugin_id: replace(i, update_time=deps.clock.now_ns()) for i in said.instances}
    for plugin_id in node.plugin_ids:
        try:
            changed = deps.plugins.change(plugin_id, node.id, wanted.get(plugin_id), now=deps.clock.now(), read=node)
        except MovedOn:
            # A message of the same node that came meanwhile has the last word.
            raise RequestError(f"a later message of node {node.id} is known already", status=409) from None
        index = max(index, changed)
    lost = liveness.release_lost_claims(deps, node.id)
    # With the same words: a later message's digest is not overwritten.
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
        raise RequestError(f"a later message of node {said.node_id} is known already", status=409)


def _check_alone(read: Node, said: Registration, now: float) -> None:
    """A copy of a host, with the state folder and its key, must not take turns with the first one."""
    if not read.trouble and read.address != said.address and now - read.seen_at < SILENT_AFTER:
        raise RequestError(
            f"node {said.node_id} was heard of at {read.address} {now - read.seen_at:.0f} s ago, and this bridge is at "
            f"{said.address}: if this host is a copy, give it a state folder of its own; if the node has moved, "
            f"it is taken up {SILENT_AFTER:.0f} s after the other was last heard of",
            status=409,
        )


def _digest(said: Registration) -> str:
    """What the registration says, without what changes at every heartbeat."""
    plugins = [
        {name: sorted(value) if isinstance(value, frozenset) else value for name, value in asdict(instance).items()}
        for instance in sorted(said.instances, key=lambda i: i.plugin_id)
    ]
    text = json.dumps(
        [said.node_name, said.address, said.bridge_version, said.certificate_pem, plugins], sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _instance(node_id: str, address: str, body: Any, where: str) -> Instance:
    if not isinstance(body, dict):
        raise RequestError(f"{where} must be an object")
    info = _optional(body, "NodeInfo", dict, where) or {}
    reach = _optional(info, "AccessibleTopology", dict, f"{where}.NodeInfo") or {}
    topology = _optional(reach, "Segments", dict, f"{where}.NodeInfo.AccessibleTopology") or {}
    if not all(isinstance(value, str) for value in topology.values()):
        raise RequestError(f"{where}.NodeInfo.AccessibleTopology.Segments must hold strings")
    serialize = body.get("Serialize") or ""
    if serialize not in ("", "node", "plugin"):
        raise RequestError(f'{where}.Serialize must be "", "node" or "plugin"')
    max_volumes = _optional(info, "MaxVolumes", int, f"{where}.NodeInfo") or 0
    if max_volumes < 0:
        raise RequestError(f"{where}.NodeInfo.MaxVolumes must not be negative")
    deadlines = _optional(body, "DeadlineSeconds", dict, where) or {}
    return Instance(
        plugin_id=_field(body, "ID", str, where),
        node_id=node_id,
        address=address,
        healthy=_field(body, "Healthy", bool, where),
        health_description=_optional(body, "HealthDescription", str, where) or "",
        provider=_optional(body, "Provider", str, where) or "",
        provider_version=_optional(body, "ProviderVersion", str, where) or "",
        controller=_optional(body, "Controller", bool, where) or False,
        node=_optional(body, "Node", bool, where) or False,
        controller_capabilities=_names(body, "ControllerCapabilities", where),
        node_capabilities=_names(body, "NodeCapabilities", where),
        plugin_capabilities=_names(body, "PluginCapabilities", where),
        external_node_id=_optional(info, "ID", str, f"{where}.NodeInfo") or "",
        max_volumes=max_volumes,
        topology=topology or None,
        serialize=serialize,
        deadlines={
            rpc: _seconds(value, f"{where}.DeadlineSeconds.{rpc}", LONGEST_CALL) for rpc, value in deadlines.items()
        },
        grace=_seconds(body["GraceSeconds"], f"{where}.GraceSeconds", LONGEST_GRACE)
        if body.get("GraceSeconds") is not None
        else float(GRACE),
    )


def _seconds(value: Any, where: str, most: float) -> float:
    """A time of at most `most`; JSON as Python reads it also has NaN and Infinity."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise RequestError(f"{where} must be a number of seconds, not negative")
    return min(float(value), float(most))


def _names(body: Mapping[str, Any], name: str, where: str) -> frozenset[str]:
    value = body.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RequestError(f"{where}.{name} must be a list of names")
    return frozenset(value)


def _optional(body: Mapping[str, Any], name: str, kind: type, where: str = "") -> Any:
    """The value, None when it is not there; raises RequestError that names it when it is something else."""
    value = body.get(name)
    if value is not None and not _is(value, kind):
        raise RequestError(f"{where + '.' if where else ''}{name} is not a {kind.__name__}")
    return value


def _is(value: Any, kind: type) -> bool:
    """Whether JSON's value is of that type: for Python a bool is an int, too."""
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _field(body: Mapping[str, Any], name: str, kind: type, where: str = "") -> Any:
    value = body.get(name)
    if not _is(value, kind) or (kind is str and not value):
        raise RequestError(f"{where + '.' if where else ''}{name} is missing or not a {kind.__name__}")
    return value
