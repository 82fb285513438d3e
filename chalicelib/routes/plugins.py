"""/v1/plugins, /v1/plugin/csi/, /v1/nodes, /v1/node/: what is registered of plugins and nodes."""

from chalicelib import wiring
from chalicelib.errors import NotFound, Refused
from chalicelib.routes.endpoint import Answer, Call, Missing, allow, resource_not_found
from chalicelib.routes.options import Options, options
from chalicelib.service import blocking, plugins
from chalicelib.service import nodes as node_service
from chalicelib.service.deps import Deps
from chalicelib.store.index import MEMBERS, NODES, PLUGINS
from chalicelib.wire import plugins as wire


def collection(call: Call) -> Answer:
    """GET /v1/plugins; paging and filter are not, as in Nomad."""
    allow(call, "GET")
    if "type" not in call.query:
        return Answer([])
    if call.parameter("type") != "csi":
        return Answer()
    deps = _blocked(call, PLUGINS, MEMBERS)
    index, found = plugins.list_plugins(deps, prefix=call.parameter("prefix"))
    return Answer([wire.stub(p) for p in found], index=index)


def item(call: Call) -> Answer:
    """GET /v1/plugin/csi/:id; one more segment is ignored, as in Nomad."""
    allow(call, "GET")
    given = options(call)
    parts = call.rest.split("/")
    if len(parts) > 2:
        raise resource_not_found()
    if not parts[0]:
        raise Refused("missing plugin ID")
    deps = wiring.deps()
    _wait(deps, given, PLUGINS, MEMBERS)
    index, found, instances = plugins.read_plugin(deps, parts[0])
    if found is None:
        raise Missing("plugin not found", index=index)
    # The allocations belong to a namespace; the plugin itself does not.
    allocations = deps.namespaces.exists(call.namespace) or call.namespace == "*"
    return Answer(wire.plugin(found, instances, allocations=allocations), index=index)


def nodes(call: Call) -> Answer:
    """GET /v1/nodes: machines with a bridge."""
    allow(call, "GET")
    deps = _blocked(call, NODES, PLUGINS)
    index, found = plugins.list_nodes(deps, prefix=call.parameter("prefix"))
    return Answer([wire.node_stub(n) for n in found], index=index)


def node(call: Call) -> Answer:
    """GET /v1/node/:id and the allocations on it, of which there are none; PUT or POST of its `purge` forgets it."""
    node_id, slash, rest = call.rest.partition("/")
    if slash and rest == "purge":
        return _purge(call, node_id)
    allow(call, "GET")
    if not node_id:
        raise Refused("missing node ID")
    deps = _blocked(call, NODES, PLUGINS)
    index, found, instances = plugins.read_node(deps, node_id)
    if found is None:
        raise Missing("node not found", index=index)
    if slash and rest == "allocations":
        return Answer([], index=index)
    if slash:
        raise NotFound("resource not found")
    return Answer(wire.node(found, instances), index=index)


def _purge(call: Call, node_id: str) -> Answer:
    allow(call, "PUT", "POST")
    deps = wiring.deps()
    found = deps.plugins.node(node_id)
    if found is None:
        raise NotFound("node not found")
    index = node_service.purge(deps, found)
    return Answer({"EvalCreateIndex": 0, "EvalIDs": None, "NodeModifyIndex": index}, index=index)


def _blocked(call: Call, *scopes: str) -> Deps:
    """Wait as the query asks, on everything of the scopes."""
    given = options(call)
    deps = wiring.deps()
    _wait(deps, given, *scopes)
    return deps


def _wait(deps: Deps, given: Options, *scopes: str) -> None:
    def current() -> int:
        watch = deps.index.watch(consistent=False)
        return max(watch.of(scope) for scope in scopes)

    blocking.until_changed(deps, index=given.index, wait=given.wait, current=current)
