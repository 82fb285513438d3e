"""/v1/plugins and /v1/plugin/csi/: the plugins that bridges registered."""

from chalicelib import wiring
from chalicelib.routes.call import Answer, Call, Missing
from chalicelib.routes.options import Options
from chalicelib.service import plugins as service
from chalicelib.wire import plugins as wire


def list_plugins(call: Call, _given: Options) -> Answer:
    """Return all plugins: there are no pages and no filter, as in Nomad."""
    index, found = service.list_plugins(wiring.deps(), prefix=call.parameter("prefix"))
    return Answer([wire.stub(p) for p in found], index=index)


def list_no_type(call: Call) -> Answer:
    """Return an empty list without a type, and an empty answer for one that is not `csi`, as in Nomad."""
    return Answer() if "type" in call.query else Answer([])


def read(call: Call, _given: Options, plugin_id: str, _more: str = "") -> Answer:
    """Return one plugin. One more segment of the path is ignored, as in Nomad."""
    deps = wiring.deps()
    index, found, instances = service.read_plugin(deps, plugin_id)
    if found is None:
        raise Missing("plugin not found", index=index)
    # The allocations belong to a namespace. The plugin itself does not.
    allocations = call.namespace == "*" or deps.namespaces.exists(call.namespace)
    return Answer(wire.plugin(found, instances, allocations=allocations), index=index)
