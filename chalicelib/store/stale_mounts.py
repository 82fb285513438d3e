"""Stale mounts in the claims' table: what a claim that is free has left mounted on its node.

The key is plugin, external ID and node, since the volume may have another ID when it is published there again. No claim
overwrites the stale mount of an earlier one with its name: before a claim begins on a node, the stale mounts there are
taken away.
"""

from pynamodb.expressions.update import Action

from chalicelib.domain.claim import Claim, NodeState, StaleMount
from chalicelib.store import dynamo, tables
from chalicelib.store.dynamo import Dynamo, Write
from chalicelib.store.tables import StaleMountRow


def on_node(store: Dynamo, plugin_id: str, external_id: str, node_id: str) -> list[StaleMount]:
    """Return the stale mounts of a volume on a node, read strongly."""
    place = plugin_id, external_id, node_id
    found: list[StaleMount] = []
    after = None
    while True:
        page = store.query(StaleMountRow, tables.stale_mounts_pk(*place), after=after)
        found += [
            StaleMount(*place, row.sk, row.staging_path, row.target_path, NodeState(row.node)) for row in page.rows
        ]
        if page.next_key is None:
            return found
        after = page.next_key


def leave(claim: Claim) -> list[Write]:
    """Leave a stale mount of a claim that is freed, if the worker mounted its volume and that is not off the node."""
    if not claim.is_mounted_by_worker or claim.node is NodeState.OFF:
        return []
    row = StaleMountRow(
        tables.stale_mounts_pk(claim.plugin_id, claim.external_id, claim.node_id),
        tables.node_claims_sk(claim.namespace, claim.volume_id, claim.allocation_id),
        staging_path=claim.staging_path,
        target_path=claim.target_path,
        node=claim.node.value,
    )
    return [dynamo.put("stale mount", row)]


def unmounted(mount: StaleMount) -> Write:
    """Record that a stale mount is unmounted, and still staged."""
    actions: list[Action] = [StaleMountRow.node.set(NodeState.STAGED.value)]
    return dynamo.update("stale mount", StaleMountRow, *_key(mount), actions, StaleMountRow.pk.exists())


def forget(mount: StaleMount) -> Write:
    """Delete a stale mount that is gone, or whose stage is left to a claim."""
    return dynamo.delete("stale mount", StaleMountRow, *_key(mount))


def _key(mount: StaleMount) -> tuple[str, str]:
    return tables.stale_mounts_pk(mount.plugin_id, mount.external_id, mount.node_id), mount.name
