"""Change what depends on whether a node is up: the health of its instances, and the claims that it has lost.

The sweep (sweeps/liveness.py) decides which nodes are down. A registration brings a node back (service/bridges.py).
"""

from dataclasses import replace

from chalicelib.domain.claim import Claim
from chalicelib.domain.plugin import Node
from chalicelib.service import releases
from chalicelib.service.deps import Deps


def release_lost_claims(deps: Deps, node_id: str) -> list[Claim]:
    """Begin to unmount the volumes whose claims the returned node has lost. Return its claims that are past.

    The node's own plugin can unmount them now. While the node was down, nothing could prove that they were unmounted.
    """
    past = []
    for key in deps.claims.on_node(node_id):
        claim = deps.claims.get(*key)
        if claim is None or claim.live:
            continue
        past.append(claim)
        # What an orchestrator mounted, which gave no path, is the orchestrator's to unmount and release.
        if claim.node_lost and claim.is_mounted_by_worker:
            releases.begin_release(deps, claim)
    return past


def mark_unhealthy(deps: Deps, node: Node, plugin_id: str, *, reason: str, overwrite: bool) -> int:
    """Mark the node's instance of the plugin unhealthy. Return the index, or 0 if nothing changed.

    With `overwrite`, an instance that is unhealthy already is given the new `reason` too. Raises MovedOn when the node
    changed since it was read.
    """
    instance = deps.plugins.instance(plugin_id, node.id)
    if instance is None or not (instance.healthy or overwrite):
        return 0
    unhealthy = replace(instance, healthy=False, health_description=reason, update_time=deps.clock.now_ns())
    return deps.plugins.change(plugin_id, node.id, unhealthy, now=deps.clock.now(), read=node)
