"""/v1/audit/:plugin_id: compares what a provider has with what is registered."""

from dataclasses import asdict

from chalicelib import wiring
from chalicelib.routes.endpoint import Answer, Call, method_not_allowed, resource_not_found
from chalicelib.routes.options import options
from chalicelib.service import audit as service
from chalicelib.wire import audit as wire


def item(call: Call) -> Answer:
    """PUT starts an audit (202), GET answers the last report in pages and waits for it as `wait` says."""
    plugin_id = call.rest
    if not plugin_id or "/" in plugin_id:
        raise resource_not_found()
    deps = wiring.deps()
    if call.method == "GET":
        given = options(call)
        page = service.read(deps, plugin_id, wait=max(given.wait, 0.0), next_token=given.next_token)
        return Answer(wire.report(asdict(page.report), page.findings, page.next_token))
    if call.method in ("PUT", "POST"):
        return Answer(wire.report(asdict(service.start(deps, plugin_id)), ()), status=202)
    raise method_not_allowed()
