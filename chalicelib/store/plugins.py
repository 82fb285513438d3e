"""Plugins, their instances and the nodes, in one table.

A plugin's counts change in the transaction that changes an instance, by the difference to the instance as it stood. So
they equal the instances at every moment, however often a write is repeated.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from chalicelib.domain.plugin import Instance, Node, Plugin
from chalicelib.store import dynamo, tables
from chalicelib.store.commit import Change, Committer, RefusedWrites
from chalicelib.store.dynamo import Dynamo, Write
from chalicelib.store.index import PLUGINS
from chalicelib.store.tables import InstanceRow, MissedHeartbeatRow, NodeRow, PluginRow, SweepRow

_SETS: Final = ("controller_capabilities", "node_capabilities", "plugin_capabilities")


class MovedOn(Exception):
    """The node registered anew or was marked down since it was read, so a decision from that reading is void."""


class PluginStore:
    """The plugins and nodes of one stage."""

    def __init__(self, store: Dynamo, committer: Committer) -> None:
        self._dynamo, self._committer = store, committer

    def get(self, plugin_id: str, *, consistent: bool = True) -> Plugin | None:
        """Return the plugin with its counts, or None. One without instances keeps its record."""
        row = self._dynamo.get(PluginRow, tables.PLUGINS_PK, plugin_id, consistent=consistent)
        return None if row is None else _plugin(row)

    def get_many(self, plugin_ids: Iterable[str]) -> dict[str, Plugin]:
        """Return the plugins that have a record, by ID.

        They are read strongly, since lists show their counts and wait for them.
        """
        ids = sorted(set(plugin_ids))
        if len(ids) == 1:
            plugin = self.get(ids[0])
            return {ids[0]: plugin} if plugin is not None else {}
        rows = self._dynamo.batch_get(PluginRow, [(tables.PLUGINS_PK, i) for i in ids])
        return {row.sk: _plugin(row) for row in rows.values()}

    def all(self, *, prefix: str = "") -> Iterator[Plugin]:
        """Yield every record by ID, those of plugins without instances too."""
        after = None
        while True:
            page = self._dynamo.query(PluginRow, tables.PLUGINS_PK, prefix=prefix, after=after)
            yield from (_plugin(row) for row in page.rows)
            if page.next_key is None:
                return
            after = page.next_key

    def instances(self, plugin_id: str) -> list[Instance]:
        """Return every instance of the plugin, by node ID."""
        instances: list[Instance] = []
        after = None
        while True:
            page = self._dynamo.query(InstanceRow, tables.instances_pk(plugin_id), after=after)
            instances += [_instance(row) for row in page.rows]
            if page.next_key is None:
                return instances
            after = page.next_key

    def instance(self, plugin_id: str, node_id: str) -> Instance | None:
        row = self._dynamo.get(InstanceRow, tables.instances_pk(plugin_id), node_id)
        return None if row is None else _instance(row)

    def node(self, node_id: str) -> Node | None:
        row = self._dynamo.get(NodeRow, tables.NODES_PK, node_id)
        return None if row is None else _node(row)

    def nodes(self, *, prefix: str = "") -> Iterator[Node]:
        after = None
        while True:
            page = self._dynamo.query(NodeRow, tables.NODES_PK, prefix=prefix, after=after)
            yield from (_node(row) for row in page.rows)
            if page.next_key is None:
                return
            after = page.next_key

    def digest(self, node_id: str) -> str:
        """Return the digest of what the node registered last. It is empty while a registration is incomplete."""
        row = self._dynamo.get(NodeRow, tables.NODES_PK, node_id)
        return "" if row is None else str(json.loads(row.body).get("digest", ""))

    def put_node(self, node: Node, *, digest: str, read: Node | None) -> bool:
        """Write the node's digest, which clients do not see. Return False if the node changed since it was `read`."""
        return self._dynamo.try_write(put_node(node, digest=digest, read=read))

    def heartbeat(self, node: Node, *, sequence: int, seen_at: float) -> bool:
        """Record a heartbeat that changes nothing, for one write unit. Return False if the node changed meanwhile."""
        actions: list[Action] = [NodeRow.sequence.set(sequence), NodeRow.seen_at.set(seen_at)]
        # A node that was marked down meanwhile must register in full.
        return self._dynamo.try_write(_mark(node, actions, NodeRow.healthy.is_in(True)))

    def stop_keeping_claims(self, node: Node) -> bool:
        """Let the claims on a node that is down be released. Return False if the node changed since it was read."""
        return self._dynamo.try_write(_mark(node, [NodeRow.claims_kept.set(False)], NodeRow.healthy.is_in(False)))

    def record_sweep(self, now: float, *, gap: float) -> tuple[float, float]:
        """Record a sweep of the nodes. Return since when nodes and leases were swept without a longer `gap` (seconds).

        Both moments are in epoch seconds. A node's silence and a lease's period count from them at the earliest: during
        a gap the control plane did not listen.
        """
        row = self._dynamo.get(SweepRow, "sweep", "nodes")
        since = now if row is None or now - row.swept_at > gap else float(row.fresh_since)
        leases = float((row and row.leases_since) or 0.0)
        self._dynamo.put(SweepRow("sweep", "nodes", swept_at=now, fresh_since=since, leases_since=leases))
        return since, max(since, leases)

    def restart_leases(self, now: float) -> None:
        """Give every lease a fresh period that begins `now`."""
        self._dynamo.update(SweepRow, "sweep", "nodes", [SweepRow.leases_since.set(now)], SweepRow.pk.exists())

    def record_missed_heartbeat(self, now: float) -> None:
        """Record that the control plane could not take a heartbeat at `now` (epoch seconds): no fault of the node."""
        # The stored key is older than the row's name, and stored names never change.
        self._dynamo.put(MissedHeartbeatRow("sweep", "deaf", at=now))

    def missed_heartbeat_at(self) -> float:
        """Return when the control plane missed a heartbeat the last time (epoch seconds), or 0 for never."""
        row = self._dynamo.get(MissedHeartbeatRow, "sweep", "deaf")
        return 0.0 if row is None else float(row.at)

    def change(
        self, plugin_id: str, node_id: str, instance: Instance | None, *, now: float, read: Node | None = None
    ) -> int:
        """Replace the node's instance of the plugin (None removes it). Return the index, or 0 if nothing changed.

        The write is repeated against other nodes that change the plugin at the same time. With `read`, it is made only
        while the node is as it was read, up or down. Raises MovedOn when it is not.
        """

        def build(refused: RefusedWrites) -> Change[None]:
            if "node" in refused:
                raise MovedOn(f"node {node_id} moved on")
            old_row = self._dynamo.get(InstanceRow, tables.instances_pk(plugin_id), node_id)
            old = None if old_row is None else _instance(old_row)
            # An instance that differs in its time alone would wake every reader of the plugin for nothing.
            if old == instance or (
                old is not None and instance is not None and old == replace(instance, update_time=old.update_time)
            ):
                return Change(None)
            return Change(
                None,
                lambda index: [
                    _instance_write(plugin_id, node_id, instance, old_row),
                    _counts_write(plugin_id, instance, old, index, now),
                    *([] if read is None else [_as_read(read)]),
                ],
            )

        index, _ = self._committer.commit(PLUGINS, build=build, what=f"plugin {plugin_id}")
        return index


# Writes of a transaction about a node, each with its conditions.


def put_node(node: Node, *, digest: str, read: Node | None) -> Write:
    """Put the node as it registered, unless it was written since it was `read` (None: there was none)."""
    condition: Condition = NodeRow.pk.does_not_exist() if read is None else _unmoved(read)
    row = NodeRow(
        tables.NODES_PK,
        node.id,
        body=json.dumps(
            {
                "name": node.name,
                "address": node.address,
                "plugins": list(node.plugin_ids),
                "version": node.bridge_version,
                "certificate": node.certificate_pem,
                "digest": digest,
            }
        ),
        key=node.key,
        instance_id=node.instance_id,
        sequence=node.sequence,
        seen_at=node.seen_at,
        healthy=node.healthy,
        down_since=node.down_since or None,
        claims_kept=node.claims_kept,
        create_index=node.create_index,
        modify_index=node.modify_index,
    )
    return dynamo.put("node", row, condition)


def still_down(node_id: str) -> Write:
    """Refuse the transaction if the node was heard again: what follows from its return has been done already."""
    down = NodeRow.pk.does_not_exist() | NodeRow.healthy.is_in(False)
    return dynamo.check("node", NodeRow, tables.NODES_PK, node_id, down)


def delete_node(node: Node) -> Write:
    """Delete a node whose instances are deleted, unless it registered anew."""
    return dynamo.delete("node", NodeRow, tables.NODES_PK, node.id, _unmoved(node))


def mark_down(node: Node, index: int, *, since: float, claims_kept: bool) -> Write:
    """Mark the node down, unless it sent a message since it was read. `since` is in seconds since the epoch."""
    actions: list[Action] = [
        NodeRow.healthy.set(False),
        NodeRow.down_since.set(since),
        NodeRow.claims_kept.set(claims_kept),
        NodeRow.modify_index.set(index),
    ]
    return _mark(node, actions, NodeRow.healthy.is_in(True) & (NodeRow.modify_index < index))


def _mark(node: Node, actions: list[Action], condition: Condition) -> Write:
    return dynamo.update("node", NodeRow, tables.NODES_PK, node.id, actions, _unmoved(node) & condition)


def _as_read(read: Node) -> Write:
    same = _unmoved(read) & NodeRow.healthy.is_in(read.healthy)
    return dynamo.check("node", NodeRow, tables.NODES_PK, read.id, same)


def _unmoved(read: Node) -> Condition:
    """Hold while the node has sent nothing since it was read: each message has a higher sequence or a new instance."""
    same: Condition = (NodeRow.sequence == read.sequence) & (NodeRow.instance_id == read.instance_id)
    return same


def _instance_write(plugin_id: str, node_id: str, instance: Instance | None, old: InstanceRow | None) -> Write:
    unchanged: Condition = InstanceRow.pk.does_not_exist() if old is None else InstanceRow.body == old.body
    if instance is None:
        return dynamo.delete("instance", InstanceRow, tables.instances_pk(plugin_id), node_id, unchanged)
    row = InstanceRow(
        tables.instances_pk(plugin_id),
        node_id,
        body=_encode(instance),
        healthy=instance.healthy,
        controller=instance.controller,
        node=instance.node,
    )
    return dynamo.put("instance", row, unchanged)


def _counts_write(plugin_id: str, new: Instance | None, old: Instance | None, index: int, now: float) -> Write:
    actions: list[Action] = [
        PluginRow.modify_index.set(index),
        PluginRow.create_index.set(PluginRow.create_index | index),
        PluginRow.create_time.set(PluginRow.create_time | int(now * 1e9)),
        PluginRow.revision.set((PluginRow.revision | 0) + 1),
        PluginRow.schema.set(tables.SCHEMA),
        PluginRow.instances.set((PluginRow.instances | 0) + (int(new is not None) - int(old is not None))),
    ]
    for name, value in _counts(new).items():
        attribute = getattr(PluginRow, name)
        actions.append(attribute.set((attribute | 0) + (value - _counts(old)[name])))
    if new is not None:
        body = _encode(replace(new, node_id="", address="", serial="", topology=None, external_node_id=""))
        # A bridge whose plugin has not answered yet knows nothing of it, so what an earlier instance said is kept.
        actions.append(PluginRow.body.set(body if new.answered else PluginRow.body | body))
        if new.controller:
            actions.append(PluginRow.controller_body.set(body))
        if new.node:
            actions.append(PluginRow.node_body.set(body))
    condition = PluginRow.modify_index.does_not_exist() | (PluginRow.modify_index < index)
    return dynamo.update("plugin", PluginRow, tables.PLUGINS_PK, plugin_id, actions, condition)


def _counts(instance: Instance | None) -> dict[str, int]:
    controller = instance is not None and instance.controller
    node = instance is not None and instance.node
    healthy = instance is not None and instance.healthy
    return {
        "controllers_expected": int(controller),
        "controllers_healthy": int(controller and healthy),
        "nodes_expected": int(node),
        "nodes_healthy": int(node and healthy),
    }


def _encode(instance: Instance) -> str:
    body: dict[str, Any] = {name: getattr(instance, name) for name in Instance.__slots__}
    for name in _SETS:
        body[name] = sorted(body[name])
    return json.dumps(body, separators=(",", ":"), sort_keys=True)


def _decode(text: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(text)
    for name in _SETS:
        body[name] = frozenset(body[name])
    return {name: value for name, value in body.items() if name in Instance.__slots__}


def _instance(row: InstanceRow) -> Instance:
    return Instance(**_decode(row.body))


def _plugin(row: PluginRow) -> Plugin:
    last = Instance(**_decode(row.body))
    counts: Mapping[str, int] = {name: int(getattr(row, name)) for name in _counts(None)}
    # Controllers and nodes may be separate processes, and each describes its own half only.
    says_so = "CONTROLLER_SERVICE" in last.plugin_capabilities
    has_controller = counts["controllers_expected"] > 0 or says_so
    controller = Instance(**_decode(row.controller_body)) if row.controller_body and has_controller else last
    node = Instance(**_decode(row.node_body)) if row.node_body else last
    return Plugin(
        id=row.sk,
        provider=controller.provider,
        provider_version=controller.provider_version,
        controller_required=controller.controller or says_so,
        awaits_controller=not controller.controller and (says_so or not last.answered),
        controller_capabilities=controller.controller_capabilities,
        node_capabilities=node.node_capabilities,
        plugin_capabilities=controller.plugin_capabilities,
        serialize=controller.serialize,
        deadlines={**node.deadlines, **controller.deadlines},
        grace=controller.grace,
        create_time=int(row.create_time or 0),
        create_index=int(row.create_index),
        modify_index=int(row.modify_index),
        instances=int(row.instances),
        **counts,
    )


def _node(row: NodeRow) -> Node:
    body = json.loads(row.body)
    return Node(
        id=row.sk,
        name=body["name"],
        address=body["address"],
        key=row.key,
        instance_id=row.instance_id,
        sequence=int(row.sequence),
        seen_at=float(row.seen_at),
        healthy=bool(row.healthy),
        down_since=float(row.down_since or 0.0),
        claims_kept=bool(row.claims_kept),
        plugin_ids=tuple(body["plugins"]),
        bridge_version=body.get("version", ""),
        certificate_pem=body.get("certificate", ""),
        create_index=int(row.create_index),
        modify_index=int(row.modify_index),
    )
