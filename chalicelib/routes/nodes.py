"""/v1/nodes and /v1/node/: machines with a bridge, as Nomad shows its nodes. routes/bridges.py registers them."""

from chalicelib import wiring
from chalicelib.routes.call import Answer, Call, Missing
from chalicelib.routes.options import Options
from chalicelib.service import nodes as service
from chalicelib.wire import plugins as wire


def list_nodes(call: Call, _given: Options) -> Answer:
    index, found = service.list_nodes(wiring.deps(), prefix=call.parameter("prefix"))
    return Answer([wire.node_stub(n) for n in found], index=index)


def read(_call: Call, _given: Options, node_id: str) -> Answer:
    index, found, instances = service.read_node(wiring.deps(), node_id)
    if found is None:
        raise Missing("node not found", index=index)
    return Answer(wire.node(found, instances), index=index)


def list_allocations(_call: Call, _given: Options, node_id: str) -> Answer:
    """Return an empty list: no jobs run here."""
    index, found, _ = service.read_node(wiring.deps(), node_id)
    if found is None:
        raise Missing("node not found", index=index)
    return Answer([], index=index)


def purge(_call: Call, node_id: str) -> Answer:
    """Forget a node that will not come back."""
    index = service.purge(wiring.deps(), node_id)
    return Answer(wire.purged(index), index=index)
