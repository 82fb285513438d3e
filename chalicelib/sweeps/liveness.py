"""Nodes whose bridge is silent: marked down with all that runs on them, and forgotten after a day.

Silence is no proof of death, and it is judged only by who listened (protocols, section 5): after a gap in the sweeping,
and after a heartbeat that could not be taken, every node has a fresh period. When many nodes miss their heartbeats
together the fault is more likely on this side: they are down all the same, since nothing can be done on them, but what
is claimed there is kept (the nodes are spared), and every lease has a fresh period. The next registration of a node
brings it back; those that stay away when most are back are spared no more.

The node is marked first and its instances after it, each only while the node is as it was marked: so a registration
that comes in between has the last word, and what a crash left undone the next sweep finds and does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from chalicelib import log
from chalicelib.domain.deadlines import LATE_AFTER
from chalicelib.domain.plugin import Node, Patience
from chalicelib.errors import WriteConflict
from chalicelib.service import nodes
from chalicelib.service.deps import Deps
from chalicelib.store import plugins as plugin_store
from chalicelib.store.commit import Change, RefusedWrites
from chalicelib.store.index import NODES
from chalicelib.store.plugins import MovedOn

SWEEP_SECONDS: Final = 60
"""How often the sweeper is called."""
GAP: Final = 2 * SWEEP_SECONDS
"""Seconds between two sweeps above which nobody is held to have listened."""
FORGET_AFTER: Final = 24 * 3600
DESCRIPTION: Final = "the bridge does not answer"


@dataclass(frozen=True, slots=True)
class Silence:
    """What one sweep found. IDs of nodes in order; `fresh_since` in seconds since the epoch."""

    down: tuple[str, ...]
    """Every node that is marked down now and is not spared: what is claimed there is to be let go."""
    marked: tuple[str, ...]
    """Those that were marked down by this sweep."""
    spared: tuple[str, ...]
    """Down, with too many others: what is claimed there is kept."""
    forgotten: tuple[str, ...]
    fresh_since: float
    """Since when leases have been judged without a gap: no lease's period began earlier."""


def silence(deps: Deps) -> Silence:
    """Mark the nodes that are silent, finish those that are marked, forget those that stay away."""
    now = deps.clock.now()
    watched, leases = deps.plugins.watched_since(now, gap=GAP)
    deaf = deps.plugins.deaf_at()
    fresh, leases = max(watched, deaf), max(leases, deaf)
    known = list(deps.plugins.nodes())
    too_many = _too_many(deps.patience, known, now, fresh)
    if too_many:
        leases = now
        deps.plugins.judge_leases_anew(now)
    silent = [node for node in known if node.healthy and now - max(node.seen_at, fresh) > deps.patience.seconds]
    marked = list(filter(None, (_mark(deps, node, spared=too_many) for node in silent)))
    before = [node for node in known if not node.healthy]
    if not too_many:
        before = [_spared_no_more(deps, node) for node in before]
    down = sorted([*marked, *before], key=lambda node: node.id)
    spared = [node for node in down if node.spared]
    if spared:
        log.line(
            "alarm", what="many nodes fell silent together: their claims are kept", nodes=_ids(spared), of=len(known)
        )
    forgotten = []
    for node in down:
        _settle(deps, node)
        # Whoever was away while nobody listened has had no chance to say so yet.
        if now - max(node.down_since, node.seen_at) > FORGET_AFTER and now - fresh > deps.patience.seconds:
            forgotten += [node] if _forget(deps, node) else []
    left = [node for node in down if node not in forgotten]
    return Silence(
        down=_ids([node for node in left if not node.spared]),
        marked=_ids(marked),
        spared=_ids([node for node in left if node.spared]),
        forgotten=_ids(forgotten),
        fresh_since=leases,
    )


def _too_many(patience: Patience, nodes: Sequence[Node], now: float, fresh: float) -> bool:
    """Whether so many are away together that it is no accident of theirs.

    Those that missed a heartbeat count, though they are not silent for long enough yet: heartbeats are spread over
    their period, so of a hundred nodes that were cut off in one moment a third are silent before the others. And those
    that were marked a moment ago, or are spared.
    """
    late = sum(node.healthy and now - max(node.seen_at, fresh) > LATE_AFTER for node in nodes)
    away = sum(not node.healthy and (node.spared or now - node.down_since <= patience.seconds) for node in nodes)
    up = sum(node.healthy for node in nodes) + away
    return late + away > patience.few and late + away > patience.share * up


def _spared_no_more(deps: Deps, node: Node) -> Node:
    return replace(node, spared=False) if node.spared and deps.plugins.spare_no_more(node) else node


def _mark(deps: Deps, node: Node, *, spared: bool) -> Node | None:
    """The node as it is marked; None if it was heard of meanwhile."""
    now = deps.clock.now()

    def build(refused: RefusedWrites) -> Change[bool]:
        if refused:
            return Change(False)  # it was heard of
        return Change(True, lambda index: [plugin_store.mark_down(node, index, since=now, spared=spared)])

    index, marked = deps.committer.commit(NODES, build=build, what=f"node {node.id}")
    if not marked:
        return None
    log.line(
        "node down",
        node_id=node.id,
        address=node.address,
        silent_for=round(now - node.seen_at),
        spared=spared or None,
    )
    return replace(node, healthy=False, down_since=now, spared=spared, modify_index=index)


def _settle(deps: Deps, node: Node) -> None:
    """What runs on a node that is down is not healthy; of no effect where that is said already."""
    for plugin_id in node.plugin_ids:
        found = deps.plugins.instance(plugin_id, node.id)
        if found is None or not found.healthy:
            continue
        unhealthy = replace(found, healthy=False, health_description=DESCRIPTION, update_time=deps.clock.now_ns())
        try:
            deps.plugins.change(plugin_id, node.id, unhealthy, now=deps.clock.now(), read=node)
        except MovedOn:
            return  # it is back
        except WriteConflict as exc:  # the next sweep finds it again
            log.line("node not settled", node_id=node.id, plugin_id=plugin_id, error=exc.text)


def _forget(deps: Deps, node: Node) -> bool:
    """Remove the node with its instances, unless something is claimed on it: a claim must not lose its node's name."""
    if next(deps.claims.on_node(node.id), None) is not None:
        return False
    try:
        nodes.forget(deps, node)
    except MovedOn:
        return False
    except WriteConflict as exc:  # the next sweep goes on here
        log.line("node not forgotten", node_id=node.id, error=exc.text)
        return False
    log.line("node forgotten", node_id=node.id, address=node.address)
    return True


def _ids(nodes: Sequence[Node]) -> tuple[str, ...]:
    return tuple(node.id for node in nodes)
