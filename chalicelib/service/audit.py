"""Compare what a provider has with what the records and open operations name. An audit changes nothing.

It is the last line of defence behind every protocol (docs/protocols.md, section 3). Both sides are read whole, in
pages, by a function of its own that has fifteen minutes (docs/decisions/009). A request only starts it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from chalicelib import log
from chalicelib.domain.audit import WRONG, Entry, Finding, Inventory, StorageKind, Verdict
from chalicelib.domain.claim import fit_together
from chalicelib.domain.deadlines import AUDIT_TIMEOUT
from chalicelib.domain.external import Page
from chalicelib.domain.plugin import Plugin
from chalicelib.domain.storage import external_id_of
from chalicelib.domain.volume import Volume
from chalicelib.errors import NotFound, PluginInDoubt, PluginUnreachable, Refused, StoreUnavailable, VolumesError
from chalicelib.service import blocking
from chalicelib.service.claims import claims_on
from chalicelib.service.deps import Deps
from chalicelib.store.audits import AuditStatus, AuditStore, Report

PER_PAGE: Final = 500
PAGE_TRIES: Final = 4
NAMED: Final = 5
"""Claims that a finding names."""
LONGEST_POLL: Final = 1.0
_LISTS: Final = {StorageKind.VOLUME: "LIST_VOLUMES", StorageKind.SNAPSHOT: "LIST_SNAPSHOTS"}


@dataclass(frozen=True, slots=True)
class ReportPage:
    """A report with one part of its findings. `next_token` is empty after the last part."""

    report: Report
    findings: Sequence[Finding] = ()
    next_token: str = ""


def start(deps: Deps, plugin_id: str) -> Report:
    """Start an audit of the plugin, or join the one that runs. Raises Refused when the plugin cannot be audited."""
    _auditable(deps, plugin_id)
    audits, now = AuditStore(deps.dynamo), deps.clock.now()
    last = audits.last(plugin_id)
    if last is not None and last.status is AuditStatus.RUNNING and now < last.started + AUDIT_TIMEOUT:
        return last
    report = audits.write(Report(deps.clock.new_id(), plugin_id, AuditStatus.RUNNING, now), now=now)
    try:
        deps.plugin_queries.start_audit(plugin_id, report.run)
    except VolumesError as exc:
        # No function runs this audit, so it must not keep others from starting one.
        audits.write(replace(report, status=AuditStatus.FAILED, error=exc.text, ended=now), now=now)
        raise
    return report


def read(deps: Deps, plugin_id: str, *, wait: float = 0.0, next_token: str = "") -> ReportPage:
    """Return the last report and a part of its findings, after waiting at most `wait` seconds for the run to end.

    Raises NotFound when the plugin was never audited, and for a token of a report that a newer one has replaced.
    """
    audits = AuditStore(deps.dynamo)
    report = audits.last(plugin_id)
    if report is None:
        raise NotFound(f"plugin {plugin_id} was never audited: PUT /v1/audit/{plugin_id} starts an audit")
    if wait > 0 and report.status is AuditStatus.RUNNING:
        with blocking.reserve_wait(deps, min(wait, deps.wait_seconds)) as seconds:
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
    """Audit one plugin. Write the report, a log line for each fault and one for the whole run."""
    audits, started = AuditStore(deps.dynamo), deps.clock.now()
    report = Report(run_id, plugin_id, AuditStatus.RUNNING, started)
    try:
        plugin = _auditable(deps, plugin_id)
        counts, findings = _confirm(deps, plugin)
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
    log.line("audit", plugin_id=plugin_id, run=run_id, outcome=AuditStatus.DONE.value, **_fields(counts))
    done = replace(report, status=AuditStatus.DONE, ended=now, counts=counts)
    return audits.write(done, findings, now=now)


def run_all(deps: Deps) -> list[Report]:
    """Audit every plugin that lists its volumes and whose controllers are healthy."""
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


def _confirm(deps: Deps, plugin: Plugin) -> tuple[dict[str, int], list[Finding]]:
    """Compare both sides, and once more if something is wrong. Return the counts and the findings.

    The lists change while they are read. A volume that is created or deleted between two reads seems wrong in one
    comparison. In the next it is right, or wrong in another way. Only what is wrong in both is reported.
    """
    counts, findings = _compare(deps, plugin)
    if any(f.verdict in WRONG for f in findings):
        seen = {f.key for f in findings}
        counts, again = _compare(deps, plugin)
        findings = [f for f in again if f.verdict not in WRONG or f.key in seen]
        doubtful = Counter(_name(f) for f in again if f.verdict in WRONG and f.key not in seen)
        counts = {name: number - doubtful[name] for name, number in counts.items()}
    return counts, findings


def _compare(deps: Deps, plugin: Plugin) -> tuple[dict[str, int], list[Finding]]:
    """Compare both sides once. Return the counts, and the findings that are not `registered`."""
    entries = [e for what, needed in _LISTS.items() if plugin.can(needed) for e in _entries(deps, plugin.id, what)]
    # The provider's lists were read first: what they have is in the records, or held, by the time these are read.
    inventory, several = Inventory(), dict[str, list[Volume]]()
    for page in deps.volumes.of_plugin(plugin.id):
        inventory.add_volumes(page)
        for volume in page:
            if volume.exists and volume.shared:
                several.setdefault(external_id_of(volume), []).append(volume)
    for operation in deps.operations.newest():
        if operation.plugin_id == plugin.id:
            inventory.add_operation(operation)
    now = deps.clock.now()
    findings = [inventory.judge(entry, now) for entry in entries]
    findings += inventory.missing({e.external_id for e in entries if e.what is StorageKind.VOLUME})
    findings += [
        clash for external_id in sorted(several) for clash in _clashes(deps, external_id, several[external_id])
    ]
    counts = Counter(_name(f) for f in findings)
    return dict(counts), [f for f in findings if f.verdict is not Verdict.REGISTERED]


def _clashes(deps: Deps, external_id: str, volumes: Sequence[Volume]) -> Iterator[Finding]:
    """Yield a finding if the claims of the volumes, which name one storage, do not fit together."""
    claims = [claim for volume in volumes for claim in claims_on(deps, volume)]
    if fit_together(claims):
        return
    named = ", ".join(f"{c.namespace}/{c.volume_id} on {c.node_id} to {c.mode}" for c in claims[:NAMED])
    first = volumes[0]
    yield Finding(
        StorageKind.VOLUME, Verdict.CLASH, external_id, first.namespace, first.id, detail=f"claimed as {named}"
    )


def _name(finding: Finding) -> str:
    return f"{finding.what} {finding.verdict}"


def _fields(counts: dict[str, int]) -> dict[str, int]:
    return {name.replace(" ", "_"): number for name, number in counts.items()}


def _entries(deps: Deps, plugin_id: str, what: StorageKind) -> Iterator[Entry]:
    """Yield the provider's whole list, page by page."""
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


def _page(deps: Deps, plugin_id: str, what: StorageKind, token: str) -> Page[Entry]:
    """Return one page. Ask again, with growing delays, while the plugin or the worker does not answer."""
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
    entries = [Entry(StorageKind.VOLUME, v.external_id, words=tuple((v.context or {}).values())) for v in page.entries]
    return Page(entries, page.next_token)


def _snapshots(deps: Deps, plugin_id: str, token: str) -> Page[Entry]:
    page = deps.plugin_queries.list_snapshots(plugin_id, per_page=PER_PAGE, next_token=token)
    return Page([Entry(StorageKind.SNAPSHOT, s.id, source=s.source) for s in page.entries], page.next_token)


_PAGES: Final = {StorageKind.VOLUME: _volumes, StorageKind.SNAPSHOT: _snapshots}
