"""A row that is read and written again loses nothing: neither the whole row, nor a part that a store encodes."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from chalicelib.domain.plugin import Instance
from chalicelib.store import audits, claims, dynamo, operations, plugins, volumes
from chalicelib.store.tables import (
    AuditRow,
    ClaimRow,
    IndexRow,
    InstanceRow,
    NamespaceRow,
    NodeRow,
    OperationRow,
    PluginRow,
    Row,
    VolumeRow,
)
from tests.baseline.files import Baseline, Item
from tests.baseline.rows import Rows, key_of
from tests.harness import System

PROGRESS = {"attempt", "tries", "lease_until", "error", "last_error", "result", "expires_at", "due_at", "due_bucket"}
"""The attributes that an operation's record gets only by updates, after it was opened."""


def test_a_row_that_is_loaded_and_serialized_is_the_same(baseline: Baseline) -> None:
    for item, row in every(baseline):
        if row is not IndexRow:
            loaded = dynamo.load(row, item)
            assert loaded is not None
            assert lost(item, loaded) == {}


def test_what_stores_decode_and_encode_is_the_same(baseline: Baseline) -> None:
    rows = Rows.of(baseline)
    for volume in rows.items[VolumeRow]:
        if volume.definition:
            again = volumes._row(volumes._volume(volume))
            assert lost(volume.serialize(), again) == {}
    for claim in rows.items[ClaimRow]:
        found = claims._claim(claim)
        again_claim = claims._row(found, create_index=found.create_index, modify_index=found.modify_index)
        # An update writes the controller's answer later.
        assert lost(claim.serialize(), again_claim, but={"publish_context"}) == {}
        assert json.loads(claim.publish_context or "{}") == found.publish_context
    for operation in rows.items[OperationRow]:
        opened = operations._row(operations._operation(operation), due_at=0.0)
        assert lost(operation.serialize(), opened, but=PROGRESS) == {}
    for instance in rows.items[InstanceRow]:
        assert plugins._encode(plugins._instance(instance)) == instance.body
    for plugin in rows.items[PluginRow]:
        for body in filter(None, (plugin.body, plugin.controller_body, plugin.node_body)):
            assert plugins._encode(Instance(**plugins._decode(body))) == body


def test_what_stores_write_whole_is_the_same(world: System) -> None:
    """Nodes and namespaces are put as a whole, so each is read, put again and compared. Reports are only read."""
    stores = world.deps
    for node in list(stores.plugins.nodes()):
        before = raw(world, NodeRow, "node", node.id)
        assert stores.plugins.put_node(node, digest=stores.plugins.digest(node.id), read=node)
        assert same(raw(world, NodeRow, "node", node.id), before)
    for namespace in list(stores.namespaces.all()):
        before = raw(world, NamespaceRow, "namespace", namespace.name)
        assert stores.namespaces.put(namespace, read=namespace)
        assert same(raw(world, NamespaceRow, "namespace", namespace.name), before)
    reports = audits.AuditStore(stores.dynamo)
    for plugin_id in ("ebs", "files", "split"):
        pk = f"audit#{plugin_id}"
        before = raw(world, AuditRow, pk, "last")
        report = reports.last(plugin_id)
        assert report is not None
        findings = [finding for number in range(report.parts) for finding in reports.part(report, number)]
        texts = [
            json.loads(raw(world, AuditRow, pk, f"{report.run}#{n:06d}")["body"]["S"]) for n in range(report.parts)
        ]
        assert [asdict(finding) for finding in findings] == [one for part in texts for one in part]
        assert json.loads(before["body"]["S"]) == asdict(report)


def every(baseline: Baseline) -> list[tuple[Item, type[Row]]]:
    return [(item, key_of(table, item).row) for table, items in baseline.rows.items() for item in items]


def lost(item: Mapping[str, Any], again: Row, *, but: Collection[str] = ()) -> dict[str, Any]:
    """Return the attributes that are missing or changed, with their old values. A missing one equals 0."""
    written = _plain(again.serialize())
    return {
        name: value
        for name, value in _plain(item).items()
        if name not in but and written.get(name) != value and (value or name in written)
    }


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return _plain(one) == _plain(other)


def raw(world: System, row: type[Row], pk: str, sk: str) -> Item:
    key = {"pk": {"S": pk}, "sk": {"S": sk}}
    return dict(world.deps.dynamo.client.get_item(TableName=row.Meta.table_name, Key=key)["Item"])


def _plain(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of an item, so that numbers, JSON and sets compare by value and not by their text."""
    return {name: _value(*next(iter(typed.items()))) for name, typed in item.items()}


def _value(kind: str, value: Any) -> Any:
    if kind == "N":
        return float(value)
    if kind == "SS":
        return set(value)
    if kind == "S" and value.startswith(("{", "[")):
        return json.loads(value)
    return value
