"""/v1/operations and /v1/operation/: what the control plane is doing, and what became of it."""

from chalicelib import wiring
from chalicelib.routes.endpoint import Answer, Call, allow, method_not_allowed, resource_not_found
from chalicelib.routes.options import Options, options
from chalicelib.service import blocking
from chalicelib.service import operations as service
from chalicelib.service.deps import Deps
from chalicelib.wire import operations as wire


def collection(call: Call) -> Answer:
    """GET /v1/operations, the newest first; `namespace` is any unless given."""
    allow(call, "GET")
    given = options(call)
    query = service.OperationQuery(
        namespace=call.parameter("namespace") or "*",
        status=call.parameter("status"),
        volume_id=call.parameter("volume_id"),
        plugin_id=call.parameter("plugin_id"),
        per_page=max(given.per_page, 0),
        next_token=given.next_token,
    )
    deps = wiring.deps()
    _wait(deps, given)
    listed = service.list_operations(deps, query)
    return Answer(wire.page([wire.operation(o) for o in listed.operations], listed.next_token), index=listed.index)


def item(call: Call) -> Answer:
    """GET and DELETE /v1/operation/:id, PUT /v1/operation/:id/resume.

    GET with `index` blocks until any operation changed, as its list does; without one `wait` waits for the outcome.
    """
    operation_id, slash, action = call.rest.partition("/")
    if not operation_id or (slash and action != "resume"):
        raise resource_not_found()
    deps = wiring.deps()
    if slash:
        allow(call, "PUT", "POST")
        return Answer(wire.operation(service.resume(deps, operation_id)))
    if call.method == "GET":
        return _read(call, deps, operation_id)
    if call.method == "DELETE":
        return Answer(wire.operation(service.cancel(deps, operation_id)))
    raise method_not_allowed()


def _read(call: Call, deps: Deps, operation_id: str) -> Answer:
    given = options(call)
    _wait(deps, given)
    index = deps.operations.changes()
    found = service.read(deps, operation_id, wait=0.0 if given.index else max(given.wait, 0.0))
    return Answer(wire.operation(found), index=index)


def _wait(deps: Deps, given: Options) -> None:
    def current() -> int:
        return deps.operations.changes(consistent=False)

    blocking.until_changed(deps, index=given.index, wait=given.wait, current=current)
