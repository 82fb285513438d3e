"""Nodes and what runs on them: registration, which is also the heartbeat.

A registration that says nothing new costs one read and one write unit and moves no index. One that does writes, in
this order: the node with the union of its old and new plugins and no digest (so that a crash leaves nothing that the
node does not name), each changed instance together with its plugin's counts, then lets go of the claims that the node
has lost, and at last writes the node with its digest: until then the next heartbeat does all of it again.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from chalicelib.domain.claim import Claim
from chalicelib.domain.deadlines import GRACE, LONGEST_CALL, LONGEST_GRACE
from chalicelib.domain.plugin import Instance, Node
from chalicelib.errors import RequestError, WriteConflict
from chalicelib.service import claim_sweep
from chalicelib.service.deps import Deps
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


def parse(node_id: str, body: Mapping[str, Any]) -> Registration:
    """The registration of a body; raises RequestError that names the field."""
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
        _instance(node_id, _field(body, "Address", str), item, f"Plugins[{i}]") for i, item in enumerate(plugins)
    )
    ids = [i.plugin_id for i in instances]
    if len(set(ids)) < len(ids):
        raise RequestError("Plugins holds one ID twice: run one plugin of an ID on a node")
    return Registration(
        node_id=node_id,
        node_name=body.get("NodeName") or node_id,
        instance_id=_field(body, "InstanceID", str),
        sequence=_field(body, "Sequence", int),
        address=_field(body, "Address", str),
        bridge_version=str(body.get("BridgeVersion") or ""),
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

    Raises RequestError 409 when another key holds the node ID, or when an older message of the same bridge comes late.
    """
    read = deps.plugins.node(registration.node_id)
    _check_owner(read, registration, key)
    now = deps.clock.now()
    digest = _digest(registration)
    same = read is not None and read.instance_id == registration.instance_id and read.healthy
    if read is not None and same and deps.plugins.digest(read.id) == digest:
        if deps.plugins.heartbeat(read, sequence=registration.sequence, seen_at=now):
            return Registered()
        raise WriteConflict("the node is being registered by another request: it will be tried again")
    return _changed(deps, registration, read, key=key, digest=digest, now=now)


def deregister(deps: Deps, node: Node) -> int:
    """The node stops in order: its instances and the node itself are forgotten."""
    index, run = 0, deps.clock.new_id()
    for number, plugin_id in enumerate(node.plugin_ids):
        try:
            changed = deps.plugins.change(
                plugin_id, node.id, None, run=f"{run}d{number}", now=deps.clock.now(), read=node
            )
        except MovedOn:
            # Another bridge runs there already, or the node was marked down: that message has the last word.
            raise RequestError(f"a later message of node {node.id} is known already", status=409) from None
        index = max(index, changed)
    deps.plugins.delete_node(node)
    ticket = deps.index.allocate(NODES, name=run, now=deps.clock.now())
    return max(index, deps.index.publish(ticket))


def _changed(deps: Deps, said: Registration, read: Node | None, *, key: str, digest: str, now: float) -> Registered:
    ids = tuple(sorted(i.plugin_id for i in said.instances))
    before = read.plugin_ids if read else ()
    run = deps.clock.new_id()
    ticket = deps.index.allocate(NODES, name=run, now=now)
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
        create_index=read.create_index if read else ticket.index,
        modify_index=ticket.index,
    )
    if not deps.plugins.put_node(node, digest="", read=read):
        deps.index.abandon(ticket)
        raise WriteConflict("the node is being registered by another request: it will be tried again")
    index = deps.index.publish(ticket)
    wanted = {i.plugin_id: replace(i, update_time=deps.clock.now_ns()) for i in said.instances}
    for number, plugin_id in enumerate(node.plugin_ids):
        try:
            changed = deps.plugins.change(
                plugin_id, node.id, wanted.get(plugin_id), run=f"{run}c{number}x", now=deps.clock.now(), read=node
            )
        except MovedOn:
            # A message of the same node that came meanwhile has the last word.
            raise RequestError(f"a later message of node {node.id} is known already", status=409) from None
        index = max(index, changed)
    lost = claim_sweep.returned(deps, node.id)
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


def _digest(said: Registration) -> str:
    """What the registration says, without what changes at every heartbeat."""
    plugins = [
        {name: sorted(value) if isinstance(value, frozenset) else value for name, value in asdict(instance).items()}
        for instance in sorted(said.instances, key=lambda i: i.plugin_id)
    ]
    text = json.dumps([said.node_name, said.address, said.bridge_version, plugins], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _instance(node_id: str, address: str, body: Any, where: str) -> Instance:
    if not isinstance(body, dict):
        raise RequestError(f"{where} must be an object")
    info = body.get("NodeInfo") or {}
    topology = (info.get("AccessibleTopology") or {}).get("Segments")
    serialize = body.get("Serialize") or ""
    if serialize not in ("", "node", "plugin"):
        raise RequestError(f'{where}.Serialize must be "", "node" or "plugin"')
    return Instance(
        plugin_id=_field(body, "ID", str, where),
        node_id=node_id,
        address=address,
        healthy=_field(body, "Healthy", bool, where),
        health_description=str(body.get("HealthDescription") or ""),
        provider=str(body.get("Provider") or ""),
        provider_version=str(body.get("ProviderVersion") or ""),
        controller=bool(body.get("Controller")),
        node=bool(body.get("Node")),
        controller_capabilities=_names(body, "ControllerCapabilities", where),
        node_capabilities=_names(body, "NodeCapabilities", where),
        plugin_capabilities=_names(body, "PluginCapabilities", where),
        external_node_id=str(info.get("ID") or ""),
        max_volumes=int(info.get("MaxVolumes") or 0),
        topology={str(k): str(v) for k, v in topology.items()} if topology else None,
        serialize=serialize,
        deadlines={str(k): min(float(v), LONGEST_CALL) for k, v in (body.get("DeadlineSeconds") or {}).items()},
        grace=min(float(body.get("GraceSeconds") or GRACE), LONGEST_GRACE),
    )


def _names(body: Mapping[str, Any], name: str, where: str) -> frozenset[str]:
    value = body.get(name) or []
    if not isinstance(value, list):
        raise RequestError(f"{where}.{name} must be a list of names")
    return frozenset(str(v) for v in value)


def _field(body: Mapping[str, Any], name: str, kind: type, where: str = "") -> Any:
    value = body.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)) or (kind is str and not value):
        raise RequestError(f"{where + '.' if where else ''}{name} is missing or not a {kind.__name__}")
    return value
