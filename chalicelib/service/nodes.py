"""Read and remove nodes, the machines with a bridge. service/bridges.py registers them."""

from collections.abc import Callable

from chalicelib.domain.plugin import Instance, Node
from chalicelib.errors import NotFound, RequestError
from chalicelib.service.deps import Deps
from chalicelib.store import plugins as plugin_store
from chalicelib.store.commit import Change, RefusedWrites
from chalicelib.store.dynamo import Write
from chalicelib.store.index import NODES
from chalicelib.store.plugins import MovedOn


def list_nodes(deps: Deps, *, prefix: str = "") -> tuple[int, list[Node]]:
    """Return the index and the nodes, by ID."""
    index = deps.index.watch().now
    found = list(deps.plugins.nodes(prefix=prefix))
    return max([index, *(n.modify_index for n in found)]), found


def read_node(deps: Deps, node_id: str) -> tuple[int, Node | None, dict[str, Instance]]:
    """Return the index, the node and the instances on it."""
    index = deps.index.watch().now
    found = deps.plugins.node(node_id)
    if found is None:
        return index, None, {}
    on_node = {plugin_id: deps.plugins.instance(plugin_id, node_id) for plugin_id in found.plugin_ids}
    return max(index, found.modify_index), found, {plugin_id: i for plugin_id, i in on_node.items() if i is not None}


def purge(deps: Deps, node_id: str) -> int:
    """Forget a node that will not come back, and return the index.

    Raises NotFound, or RequestError 409 with what is in the way.
    """
    node = deps.plugins.node(node_id)
    if node is None:
        raise NotFound("node not found")
    if not node.trouble:
        raise RequestError(
            f"node {node.id} is up: stop its bridge, which deregisters it, or wait until it is down", status=409
        )
    place = next(deps.claims.on_node(node.id), None)
    if place is not None:
        raise RequestError(
            f"volume {place[1]} in namespace {place[0]} is claimed on node {node.id}: detach it first", status=409
        )
    try:
        return forget(deps, node)
    except MovedOn:
        raise RequestError(f"node {node.id} was heard of at this moment: it is not purged", status=409) from None


def forget(deps: Deps, node: Node) -> int:
    """Remove the node's instances, then the node, and return the index. Raises MovedOn if the node changed meanwhile.

    The node goes last: it names its instances, so a repeat after a crash finds those that are left.
    """
    now, last = deps.clock.now(), 0
    for plugin_id in node.plugin_ids:
        last = max(last, deps.plugins.change(plugin_id, node.id, None, now=now, read=node))
    return max(last, write(deps, node, lambda _: plugin_store.delete_node(node)))


def write(deps: Deps, node: Node, row: Callable[[int], Write]) -> int:
    """Write the node's row under its condition, and return the index. Raises MovedOn if the condition is false."""

    def build(refused: RefusedWrites) -> Change[None]:
        if refused:
            raise MovedOn(f"node {node.id} moved on")
        return Change(None, lambda index: [row(index)])

    index, _ = deps.committer.commit(NODES, build=build, what=f"node {node.id}")
    return index
