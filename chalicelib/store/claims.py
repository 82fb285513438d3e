"""Claims in their table: each is written in one transaction with its volume's counters.

The counters decide, under conditions, and they count the claims. Each claim has an item in the list of its node. A
claim that must be renewed has a lease item, which says when it runs out. Lease items are in the operations table, whose
index orders what is due.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from chalicelib.domain.claim import Claim, ClaimEvent, ClaimState, NodeState, StaleMount, advance
from chalicelib.domain.volume import Volume, VolumeState
from chalicelib.store import dynamo, stale_mounts, tables, volumes
from chalicelib.store.dynamo import ConditionFailed, Dynamo, Raw, Write
from chalicelib.store.tables import ClaimRow, LeaseRow, NodeClaimRow, VolumeRow

_BODY: Final = (
    "access_mode",
    "attachment_mode",
    "plugin_id",
    "external_id",
    "external_node_id",
    "name",
    "job_id",
    "task_group",
    "staging_path",
    "target_path",
    "lease_seconds",
    "volume_index",
    "create_time",
)


@dataclass(frozen=True, slots=True)
class Lease:
    """When a claim runs out, in seconds since the epoch, and for how many seconds a renewal lasts."""

    namespace: str
    volume_id: str
    allocation_id: str
    until: float
    seconds: int


class ClaimStore:
    """The claims of one stage."""

    def __init__(self, store: Dynamo) -> None:
        self._dynamo = store

    def get(self, namespace: str, volume_id: str, allocation_id: str) -> Claim | None:
        """Return the claim, read strongly, or None."""
        row = self._dynamo.get(ClaimRow, tables.claims_pk(namespace, volume_id), allocation_id)
        return None if row is None else _claim(row)

    def of_volume(self, namespace: str, volume_id: str) -> list[Claim]:
        """Return every claim of the volume, read strongly, by allocation ID."""
        claims: list[Claim] = []
        after = None
        while True:
            page = self._dynamo.query(ClaimRow, tables.claims_pk(namespace, volume_id), after=after)
            claims += [_claim(row) for row in page.rows]
            if page.next_key is None:
                return claims
            after = page.next_key

    def on_node(
        self, node_id: str, *, namespace: str = "", start: tuple[str, str] | None = None
    ) -> Iterator[tuple[str, str, str]]:
        """Yield (namespace, volume ID, allocation ID) of the node's claims, in this order, read as far as needed.

        `namespace`, if given, is the only one that is read. `start` is the first namespace and volume ID.
        """
        after = None
        prefix = tables.member_sk(namespace, "") if namespace else ""
        first = None if start is None else "#".join(start)
        while True:
            page = self._dynamo.query(
                NodeClaimRow, tables.node_claims_pk(node_id), prefix=prefix, start=first, after=after
            )
            for row in page.rows:
                volume, _, allocation_id = row.sk.partition("\n")
                claim_namespace, volume_id = tables.member_of(volume)
                yield claim_namespace, volume_id, allocation_id
            if page.next_key is None:
                return
            after = page.next_key

    def stale_mounts(self, plugin_id: str, external_id: str, node_id: str) -> list[StaleMount]:
        """Return what claims that are free have left mounted of a volume on a node, read strongly."""
        return stale_mounts.on_node(self._dynamo, plugin_id, external_id, node_id)

    def forget_stale_mounts(self, plugin_id: str, external_id: str, node_id: str) -> None:
        """Forget what claims that are free have left mounted of a volume on a node. A publish there takes none away."""
        for mount in self.stale_mounts(plugin_id, external_id, node_id):
            self._dynamo.try_write(stale_mounts.forget(mount))

    def begin_on_node(self, claim: Claim, node: NodeState) -> bool:
        """Record, before the call that stages or mounts it, that the claim may be so on its node. No reader is woken.

        Returns False if the claim is not its operation's any more.
        """
        condition = _same(claim) & (ClaimRow.state == ClaimState.TAKEN.value)
        condition &= ClaimRow.operation_id == claim.operation_id
        if claim.node is NodeState.MOUNTED:
            node = claim.node
        if node is NodeState.STAGED:
            # A worker whose turn is over must not take back what a later one has recorded.
            condition &= ClaimRow.node.is_in(NodeState.OFF.value, NodeState.STAGED.value)
        return self._dynamo.try_write(_update(claim, [ClaimRow.node.set(node.value)], condition))

    def lease(self, claim: Claim) -> Lease | None:
        """Return the claim's lease, read strongly, or None if it has none."""
        row = self._dynamo.get(LeaseRow, _lease_pk(claim), "-")
        return None if row is None else _lease(row)

    def renew(self, claim: Claim, *, until: float, seconds: int) -> bool:
        """Extend the claim's lease, and return False if it is over. No reader is woken."""
        actions: list[Action] = [LeaseRow.due_at.set(until), LeaseRow.seconds.set(seconds)]
        # A release deletes the lease in its transaction. Without the condition, a renewal that comes later would write
        # a new lease for a claim that is released.
        try:
            self._dynamo.update(LeaseRow, _lease_pk(claim), "-", actions, LeaseRow.pk.exists())
        except ConditionFailed:
            return False
        return True

    def run_out(self, now: float) -> Iterator[Lease]:
        """Yield the leases that ended, the longest ago first.

        They come from an index (GSI), which is late by moments: read the lease again before acting on it.
        """
        arguments: dict[str, Any] = {
            "TableName": LeaseRow.Meta.table_name,
            "IndexName": tables.DUE_GSI,
            "KeyConditionExpression": "due_bucket = :leases AND due_at <= :now",
            "ExpressionAttributeValues": {":leases": {"S": tables.LEASE_BUCKET}, ":now": {"N": f"{now:.3f}"}},
        }
        while True:
            with dynamo.translate_errors():
                answer = self._dynamo.client.query(**arguments)
            for item in answer["Items"]:
                row = dynamo.load(LeaseRow, item)
                if row is not None:
                    yield _lease(row)
            if "LastEvaluatedKey" not in answer:
                return
            arguments["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


# Writes of a transaction about a claim and its volume.


def take(claim: Claim, volume: Volume, index: int, *, lease_until: float, beside: Collection[str]) -> list[Write]:
    """Take the claim, if the volume is ready, still defined as it was when it was read, and has room for the claim.

    `beside` names what may hold the volume meanwhile (`Volume.operation_kind`). `lease_until` is in epoch seconds.
    """
    actions: list[Action] = [
        _counter(claim).add(1),
        VolumeRow.access_mode.set(claim.access_mode),
        VolumeRow.attachment_mode.set(claim.attachment_mode),
        VolumeRow.modify_index.set(index),
        VolumeRow.revision.add(1),
    ]
    row = _row(claim, create_index=index, modify_index=index)
    writes = [
        dynamo.update("volume", VolumeRow, *_volume_key(claim), actions, _room(claim, volume, index, beside)),
        dynamo.put("claim", row, ClaimRow.pk.does_not_exist()),
        # This item and the lease need no condition of their own: they are written only if the claim is.
        dynamo.put("node claim", NodeClaimRow(tables.node_claims_pk(claim.node_id), _node_claims_sk(claim))),
    ]
    if claim.lease_seconds:
        lease = LeaseRow(
            _lease_pk(claim),
            "-",
            claim=_node_claims_sk(claim),
            seconds=claim.lease_seconds,
            due_bucket=tables.LEASE_BUCKET,
            due_at=lease_until,
        )
        writes.append(dynamo.put("lease", lease))
    return writes


def publish(claim: Claim, index: int, *, publish_context: dict[str, str], operation_id: str) -> list[Write]:
    """Complete the claim: the volume can be used on its node."""
    actions: list[Action] = [
        ClaimRow.published.set(True),
        ClaimRow.publish_context.set(json.dumps(publish_context, separators=(",", ":"), ensure_ascii=False)),
        ClaimRow.operation_id.remove(),
        ClaimRow.modify_index.set(index),
    ]
    condition = _same(claim) & (ClaimRow.state == ClaimState.TAKEN.value) & (ClaimRow.operation_id == operation_id)
    # A volume with a live claim exists: no write deletes or deregisters it.
    return [_touched(claim, index), _update(claim, actions, condition)]


# Below, `volume` is the volume as it was read. If it is gone, or was created anew since it was claimed, only the claim
# is written.


def release(
    claim: Claim,
    volume: Volume | None,
    index: int,
    *,
    operation_id: str,
    given_up: bool = False,
    node_lost: bool = False,
    lease: Lease | None = None,
) -> list[Write]:
    """Make the claim past, and end its lease. It still counts until it is freed.

    `given_up`: its owner says that it has unmounted the volume. With `lease`, the write is refused if the claim was
    renewed since that was read.
    """
    actions: list[Action] = [
        ClaimRow.state.set(advance(claim.state, ClaimEvent.RELEASE).value),
        ClaimRow.node_lost.set(node_lost),
        ClaimRow.modify_index.set(index),
        ClaimRow.operation_id.set(operation_id) if operation_id else ClaimRow.operation_id.remove(),
        *_off(given_up),
    ]
    condition = _same(claim) & (ClaimRow.state == ClaimState.TAKEN.value) & (ClaimRow.modify_index < index)
    condition &= _held_as_read(claim)
    return [
        *_touch(claim, volume, index, VolumeRow.past_claims.add(1)),
        _update(claim, actions, condition),
        *_end_lease(claim, lease),
    ]


def lose(claim: Claim, volume: Volume | None, index: int, *, operation_id: str) -> list[Write]:
    """Mark the claim `node lost`: nothing proves that its node has let go. It still counts."""
    actions: list[Action] = [
        ClaimRow.node_lost.set(True),
        ClaimRow.operation_id.remove(),
        ClaimRow.modify_index.set(index),
    ]
    condition = _same(claim) & (ClaimRow.state == claim.state.value) & (ClaimRow.operation_id == operation_id)
    return [*_touch(claim, volume, index), _update(claim, actions, condition)]


def reclaim(
    claim: Claim, volume: Volume | None, index: int, *, operation_id: str, given_up: bool = False
) -> list[Write]:
    """Give a past claim to an operation that frees it.

    Its node is back, its owner has `given_up` the volume, or an operator said that the node is off.
    """
    actions: list[Action] = [
        ClaimRow.operation_id.set(operation_id),
        ClaimRow.node_lost.set(False),
        ClaimRow.modify_index.set(index),
        *_off(given_up),
    ]
    return [*_touch(claim, volume, index), _update(claim, actions, _same(claim) & _held_as_read(claim))]


def staged(claim: Claim) -> Write:
    """Record that the claim's volume is unmounted and still staged. Clients do not see it."""
    condition = _same(claim) & (ClaimRow.operation_id == claim.operation_id)
    return _update(claim, [ClaimRow.node.set(NodeState.STAGED.value)], condition)


def off(claim: Claim, volume: Volume | None, index: int) -> list[Write]:
    """Record that the volume of a past claim is off its node."""
    actions: list[Action] = [
        ClaimRow.node.set(NodeState.OFF.value),
        ClaimRow.state.set(advance(claim.state, ClaimEvent.NODE_DETACH).value),
        ClaimRow.modify_index.set(index),
    ]
    condition = _same(claim) & (ClaimRow.state == claim.state.value) & (ClaimRow.operation_id == claim.operation_id)
    return [*_touch(claim, volume, index), _update(claim, actions, condition)]


def still_staged(other: Claim) -> Write:
    """Refuse the transaction unless this other claim still has to take the stage away, when its turn comes."""
    staged = ClaimRow.node.does_not_exist() | (ClaimRow.node != NodeState.OFF.value)
    return dynamo.check("other", ClaimRow, *_key(other), _same(other) & staged)


def still_there(other: Claim) -> Write:
    """Refuse the transaction unless this other claim still has to detach the volume, when its turn comes."""
    return dynamo.check("other", ClaimRow, *_key(other), _same(other) & ClaimRow.node_lost.is_in(False))


def free(claim: Claim, volume: Volume | None, index: int) -> list[Write]:
    """Delete the claim, and count it off its volume. The last claim clears the volume's modes in use.

    If the worker mounted the volume and it is not off the node, its paths are kept as a stale mount.
    store/ownership.py counts it off its storage, if it counts there.
    """
    condition = _same(claim) & _held_as_read(claim)
    writes = [
        dynamo.delete("claim", ClaimRow, *_key(claim), condition),
        dynamo.delete("node claim", NodeClaimRow, tables.node_claims_pk(claim.node_id), _node_claims_sk(claim)),
        *_end_lease(claim),
        *stale_mounts.leave(claim),
    ]
    if volume is None or not claim.is_on(volume):
        return writes
    actions: list[Action] = [
        _counter(claim).add(-1),
        VolumeRow.modify_index.set(index),
        VolumeRow.revision.add(1),
    ]
    if not claim.live:
        actions.append(VolumeRow.past_claims.add(-1))
    # Only under the counters that were read is it known whether this claim is the last.
    counted: Condition = (VolumeRow.readers == volume.readers) & (VolumeRow.writers == volume.writers)
    counted &= _shared(volume)
    if volume.readers + volume.writers == 1:
        actions += [VolumeRow.access_mode.remove(), VolumeRow.attachment_mode.remove()]
    return [
        dynamo.update("volume", VolumeRow, *_volume_key(claim), actions, _its_volume(claim, index) & counted),
        *writes,
    ]


def correct_counters(volume: Volume, index: int, *, readers: int, writers: int, past: int) -> Write:
    """Set the counters, if the volume is as it was read. It must have been read before its claims.

    If it was read after them, a claim may have come in between (docs/protocols.md, section 2).
    """
    actions: list[Action] = [
        VolumeRow.readers.set(readers),
        VolumeRow.writers.set(writers),
        VolumeRow.past_claims.set(past),
        VolumeRow.modify_index.set(index),
        VolumeRow.revision.add(1),
    ]
    if not readers + writers:
        actions += [VolumeRow.access_mode.remove(), VolumeRow.attachment_mode.remove()]
    condition = VolumeRow.pk.exists() & (VolumeRow.modify_index == volume.modify_index)
    condition &= VolumeRow.modify_index < index
    return dynamo.update("volume", VolumeRow, *volumes.key(volume.namespace, volume.id), actions, condition)


def claim_of(raw: Raw | None) -> Claim | None:
    """Return the claim of a raw item, as a refused transaction holds it."""
    row = dynamo.load(ClaimRow, raw)
    return None if row is None else _claim(row)


def _room(claim: Claim, volume: Volume, index: int, beside: Collection[str]) -> Condition:
    ready: Condition = (VolumeRow.state == VolumeState.READY.value) & (VolumeRow.modify_index < index)
    idle = VolumeRow.operation_id.does_not_exist() | VolumeRow.operation_kind.is_in(*sorted(beside))
    # The claim's modes and topology were checked against the definition that was read, so it must still be stored.
    defined = VolumeRow.definition == volumes.encode(volume.definition)
    defined &= VolumeRow.create_index == volume.create_index
    same = (VolumeRow.access_mode == claim.access_mode) & (VolumeRow.attachment_mode == claim.attachment_mode)
    in_force = VolumeRow.access_mode.does_not_exist() | same
    room: Condition = ready & idle & defined & in_force & _shared(volume)
    for counter in sorted(claim.excludes):
        room &= getattr(VolumeRow, counter) == 0
    return room


def _shared(volume: Volume) -> Condition:
    """Hold while claims count where they did when the volume was read: there alone, or at its storage, too."""
    return VolumeRow.shared == True if volume.shared else VolumeRow.shared.does_not_exist()  # noqa: E712


def _touch(claim: Claim, volume: Volume | None, index: int, *counted: Action) -> list[Write]:
    """Raise the volume's index, if it is still the volume that was claimed."""
    return [_touched(claim, index, *counted)] if claim.is_on(volume) else []


def _touched(claim: Claim, index: int, *counted: Action) -> Write:
    actions: list[Action] = [*counted, VolumeRow.modify_index.set(index), VolumeRow.revision.add(1)]
    return dynamo.update("volume", VolumeRow, *_volume_key(claim), actions, _its_volume(claim, index))


def _its_volume(claim: Claim, index: int) -> Condition:
    its: Condition = (VolumeRow.create_index == claim.volume_index) & (VolumeRow.modify_index < index)
    its &= VolumeRow.state.is_in(VolumeState.READY.value, VolumeState.DELETING.value)
    return its


def _counter(claim: Claim) -> Any:
    return VolumeRow.writers if claim.writes else VolumeRow.readers


def _end_lease(claim: Claim, lease: Lease | None = None) -> list[Write]:
    same = None if lease is None else LeaseRow.due_at == lease.until
    return [dynamo.delete("lease", LeaseRow, _lease_pk(claim), "-", same)] if claim.lease_seconds else []


def _update(claim: Claim, actions: list[Action], condition: Condition) -> Write:
    return dynamo.update("claim", ClaimRow, *_key(claim), actions, condition)


def _same(claim: Claim) -> Condition:
    """Hold for the claim that was read, not for one that the allocation took anew since."""
    same: Condition = ClaimRow.create_index == claim.create_index
    return same


def _idle() -> Condition:
    return ClaimRow.operation_id.does_not_exist()


def _held_as_read(claim: Claim) -> Condition:
    """Hold while the operation that was read, or none, has the claim."""
    held: Condition = ClaimRow.operation_id == claim.operation_id
    return held if claim.operation_id else _idle()


def _off(given_up: bool) -> list[Action]:
    return [ClaimRow.node.set(NodeState.OFF.value)] if given_up else []


def _key(claim: Claim) -> tuple[str, str]:
    return tables.claims_pk(claim.namespace, claim.volume_id), claim.allocation_id


def _volume_key(claim: Claim) -> tuple[str, str]:
    return volumes.key(claim.namespace, claim.volume_id)


def _node_claims_sk(claim: Claim) -> str:
    return tables.node_claims_sk(claim.namespace, claim.volume_id, claim.allocation_id)


def _lease_pk(claim: Claim) -> str:
    return tables.lease_pk(claim.namespace, claim.volume_id, claim.allocation_id)


def _row(claim: Claim, *, create_index: int, modify_index: int) -> ClaimRow:
    body = {name: value for name in _BODY if (value := getattr(claim, name))}
    return ClaimRow(
        *_key(claim),
        state=claim.state.value,
        node_id=claim.node_id,
        mode=claim.mode,
        body=json.dumps(body, separators=(",", ":"), ensure_ascii=False),
        operation_id=claim.operation_id or None,
        published=claim.published,
        node=claim.node.value,
        node_lost=claim.node_lost,
        create_index=create_index,
        modify_index=modify_index,
    )


def _claim(row: ClaimRow) -> Claim:
    namespace, _, volume_id = row.pk.removeprefix("vol#").partition("#")
    body: dict[str, Any] = {"access_mode": "", "attachment_mode": ""} | json.loads(row.body)
    return Claim(
        namespace=namespace,
        volume_id=volume_id,
        allocation_id=row.sk,
        node_id=row.node_id,
        mode=row.mode,
        state=ClaimState(row.state),
        operation_id=row.operation_id or "",
        published=bool(row.published),
        node=NodeState(row.node) if row.node else NodeState.MOUNTED,
        node_lost=bool(row.node_lost),
        publish_context=json.loads(row.publish_context) if row.publish_context else {},
        create_index=int(row.create_index),
        modify_index=int(row.modify_index),
        **{name: value for name, value in body.items() if name in _BODY},
    )


def _lease(row: LeaseRow) -> Lease:
    volume, _, allocation_id = row.claim.partition("\n")
    namespace, _, volume_id = volume.partition("#")
    return Lease(namespace, volume_id, allocation_id, float(row.due_at), int(row.seconds))
