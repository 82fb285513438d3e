"""The audit: what a provider has against what the records and open operations name. It changes nothing.

It is the last line of defence behind every protocol (protocols, operations 11). Both lists are read whole, in pages, by
a function that has minutes for it (docs/decisions/040), so that a request never waits for it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from chalicelib import log
from chalicelib.domain.audit import WRONG, Entry, Finding, Known, Verdict, What
from chalicelib.domain.deadlines import AUDIT_TIMEOUT
from chalicelib.domain.external import Page
from chalicelib.domain.plugin import Plugin
from chalicelib.errors import NotFound, PluginInDoubt, PluginUnreachable, Refused, StoreUnavailable, VolumesError
from chalicelib.service import blocking
from chalicelib.service.deps import Deps
from chalicelib.store.audits import AuditStatus, AuditStore, Report

PER_PAGE: Final = 500
PAGE_TRIES: Final = 4
LONGEST_POLL: Final = 1.0
_LISTS: Final = {What.VOLUME: "LIST_VOLUMES", What.SNAPSHOT: "LIST_SNAPSHOTS"}


@dataclass(frozen=True, slots=True)
class ReportPage:
    """A report with one part of its findings; `next_token` is empty after the last."""

    report: Report
    findings: Sequence[Finding] = ()
    next_token: str = ""


def start(deps: Deps, plugin_id: str) -> Report:
    """Have the plugin audited; joins a run that is under way. Raises Refused when the plugin cannot be audited."""
    _auditable(deps, plugin_id)
    audits, now = AuditStore(deps.dynamo), deps.clock.now()
    last = audits.last(plugin_id)
    if last is not None and last.status is AuditStatus.RUNNING and now < last.started + AUDIT_TIMEOUT:
        return last
    report = audits.write(Report(deps.clock.new_id(), plugin_id, AuditStatus.RUNNING, now), now=now)
    try:
        deps.plugin_queries.start_audit(plugin_id, report.run)
    except VolumesError as exc:
        # Nobody works on it: it must not keep others from starting one.
        audits.write(replace(report, status=AuditStatus.FAILED, error=exc.text, ended=now), now=now)
        raise
    return report


def read(deps: Deps, plugin_id: str, *, wait: float = 0.0, next_token: str = "") -> ReportPage:
    """The last report, and a part of its findings; with `wait`, as it is when the run is over or the seconds are.

    Raises NotFound when the plugin was never audited, and for a token of a report that is not the last any more.
    """
    audits = AuditStore(deps.dynamo)
    report = audits.last(plugin_id)
    if report is None:
        raise NotFound(f"plugin {plugin_id} was never audited: PUT /v1/audit/{plugin_id} starts an audit")
    if wait > 0 and report.status is AuditStatus.RUNNING:
        with blocking.placed(deps, min(wait, deps.wait_seconds)) as seconds:
            report = _ended(deps, audits, report, seconds)
    run, _, number = next_token.partition(".")
    if next_token and (run != report.run or not number.isdecimal()):
        raise NotFound("the report was replaced by a newer one meanwhile: read it from its beginning")
    part = int(number or 0)
    following = f"{report.run}.{part + 1}" if part + 1 < report.parts else ""
    return ReportPage(report, audits.part(report, part) if part < report.parts else (), following)


def _ended(deps: Deps, audits: AuditStore, report: Report, seconds: float) -> Report:
    end, pause = deps.clock.monotonic() + seconds, 0.05
    while report.status is AuditStatus.RUNNING and deps.clock.monotonic() + pause <= end:
        deps.clock.sleep(pause)
        pause = min(pause * 1.5, LONGEST_POLL)
        report = audits.last(report.plugin_id) or report
    return report


def run(deps: Deps, plugin_id: str, run_id: str) -> Report:
    """Audit one plugin and write the report, a log line for each thing that is wrong, and one that sums up."""
    audits, started = AuditStore(deps.dynamo), deps.clock.now()
    report = Report(run_id, plugin_id, AuditStatus.RUNNING, started)
    try:
        plugin = _auditable(deps, plugin_id)
        counts, findings = _confirmed(deps, plugin)
    except VolumesError as exc:
        now = deps.clock.now()
        log.line("audit", plugin_id=plugin_id, run=run_id, outcome=AuditStatus.FAILED.value, error=exc.text)
        return audits.write(replace(report, status=AuditStatus.FAILED, error=exc.text, ended=now), now=now)
    now = deps.clock.now()
    for finding in findings:
        if finding.verdict in WRONG:
            log.line(
                "audit finding",
                plugin_id=plugin_id,
                what=finding.what.value,
                verdict=finding.verdict.value,
                external_id=finding.external_id,
                namespace=finding.namespace,
                volume_id=finding.volume_id,
                operation_id=finding.operation_id,
                detail=finding.detail,
            )
    log.line("audit", plugin_id=plugin_id, run=run_id, outcome=AuditStatus.DONE.value, **_named(counts))
    done = replace(report, status=AuditStatus.DONE, ended=now, counts=counts)
    return audits.write(done, findings, now=now)


def run_all(deps: Deps) -> list[Report]:
    """Audit every plugin whose controllers are healthy and that can list what it has."""
    plugins = [p.id for p in deps.plugins.all() if p.controllers_healthy and p.can("LIST_VOLUMES")]
    return [run(deps, plugin_id, deps.clock.new_id()) for plugin_id in plugins]


def _auditable(deps: Deps, plugin_id: str) -> Plugin:
    plugin = deps.plugins.get(plugin_id) if plugin_id else None
    if plugin is None:
        raise Refused("no such plugin")
    if not plugin.can("LIST_VOLUMES"):
        raise Refused(f"plugin {plugin_id} does not list its volumes: it cannot be audited")
    if not plugin.controllers_healthy:
        raise Refused(f"no healthy controllers for CSI plugin: {plugin_id}")
    return plugin


def _confirmed(deps: Deps, plugin: Plugin) -> tuple[dict[str, int], list[Finding]]:
    """Counts and findings; what seems wrong is looked at twice, since all lists change while they are read.

    A volume that is created or deleted between two lists looks wrong in one look, and is another thing in the next.
    """
    counts, findings = _look(deps, plugin)
    if any(f.verdict in WRONG for f in findings):
        seen = {f.key for f in findings}
        counts, again = _look(deps, plugin)
        findings = [f for f in again if f.verdict not in WRONG or f.key in seen]
        doubtful = Counter(_name(f) for f in again if f.verdict in WRONG and f.key not in seen)
        counts = {name: number - doubtful[name] for name, number in counts.items()}
    return counts, findings


def _look(deps: Deps, plugin: Plugin) -> tuple[dict[str, int], list[Finding]]:
    """One look at both sides; what is registered is counted only."""
    entries = [e for what, needed in _LISTS.items() if plugin.can(needed) for e in _entries(deps, plugin.id, what)]
    known = Known()
    for page in deps.volumes.of_plugin(plugin.id):
        known.learn_volumes(page)
    for operation in deps.operations.newest():
        if operation.plugin_id == plugin.id:
            known.learn_operation(operation)
    now = deps.clock.now()
    judged = [known.judge(entry, now) for entry in entries]
    judged += known.missing({e.external_id for e in entries if e.what is What.VOLUME})
    counts = Counter(_name(f) for f in judged)
    return dict(counts), [f for f in judged if f.verdict is not Verdict.REGISTERED]


def _name(finding: Finding) -> str:
    return f"{finding.what} {finding.verdict}"


def _named(counts: dict[str, int]) -> dict[str, int]:
    return {name.replace(" ", "_"): number for name, number in counts.items()}


def _entries(deps: Deps, plugin_id: str, what: What) -> Iterator[Entry]:
    """The provider's whole list, page by page; an unreachable plugin is asked again a few times."""
    token, seen = "", {""}
    while True:
        page = _page(deps, plugin_id, what, token)
        yield from page.entries
        token = page.next_token
        if not token:
            return
        if token in seen:
            raise Refused(f"plugin {plugin_id} answers the page token {token} again and again: its list has no end")
        seen.add(token)


def _page(deps: Deps, plugin_id: str, what: What, token: str) -> Page[Entry]:
    """One page; asked for again, with growing delays, when the plugin or the worker does not answer."""
    for attempt in range(PAGE_TRIES):
        try:
            return _PAGES[what](deps, plugin_id, token)
        except (PluginInDoubt, PluginUnreachable, StoreUnavailable):
            if attempt + 1 == PAGE_TRIES:
                raise
            deps.clock.sleep(2.0**attempt * (0.5 + deps.clock.jitter()))
    raise AssertionError  # pragma: no cover - the last try returns or raises


def _volumes(deps: Deps, plugin_id: str, token: str) -> Page[Entry]:
    page = deps.plugin_queries.list_volumes(plugin_id, per_page=PER_PAGE, next_token=token)
    entries = [Entry(What.VOLUME, v.external_id, words=tuple((v.context or {}).values())) for v in page.entries]
    return Page(entries, page.next_token)


def _snapshots(deps: Deps, plugin_id: str, token: str) -> Page[Entry]:
    page = deps.plugin_queries.list_snapshots(plugin_id, per_page=PER_PAGE, next_token=token)
    return Page([Entry(What.SNAPSHOT, s.id, source=s.source) for s in page.entries], page.next_token)


_PAGES: Final = {What.VOLUME: _volumes, What.SNAPSHOT: _snapshots}
