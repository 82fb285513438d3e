"""Read what bridges registered of plugins."""

from chalicelib.domain.plugin import Instance, Plugin
from chalicelib.service.deps import Deps


def list_plugins(deps: Deps, *, prefix: str = "") -> tuple[int, list[Plugin]]:
    """Return the index and the plugins that have an instance, or volumes that wait for one."""
    # Read before the data: a change in between is published later, with a larger index.
    index = deps.index.watch().now
    found = list(deps.plugins.all(prefix=prefix))
    return max([index, *(p.modify_index for p in found)]), [p for p in found if _shown(deps, p)]


def read_plugin(deps: Deps, plugin_id: str) -> tuple[int, Plugin | None, list[Instance]]:
    """Return the index, the plugin and its instances."""
    index = deps.index.watch().now
    found = deps.plugins.get(plugin_id)
    if found is None or not _shown(deps, found):
        return index, None, []
    return max(index, found.modify_index), found, deps.plugins.instances(plugin_id)


def _shown(deps: Deps, plugin: Plugin) -> bool:
    """Return whether clients are shown the plugin: without instances and volumes it has gone away."""
    return plugin.instances > 0 or deps.volumes.has_members(plugin.id)
