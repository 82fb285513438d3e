"""/v1/operations and /v1/operation/: the work at providers, and its results."""

from chalicelib import wiring
from chalicelib.routes.call import Answer, Call
from chalicelib.routes.options import Options
from chalicelib.service import operations as service
from chalicelib.wire import operations as wire


def list_operations(call: Call, given: Options) -> Answer:
    """Return a page of operations, the newest first, of every namespace unless one is given."""
    query = service.OperationQuery(
        namespace=call.parameter("namespace") or "*",
        status=call.parameter("status"),
        volume_id=call.parameter("volume_id"),
        plugin_id=call.parameter("plugin_id"),
        per_page=max(given.per_page, 0),
        next_token=given.next_token,
    )
    listed = service.list_operations(wiring.deps(), query)
    return Answer(wire.page([wire.operation(o) for o in listed.operations], listed.next_token), index=listed.index)


def read(_call: Call, given: Options, operation_id: str) -> Answer:
    """Return one operation. Without `index`, `wait` is how long to wait for its outcome."""
    deps = wiring.deps()
    index = deps.operations.changes()
    found = service.read(deps, operation_id, wait=0.0 if given.index else max(given.wait, 0.0))
    return Answer(wire.operation(found), index=index)


def cancel(_call: Call, operation_id: str) -> Answer:
    return Answer(wire.operation(service.cancel(wiring.deps(), operation_id)))


def resume(_call: Call, operation_id: str) -> Answer:
    return Answer(wire.operation(service.resume(wiring.deps(), operation_id)))
