"""Plugins, their instances and the nodes, in one table.

A plugin's counts are changed in the transaction that changes the instance, from the difference to the instance as it
stood, so they always equal the instances, whatever is repeated or lost in between.
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
from chalicelib.store.tables import DeafRow, InstanceRow, NodeRow, PluginRow, SweepRow

_SETS: Final = ("controller_capabilities", "node_capabilities", "plugin_capabilities")


class MovedOn(Exception):
    """The node registered anew, or was marked, since it was read: what was decided from that reading is void."""


class PluginStore:
    """The plugins and nodes of one stage."""

    def __init__(self, store: Dynamo, committer: Committer) -> None:
        self._dynamo, self._committer = store, committer

    def get(self, plugin_id: str, *, consistent: bool = True) -> Plugin | None:
        """The plugin with its counts; one without instances keeps its record as long as it has volumes."""
        row = self._dynamo.get(PluginRow, tables.PLUGINS_PK, plugin_id, consistent=consistent)
        return None if row is None else _plugin(row)

    def get_many(self, plugin_ids: Iterable[str]) -> dict[str, Plugin]:
        """Those of the plugins that have a record, read strongly: lists show their counts and wake by their changes."""
        ids = sorted(set(plugin_ids))
        if len(ids) == 1:
            found = self.get(ids[0])
            return {ids[0]: found} if found is not None else {}
        rows = self._dynamo.batch_get(PluginRow, [(tables.PLUGINS_PK, i) for i in ids])
        return {row.sk: _plugin(row) for row in rows.values()}

    def all(self, *, prefix: str = "") -> Iterator[Plugin]:
        """Every record, instances or not, in order of the IDs."""
        after = None
        while True:
            page = self._dynamo.query(PluginRow, tables.PLUGINS_PK, prefix=prefix, after=after)
            yield from (_plugin(row) for row in page.rows)
            if page.next_key is None:
                return
            after = page.next_key

    def instances(self, plugin_id: str) -> list[Instance]:
        """Every instance of the plugin, in order of the node IDs."""
        out: list[Instance] = []
        after = None
        while True:
            page = self._dynamo.query(InstanceRow, tables.instances_pk(plugin_id), after=after)
            out += [_instance(row) for row in page.rows]
            if page.next_key is None:
                return out
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
        """What the node registered last, in short; empty while a registration is half done."""
        row = self._dynamo.get(NodeRow, tables.NODES_PK, node_id)
        return "" if row is None else str(json.loads(row.body).get("digest", ""))

    def put_node(self, node: Node, *, digest: str, read: Node | None) -> bool:
        """Write the digest of a node, which no client sees; False if the node was written since it was `read`."""
        return self._dynamo.written(put_node(node, digest=digest, read=read))

    def heartbeat(self, node: Node, *, sequence: int, seen_at: float) -> bool:
        """The node is there and nothing changed: one write unit, no index, nobody woken. False if its row moved on."""
        actions: list[Action] = [NodeRow.sequence.set(sequence), NodeRow.seen_at.set(seen_at)]
        # A node that was marked down meanwhile must register in full.
        return self._dynamo.written(_mark(node, actions, NodeRow.healthy.is_in(True)))

    def spare_no_more(self, node: Node) -> bool:
        """What is claimed on the node is not kept any longer. False if it was heard of after it was read."""
        return self._dynamo.written(_mark(node, [NodeRow.spared.set(False)], NodeRow.healthy.is_in(False)))

    def watched_since(self, now: float, *, gap: float) -> tuple[float, float]:
        """Note that the nodes are looked after at `now`; returns since when they have been, without a longer `gap`, and
        since when leases have been judged.

        Seconds since the epoch. Whoever judges a node's silence counts from then at the earliest: what was not looked
        at is not known to have been silent.
        """
        row = self._dynamo.get(SweepRow, "sweep", "nodes")
        since = now if row is None or now - row.swept_at > gap else float(row.fresh_since)
        leases = float((row and row.leases_since) or 0.0)
        self._dynamo.put(SweepRow("sweep", "nodes", swept_at=now, fresh_since=since, leases_since=leases))
        return since, max(since, leases)

    def judge_leases_anew(self, now: float) -> None:
        """Every lease has a fresh period from `now` on."""
        self._dynamo.update(SweepRow, "sweep", "nodes", [SweepRow.leases_since.set(now)], SweepRow.pk.exists())

    def could_not_hear(self, now: float) -> None:
        """Note that a heartbeat was not taken, through no fault of its node."""
        self._dynamo.put(DeafRow("sweep", "deaf", at=now))

    def deaf_at(self) -> float:
        """When a heartbeat was not taken the last time, 0 for never."""
        row = self._dynamo.get(DeafRow, "sweep", "deaf")
        return 0.0 if row is None else float(row.at)

    def change(
        self, plugin_id: str, node_id: str, instance: Instance | None, *, now: float, read: Node | None = None
    ) -> int:
        """Make `instance` what the node runs of the plugin (None: nothing); returns the index, 0 if nothing changed.

        Instance and counts in one transaction; repeated against other nodes that change the same plugin at once. With
        `read`, only while the node is as it was read, as up or down as it was: else raises MovedOn.
        """

        def build(refused: RefusedWrites) -> Change[None]:
            if "node" in refused:
                raise MovedOn(f"node {node_id} moved on")
            old_row = self._dynamo.get(InstanceRow, tables.instances_pk(plugin_id), node_id)
            old = None if old_row is None else _instance(old_row)
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


# What a transaction writes about a node. Each names the conditions under which it is right.


def put_node(node: Node, *, digest: str, read: Node | None) -> Write:
    """Put the node as it registered, if it was not written since it was `read`."""
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
        spared=node.spared,
        create_index=node.create_index,
        modify_index=node.modify_index,
    )
    return dynamo.put("node", row, condition)


def delete_node(node: Node) -> Write:
    """Forget a node whose instances are gone, unless it registered anew meanwhile."""
    return dynamo.delete("node", NodeRow, tables.NODES_PK, node.id, _unmoved(node))


def mark_down(node: Node, index: int, *, since: float, spared: bool) -> Write:
    """The node's bridge is silent, if it was not heard of after it was read."""
    actions: list[Action] = [
        NodeRow.healthy.set(False),
        NodeRow.down_since.set(since),
        NodeRow.spared.set(spared),
        NodeRow.modify_index.set(index),
    ]
    return _mark(node, actions, NodeRow.healthy.is_in(True) & (NodeRow.modify_index < index))


def _mark(node: Node, actions: list[Action], condition: Condition) -> Write:
    return dynamo.update("node", NodeRow, tables.NODES_PK, node.id, actions, _unmoved(node) & condition)


def _as_read(read: Node) -> Write:
    same = _unmoved(read) & NodeRow.healthy.is_in(read.healthy)
    return dynamo.check("node", NodeRow, tables.NODES_PK, read.id, same)


def _unmoved(read: Node) -> Condition:
    """The node has said nothing since it was read."""
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
        # A bridge that has not heard its plugin yet says nothing of it: what is known stays.
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
    # Controllers and nodes may be separate processes, each of which knows its own half only.
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
        spared=bool(row.spared),
        plugin_ids=tuple(body["plugins"]),
        bridge_version=body.get("version", ""),
        certificate_pem=body.get("certificate", ""),
        create_index=int(row.create_index),
        modify_index=int(row.modify_index),
    )
