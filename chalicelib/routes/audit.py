"""/v1/audit/:plugin_id: audits, which compare what a provider has with what is registered."""

from dataclasses import asdict

from chalicelib import wiring
from chalicelib.routes.call import Answer, Call
from chalicelib.routes.options import Options
from chalicelib.service import audit as service
from chalicelib.wire import audit as wire


def read(_call: Call, given: Options, plugin_id: str) -> Answer:
    """Return a page of the last report. An audit that still runs is waited for, as long as `wait` says."""
    page = service.read(wiring.deps(), plugin_id, wait=max(given.wait, 0.0), next_token=given.next_token)
    return Answer(wire.report(asdict(page.report), page.findings, page.next_token))


def start(_call: Call, plugin_id: str) -> Answer:
    """Start an audit, and answer 202 with its report."""
    return Answer(wire.report(asdict(service.start(wiring.deps(), plugin_id)), ()), status=202)
