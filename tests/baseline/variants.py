"""Variants of rows that do not follow from the code. They come from reading the stores."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from chalicelib.domain.operation import TRY_LIMIT, Kind
from chalicelib.domain.plugin import LEFT
from chalicelib.domain.volume import ACCESS_MODES, ATTACHMENT_MODES, VolumeState
from chalicelib.operations.expand_volume import UPDATES
from chalicelib.service.operations import CANCELLED
from chalicelib.store.tables import (
    AuditRow,
    ClaimRow,
    InstanceRow,
    LeaseRow,
    LockRow,
    NamespaceRow,
    NodeRow,
    OperationRow,
    PluginRow,
    TrustRow,
    TurnRow,
    VolumeRow,
)
from tests.baseline.rows import Rows


def _volume(holds: Callable[[VolumeRow, Mapping[str, Any]], bool]) -> Callable[[Rows], bool]:
    return lambda rows: any(holds(row, json.loads(row.definition or "{}")) for row in rows.items[VolumeRow])


def _claim(holds: Callable[[ClaimRow, Mapping[str, Any], Rows], bool]) -> Callable[[Rows], bool]:
    return lambda rows: any(holds(row, json.loads(row.body), rows) for row in rows.items[ClaimRow])


def _operation(holds: Callable[[OperationRow, Mapping[str, Any], Rows], bool]) -> Callable[[Rows], bool]:
    return lambda rows: any(holds(row, json.loads(row.params or "{}"), rows) for row in rows.items[OperationRow])


def _open(row: OperationRow) -> bool:
    return row.due_bucket is not None


def _node(holds: Callable[[NodeRow, Mapping[str, Any]], bool]) -> Callable[[Rows], bool]:
    return lambda rows: any(holds(row, json.loads(row.body)) for row in rows.items[NodeRow])


def _plugin(holds: Callable[[PluginRow], bool]) -> Callable[[Rows], bool]:
    return lambda rows: any(map(holds, rows.items[PluginRow]))


def _instance(holds: Callable[[InstanceRow, Mapping[str, Any]], bool]) -> Callable[[Rows], bool]:
    return lambda rows: any(holds(row, json.loads(row.body)) for row in rows.items[InstanceRow])


def _in_force(mode: str) -> Callable[[Rows], bool]:
    return _volume(lambda row, _: row.access_mode == mode)


def _attached(mode: str) -> Callable[[Rows], bool]:
    return _volume(lambda row, _: row.attachment_mode == mode)


def _held_for(kind: str) -> Callable[[Rows], bool]:
    return _volume(lambda row, _: row.operation_kind == kind)


def _of_gone_volume(claim: ClaimRow, _: Mapping[str, Any], rows: Rows) -> bool:
    volume = rows.volume_of(claim)
    return volume is None or volume.state == VolumeState.GONE.value


def _of_earlier_volume(claim: ClaimRow, body: Mapping[str, Any], rows: Rows) -> bool:
    volume = rows.volume_of(claim)
    return volume is not None and bool(volume.definition) and volume.create_index != body["volume_index"]


def instances_of(rows: Rows, node: NodeRow) -> list[InstanceRow]:
    return [instance for instance in rows.items[InstanceRow] if instance.sk == node.sk]


VARIANTS: Final[Mapping[str, Callable[[Rows], bool]]] = {
    **{f"volume claimed as {mode}": _in_force(mode) for mode in ACCESS_MODES},
    **{f"volume claimed as {mode}": _attached(mode) for mode in ATTACHMENT_MODES},
    **{f"volume held for {kind}": _held_for(kind) for kind in ("create", "delete", "expand", UPDATES)},
    "volume with all capabilities' forms": _volume(lambda _, body: len(body.get("capabilities", ())) > 1),
    "volume with mount flags": _volume(lambda _, body: body.get("mount", ("", None))[1] is not None),
    "volume with mount options without flags": _volume(lambda _, body: body.get("mount", ("", ()))[1] is None),
    "volume with required topologies": _volume(lambda _, body: bool(body.get("request", ((), ()))[0])),
    "volume with a request without required topologies": _volume(lambda _, b: b.get("request", ((), ()))[0] is None),
    "volume that is registered without an external ID": _volume(
        lambda row, body: bool(row.definition) and "external_id" not in body
    ),
    "volume in a namespace that is not the default": _volume(lambda row, _: row.pk != "ns#default"),
    "volume with a name that is not ASCII": _volume(lambda row, _: not row.sk.isascii()),
    "volume with a size above 2**53": _volume(lambda _, body: body.get("capacity_max", 0) > 2**53),
    "volume with a call of an earlier operation that may land": lambda rows: any(
        (row.calls_until or 0) > rows.moment for row in rows.items[VolumeRow]
    ),
    "volume with readers and writers": _volume(lambda row, _: row.readers > 0 and row.writers > 0),
    "volume with past claims": _volume(lambda row, _: row.past_claims > 0),
    "volume that is expanded while it is claimed": _volume(
        lambda row, _: row.operation_kind == "expand" and row.writers > 0
    ),
    "tombstone of a volume": _volume(lambda row, _: row.state == "gone" and row.modify_index > 0),
    "tombstone of a volume that never was": _volume(lambda row, _: row.state == "gone" and not row.modify_index),
    "reservation of an ID that was used before": _volume(
        lambda row, _: row.state == "creating" and row.modify_index > 0
    ),
    "claim that is published without an operation": _claim(
        lambda row, _, __: row.published and not row.publish_context and row.state == "taken"
    ),
    "claim that is published by the controller": _claim(
        lambda row, _, __: bool(json.loads(row.publish_context or "0"))
    ),
    "claim that is being published": _claim(
        lambda row, _, __: row.state == "taken" and bool(row.operation_id) and not row.published
    ),
    "claim to read": _claim(lambda row, _, __: row.mode == "read"),
    "claim that is lost": _claim(lambda row, _, __: row.node_lost and not row.operation_id),
    "claim whose volume is gone": _claim(_of_gone_volume),
    "claim of an earlier volume of that ID": _claim(_of_earlier_volume),
    "claim that its owner mounts": _claim(lambda _, body, __: not body.get("target_path")),
    "live claim on a node that is down": _claim(
        lambda row, _, rows: (
            row.state == "taken" and row.node_id in {n.sk for n in rows.items[NodeRow] if not n.healthy}
        )
    ),
    "claim that is released by the undo of its publish": lambda rows: any(
        o.kind == "publish" and o.error and any(c.state != "taken" for c in rows.claims_of(o))
        for o in rows.items[OperationRow]
    ),
    "lease that is over": lambda rows: any(row.due_at < rows.moment for row in rows.items[LeaseRow]),
    "lease that is not over": lambda rows: any(row.due_at > rows.moment for row in rows.items[LeaseRow]),
    "operation that no worker has begun": _operation(lambda row, _, __: _open(row) and not row.attempt),
    "operation with a call that may land": lambda rows: any(
        _open(o) and o.unanswered and o.calls_until > rows.moment for o in rows.items[OperationRow]
    ),
    "operation with two calls that were not answered": _operation(lambda row, _, __: row.unanswered > 1),
    "operation whose tries were all answered": _operation(
        lambda row, _, __: _open(row) and bool(row.tries) and not row.unanswered
    ),
    "operation that waits until an earlier call cannot land": _operation(
        lambda row, _, rows: _open(row) and not row.attempt and row.not_before > rows.moment
    ),
    "operation that waits for its turn": lambda rows: any(
        o.sk in (turn.waiting or ()) for turn in rows.items[TurnRow] for o in rows.items[OperationRow] if _open(o)
    ),
    "operation that was resumed": _operation(
        lambda row, _, __: _open(row) and row.attempt >= TRY_LIMIT and not row.tries
    ),
    "operation whose worker may live": lambda rows: any(
        o.status == "running" and o.lease_until > rows.moment for o in rows.items[OperationRow]
    ),
    "operation whose worker is dead": lambda rows: any(
        o.status == "running" and o.lease_until < rows.moment for o in rows.items[OperationRow]
    ),
    "operation that is undone": _operation(lambda row, _, __: _open(row) and bool(row.error)),
    "operation that was cancelled": _operation(lambda row, _, __: row.error == CANCELLED),
    "operation that an operator forced": _operation(lambda row, params, __: _open(row) and bool(params.get("forced"))),
    "unpublish of a volume that is gone": _operation(
        lambda row, _, __: _open(row) and row.kind == "unpublish" and not row.definition
    ),
    "publish without a controller": _operation(
        lambda row, params, __: _open(row) and row.kind == "publish" and not params["attachable"]
    ),
    "publish without a mount": _operation(
        lambda row, params, __: _open(row) and row.kind == "publish" and not params["target_path"]
    ),
    "publish with what the controller answered": _operation(
        lambda row, params, __: _open(row) and bool(params.get("publish_context"))
    ),
    "operation with the volume's secrets": _operation(
        lambda row, params, __: _open(row) and bool(params.get("volume_secrets"))
    ),
    "operation in a namespace that is not the default": _operation(lambda row, _, __: row.namespace == "prod"),
    "turn that is held": lambda rows: any(turn.until > rows.moment for turn in rows.items[TurnRow]),
    "turn that is free": lambda rows: any(not turn.until for turn in rows.items[TurnRow]),
    "plugin without an instance": _plugin(lambda row: not row.instances),
    "plugin without a controller": _plugin(lambda row: row.instances > 0 and not row.controllers_expected),
    "plugin with unhealthy instances": _plugin(lambda row: 0 < row.nodes_healthy < row.nodes_expected),
    "plugin whose controllers are other processes than its nodes": _plugin(
        lambda row: bool(row.controller_body and row.node_body) and row.controller_body != row.node_body
    ),
    **{
        f"instance with calls in turn by {serialize or 'volume'}": _instance(
            lambda _, body, wanted=serialize: body["serialize"] == wanted  # type: ignore[misc]
        )
        for serialize in ("", "node", "plugin")
    },
    "instance of a controller only": _instance(lambda row, _: row.controller and not row.node),
    "instance of a node only": _instance(lambda row, _: row.node and not row.controller),
    "instance that is not healthy": _instance(lambda row, body: not row.healthy and bool(body["health_description"])),
    "node that is up": _node(lambda row, _: row.healthy and row.down_since is None),
    "node that is down": _node(lambda row, _: not row.healthy and not row.claims_kept),
    "node that is spared": _node(lambda row, _: bool(row.claims_kept)),
    "node whose bridge was stopped": _node(lambda row, _: row.instance_id == LEFT),
    "node whose registration is half done": _node(lambda row, body: not body["digest"] and row.instance_id != LEFT),
    "node that is half forgotten": lambda rows: any(
        not node.healthy and not instances_of(rows, node) and json.loads(node.body)["plugins"]
        for node in rows.items[NodeRow]
    ),
    "node that is down with instances that are not": lambda rows: any(
        not node.healthy and instance.healthy for node in rows.items[NodeRow] for instance in instances_of(rows, node)
    ),
    "node without plugins": _node(lambda _, body: not body["plugins"]),
    "namespace with metadata": lambda rows: any("Meta" in json.loads(row.body) for row in rows.items[NamespaceRow]),
    "description of the default namespace": lambda rows: any(row.sk == "default" for row in rows.items[NamespaceRow]),
    "report in more than one part": lambda rows: any(
        row.sk == "last" and json.loads(row.body)["parts"] > 1 for row in rows.items[AuditRow]
    ),
    "lock of a snapshot that is taken, and of one that is deleted": lambda rows: (
        {o.kind for o in rows.items[OperationRow] for lock in rows.items[LockRow] if lock.operation_id == o.sk}
        == {Kind.CREATE_SNAPSHOT.value, Kind.DELETE_SNAPSHOT.value}
    ),
    "serials that are refused": lambda rows: any(row.refused for row in rows.items[TrustRow]),
}
