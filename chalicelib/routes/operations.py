"""/v1/operations and /v1/operation/: what the control plane is doing, and what became of it."""

from chalicelib import wiring
from chalicelib.routes.endpoint import Answer, Call, allow, method_not_allowed, resource_not_found
from chalicelib.routes.options import options
from chalicelib.service import operations as service
from chalicelib.wire import operations as wire


def collection(call: Call) -> Answer:
    """GET /v1/operations, the newest first; `namespace` is any unless given."""
    allow(call, "GET")
    given = options(call)
    query = service.Query(
        namespace=call.parameter("namespace") or "*",
        status=call.parameter("status"),
        volume_id=call.parameter("volume_id"),
        plugin_id=call.parameter("plugin_id"),
        per_page=max(given.per_page, 0),
        next_token=given.next_token,
    )
    listed = service.list_operations(wiring.deps(), query)
    return Answer(wire.page([wire.operation(o) for o in listed.operations], listed.next_token))


def item(call: Call) -> Answer:
    """GET and DELETE /v1/operation/:id, PUT /v1/operation/:id/resume; GET waits for the outcome as `wait` says."""
    operation_id, slash, action = call.rest.partition("/")
    if not operation_id or (slash and action != "resume"):
        raise resource_not_found()
    deps = wiring.deps()
    if slash:
        allow(call, "PUT", "POST")
        return Answer(wire.operation(service.resume(deps, operation_id)))
    if call.method == "GET":
        return Answer(wire.operation(service.read(deps, operation_id, wait=max(options(call).wait, 0.0))))
    if call.method == "DELETE":
        return Answer(wire.operation(service.cancel(deps, operation_id)))
    raise method_not_allowed()
