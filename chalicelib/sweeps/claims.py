"""Release claims whose lease ran out and claims on nodes that are down.

A missing heartbeat is no proof of death, and a lease that ran out is no proof that its owner has unmounted the volume
(docs/protocols.md, section 2). What is released here must still be taken off its node, by the controller or by the node
itself. A claim for which neither is possible stays, as `node lost`.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from chalicelib.domain.claim import Claim
from chalicelib.domain.deadlines import LATE_AFTER
from chalicelib.domain.plugin import Node
from chalicelib.errors import StoreError
from chalicelib.service import releases
from chalicelib.service.deps import Deps
from chalicelib.store.claims import Lease
from chalicelib.sweeps import liveness

SECONDS: Final = 30.0
"""How long one sweep of claims may take: its function has a minute for all sweeps."""


@dataclass(frozen=True, slots=True)
class Report:
    """How many claims the sweep handled, and why. `lost` ones became `node lost`, `failed` ones are tried again."""

    run_out: int = 0
    from_down_nodes: int = 0
    lost: int = 0
    failed: int = 0


def sweep(deps: Deps, nodes: liveness.Report) -> Report:
    """Release the claims whose lease ran out and those on nodes that are down, for at most `SECONDS`.

    What there is no time for is released by the next sweep.
    """
    counts: Counter[str] = Counter()
    end = deps.clock.monotonic() + SECONDS
    for release in _releases(deps, nodes, counts):
        if deps.clock.monotonic() > end:
            break
        release()
    return Report(**counts)


def _releases(deps: Deps, nodes: liveness.Report, counts: Counter[str]) -> Iterator[Callable[[], None]]:
    """Yield the releases of this sweep. Each reads its claim when it is called."""
    for lease in deps.claims.run_out(deps.clock.now()):
        yield partial(_run_out, deps, lease, nodes.leases_since, counts)
    for node_id in nodes.down:
        for key in deps.claims.on_node(node_id):
            yield partial(_from_down_node, deps, key, counts)


def _run_out(deps: Deps, lease: Lease, leases_since: float, counts: Counter[str]) -> None:
    """Release the claim of a lease that ran out, unless it was renewed or its node is not judged yet."""
    # No renewal could be taken before `leases_since`, so each lease lasts at least its length from then on.
    if max(lease.until, leases_since + lease.seconds) > deps.clock.now():
        return
    claim = deps.claims.get(lease.namespace, lease.volume_id, lease.allocation_id)
    if claim is None or not claim.live:
        return
    node = deps.plugins.node(claim.node_id)
    if node is not None and (node.claims_kept or _late(deps, node)):
        # Which nodes are down is decided for all of them together (sweeps/liveness.py).
        return
    # The lease came from an index that is late by moments. Read strongly, it may have been renewed.
    stored = deps.claims.lease(claim)
    if stored is None or stored.until != lease.until:
        return
    _let_go(deps, claim, counts, lease=stored)
    counts["run_out"] += 1


def _from_down_node(deps: Deps, key: tuple[str, str, str], counts: Counter[str]) -> None:
    claim = deps.claims.get(*key)
    if claim is not None and claim.live:
        _let_go(deps, claim, counts)
        counts["from_down_nodes"] += 1


def _late(deps: Deps, node: Node) -> bool:
    return node.healthy and deps.clock.now() - node.seen_at > LATE_AFTER


def _let_go(deps: Deps, claim: Claim, counts: Counter[str], *, lease: Lease | None = None) -> None:
    """Release one claim. With `lease`, only if it was not renewed since that was read."""
    try:
        if releases.begin_release(deps, claim, lease=lease) is None:
            counts["lost"] += 1
    except StoreError:
        counts["failed"] += 1  # the next sweep finds it again
