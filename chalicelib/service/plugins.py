"""What is registered of plugins and nodes."""

from chalicelib.domain.plugin import Instance, Node, Plugin
from chalicelib.service.deps import Deps


def list_plugins(deps: Deps, *, prefix: str = "") -> tuple[int, list[Plugin]]:
    """The index and the plugins that have an instance, or volumes that wait for one."""
    index = deps.index.watch().now
    found = list(deps.plugins.all(prefix=prefix))
    return max([index, *(p.modify_index for p in found)]), [p for p in found if _shown(deps, p)]


def read_plugin(deps: Deps, plugin_id: str) -> tuple[int, Plugin | None, list[Instance]]:
    """The index, the plugin and its instances."""
    index = deps.index.watch().now
    found = deps.plugins.get(plugin_id)
    if found is None or not _shown(deps, found):
        return index, None, []
    return max(index, found.modify_index), found, deps.plugins.instances(plugin_id)


def list_nodes(deps: Deps, *, prefix: str = "") -> tuple[int, list[Node]]:
    """The index and the nodes, by ID."""
    index = deps.index.watch().now
    found = list(deps.plugins.nodes(prefix=prefix))
    return max([index, *(n.modify_index for n in found)]), found


def read_node(deps: Deps, node_id: str) -> tuple[int, Node | None, dict[str, Instance]]:
    """The index, the node and the instances on it."""
    index = deps.index.watch().now
    found = deps.plugins.node(node_id)
    if found is None:
        return index, None, {}
    on_node = {plugin_id: deps.plugins.instance(plugin_id, node_id) for plugin_id in found.plugin_ids}
    return max(index, found.modify_index), found, {plugin_id: i for plugin_id, i in on_node.items() if i is not None}


def _shown(deps: Deps, plugin: Plugin) -> bool:
    """A plugin without instances and volumes has gone away."""
    return plugin.instances > 0 or deps.volumes.has_members(plugin.id)
