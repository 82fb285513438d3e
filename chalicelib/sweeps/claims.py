"""What time does to claims: leases that run out, nodes that are down, nodes that are back.

Silence is no proof of death (protocols, sections 2 and 5). What is released here still has to be taken off its node, by
the controller or by the node itself; what neither can do stays as `node lost`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from chalicelib.domain.claim import Claim
from chalicelib.domain.deadlines import LATE_AFTER
from chalicelib.domain.plugin import Node
from chalicelib.errors import StoreError
from chalicelib.service import claims
from chalicelib.service.deps import Deps
from chalicelib.store.claims import Lease

SECONDS: Final = 30.0
"""How long one sweep of claims may take: its function has a minute for everything."""


@dataclass
class Swept:
    """What one sweep did with claims."""

    run_out: int = 0
    from_down_nodes: int = 0
    lost: int = 0
    failed: int = 0


def sweep(deps: Deps, *, down: Iterable[str], fresh_since: float) -> Swept:
    """Release what ran out and what is on nodes that are `down`; what there is no time for, the next sweep finds.

    `fresh_since` is the moment since which the control plane has been judging leases without a gap: before it nobody
    could renew for certain, so every lease lasts at least its length from then on.
    """
    swept, end = Swept(), deps.clock.monotonic() + SECONDS
    for lease in deps.claims.run_out(deps.clock.now()):
        if deps.clock.monotonic() > end:
            return swept
        _run_out(deps, lease, fresh_since, swept)
    for node_id in down:
        for place in deps.claims.on_node(node_id):
            if deps.clock.monotonic() > end:
                return swept
            claim = deps.claims.get(*place)
            if claim is not None and claim.live:
                _let_go(deps, claim, swept, node_up=False)
                swept.from_down_nodes += 1
    return swept


def returned(deps: Deps, node_id: str) -> list[Claim]:
    """The node is back: what it lost is taken off it by its own plugin. Returns what is no longer its own."""
    past = []
    for place in deps.claims.on_node(node_id):
        claim = deps.claims.get(*place)
        if claim is None or claim.live:
            continue
        past.append(claim)
        if claim.node_lost and claim.target_path:
            claims.let_go(deps, claim)
    return past


def _run_out(deps: Deps, lease: Lease, fresh_since: float, swept: Swept) -> None:
    if max(lease.until, fresh_since + lease.seconds) > deps.clock.now():
        return
    claim = deps.claims.get(lease.namespace, lease.volume_id, lease.allocation_id)
    if claim is None or not claim.live:
        return
    node = deps.plugins.node(claim.node_id)
    if node is not None and (node.spared or _late(deps, node)):
        return  # whether it is down is decided for all nodes together (service/silence.py)
    # Renewed since the index was read?
    stored = deps.claims.lease(claim)
    if stored is None or stored.until != lease.until:
        return
    _let_go(deps, claim, swept, node_up=node is not None and node.healthy, lease=stored)
    swept.run_out += 1


def _late(deps: Deps, node: Node) -> bool:
    return node.healthy and deps.clock.now() - node.seen_at > LATE_AFTER


def _let_go(deps: Deps, claim: Claim, swept: Swept, *, node_up: bool, lease: Lease | None = None) -> None:
    try:
        if claims.let_go(deps, claim, node_up=node_up, lease=lease) is None:
            swept.lost += 1
    except StoreError:
        swept.failed += 1  # the next sweep finds it again
