"""Mark nodes down whose bridge sends no heartbeat, mark what runs on them unhealthy, and forget them after a day.

A missing heartbeat is no proof of death, and it counts only while the control plane could have taken one
(docs/protocols.md, section 5). After a gap in the sweeping, and after a heartbeat that the control plane missed, every
node has a fresh period.

When many nodes miss their heartbeats together, the fault is more likely on this side. They are marked down all the
same, since nothing can be done on them. But the claims on them are kept, and every lease has a fresh period. The next
registration of a node brings it back. Nodes that stay away when most are back lose their claims as any other.

The node is marked first and its instances after it, each write only while the node is as it was marked. So a
registration that comes in between has the last word, and the next sweep completes what a crash left undone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from chalicelib import log
from chalicelib.domain.deadlines import LATE_AFTER
from chalicelib.domain.plugin import LivenessPolicy, Node
from chalicelib.errors import WriteConflict
from chalicelib.service import nodes
from chalicelib.service.deps import Deps
from chalicelib.service.liveness import mark_unhealthy
from chalicelib.store import plugins as plugin_store
from chalicelib.store.commit import Change, RefusedWrites
from chalicelib.store.index import NODES
from chalicelib.store.plugins import MovedOn

SWEEP_SECONDS: Final = 60
"""How often the sweeper is called."""
GAP: Final = 2 * SWEEP_SECONDS
"""Seconds between two sweeps above which the control plane counts as not listening in between."""
FORGET_AFTER: Final = 24 * 3600
REASON: Final = "the bridge does not answer"


@dataclass(frozen=True, slots=True)
class Report:
    """The IDs of nodes, in order, and `leases_since` in seconds since the epoch."""

    down: tuple[str, ...] = ()
    """Every node that is down now and whose claims must be released."""
    marked: tuple[str, ...] = ()
    """Nodes that this sweep marked down, with claims kept or not."""
    claims_kept: tuple[str, ...] = ()
    """Every node that is down together with too many others: its claims are kept."""
    forgotten: tuple[str, ...] = ()
    leases_since: float = 0.0
    """Since when renewals could be taken without a gap: no lease's period began earlier."""


def sweep(deps: Deps) -> Report:
    """Mark nodes that are silent, complete what was marked before, and forget nodes that stay away."""
    now = deps.clock.now()
    nodes_since, leases_since = deps.plugins.record_sweep(now, gap=GAP)
    missed = deps.plugins.missed_heartbeat_at()
    listening_since, leases_since = max(nodes_since, missed), max(leases_since, missed)
    known = list(deps.plugins.nodes())
    keep_claims = _is_outage(deps.liveness, known, now, listening_since)
    if keep_claims:
        leases_since = now
        deps.plugins.restart_leases(now)
    marked = _mark_silent(deps, known, now, listening_since, keep_claims=keep_claims)
    before = [node for node in known if not node.healthy]
    if not keep_claims:
        before = [_stop_keeping_claims(deps, node) for node in before]
    down = sorted([*marked, *before], key=lambda node: node.id)
    kept = [node for node in down if node.claims_kept]
    if kept:
        log.line(
            "alarm", what="many nodes fell silent together: their claims are kept", nodes=_ids(kept), of=len(known)
        )
    # While the control plane did not listen, a node had no chance to be heard. So it first gets a whole period.
    may_forget = now - listening_since > deps.liveness.silent_after
    forgotten = []
    for node in down:
        _mark_instances(deps, node)
        if may_forget and now - max(node.down_since, node.seen_at) > FORGET_AFTER and _forget(deps, node):
            forgotten.append(node)
    remaining = [node for node in down if node not in forgotten]
    return Report(
        down=_ids([node for node in remaining if not node.claims_kept]),
        marked=_ids(marked),
        claims_kept=_ids([node for node in remaining if node.claims_kept]),
        forgotten=_ids(forgotten),
        leases_since=leases_since,
    )


def _is_outage(policy: LivenessPolicy, nodes: Sequence[Node], now: float, listening_since: float) -> bool:
    """Return whether so many nodes are away together that the fault is more likely on this side.

    Nodes that are late count, though they are not silent yet. Heartbeats are spread over their period, so of a hundred
    nodes that are cut off in one moment a third are silent before the others. Nodes that were marked within the last
    period count too, and those whose claims are kept.
    """
    late = sum(node.healthy and now - max(node.seen_at, listening_since) > LATE_AFTER for node in nodes)
    away = sum(
        not node.healthy and (node.claims_kept or now - node.down_since <= policy.silent_after) for node in nodes
    )
    total = sum(node.healthy for node in nodes) + away
    return late + away > policy.outage_count and late + away > policy.outage_share * total


def _mark_silent(
    deps: Deps, known: Sequence[Node], now: float, listening_since: float, *, keep_claims: bool
) -> list[Node]:
    """Mark the silent nodes down. Return those that were marked, as they are stored then."""
    silent = [
        node for node in known if node.healthy and now - max(node.seen_at, listening_since) > deps.liveness.silent_after
    ]
    marked = [_mark(deps, node, claims_kept=keep_claims) for node in silent]
    return [node for node in marked if node is not None]


def _stop_keeping_claims(deps: Deps, node: Node) -> Node:
    if node.claims_kept and deps.plugins.stop_keeping_claims(node):
        return replace(node, claims_kept=False)
    return node


def _mark(deps: Deps, node: Node, *, claims_kept: bool) -> Node | None:
    """Mark the node down. Return it as it is marked, or None if it changed since it was read."""
    now = deps.clock.now()

    def build(refused: RefusedWrites) -> Change[bool]:
        if refused:
            return Change(False)  # it sent a message, or another sweep marked it
        return Change(True, lambda index: [plugin_store.mark_down(node, index, since=now, claims_kept=claims_kept)])

    index, marked = deps.committer.commit(NODES, build=build, what=f"node {node.id}")
    if not marked:
        return None
    log.line(
        "node down",
        node_id=node.id,
        address=node.address,
        silent_for=round(now - node.seen_at),
        claims_kept=claims_kept or None,
    )
    return replace(node, healthy=False, down_since=now, claims_kept=claims_kept, modify_index=index)


def _mark_instances(deps: Deps, node: Node) -> None:
    """Mark the instances on a node that is down unhealthy, where that is not done yet."""
    for plugin_id in node.plugin_ids:
        try:
            mark_unhealthy(deps, node, plugin_id, reason=REASON, overwrite=False)
        except MovedOn:
            return  # it is back
        except WriteConflict as exc:  # the next sweep tries again, and the other nodes must not wait for this one
            log.line("node not settled", node_id=node.id, plugin_id=plugin_id, error=exc.text)


def _forget(deps: Deps, node: Node) -> bool:
    """Remove the node with its instances. Return False if a claim is on it, or if it changed since it was read."""
    if next(deps.claims.on_node(node.id), None) is not None:
        return False
    try:
        nodes.forget(deps, node)
    except MovedOn:
        return False
    except WriteConflict as exc:  # the next sweep continues here
        log.line("node not forgotten", node_id=node.id, error=exc.text)
        return False
    log.line("node forgotten", node_id=node.id, address=node.address)
    return True


def _ids(nodes: Sequence[Node]) -> tuple[str, ...]:
    return tuple(node.id for node in nodes)
