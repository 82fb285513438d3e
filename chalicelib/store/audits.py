"""Reports of audits in the meta table: the last one of each plugin, and its findings in parts.

A part has at most `PART` findings, so an item stays far below DynamoDB's 400 KB. The keys of parts name the run, so
two runs never mix.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from chalicelib.domain.audit import Finding, StorageKind, Verdict
from chalicelib.store import tables
from chalicelib.store.dynamo import ConditionFailed, Dynamo
from chalicelib.store.tables import AuditRow

PART: Final = 200
KEEP_SECONDS: Final = 30 * 24 * 3600
_LAST: Final = "last"


class AuditStatus(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Report:
    """One run. Times are in seconds since the epoch. The keys of `counts` are `<what> <verdict>`."""

    run: str
    plugin_id: str
    status: AuditStatus
    started: float
    ended: float = 0.0
    error: str = ""
    parts: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)


class AuditStore:
    """The reports of one stage."""

    def __init__(self, store: Dynamo) -> None:
        self._dynamo = store

    def last(self, plugin_id: str) -> Report | None:
        """Return the newest run of the plugin in any status, or None."""
        row = self._dynamo.get(AuditRow, tables.audits_pk(plugin_id), _LAST)
        if row is None:
            return None
        body: dict[str, Any] = json.loads(row.body)
        return Report(**{**body, "status": AuditStatus(body["status"])})

    def write(self, report: Report, findings: Sequence[Finding] = (), *, now: float) -> Report:
        """Write the report and its findings, unless a newer run has written its own, and return the report.

        The parts are written first, so a reader that sees the report finds them.
        """
        parts = [findings[n : n + PART] for n in range(0, len(findings), PART)]
        for number, part in enumerate(parts):
            body = json.dumps([asdict(f) for f in part], separators=(",", ":"), ensure_ascii=False)
            self._dynamo.put(self._row(report.plugin_id, _part(report.run, number), body, now))
        written = replace(report, parts=len(parts))
        row = self._row(report.plugin_id, _LAST, json.dumps(asdict(written)), now, started=report.started)
        # After a newer run the parts of this one are never read, and expire.
        with contextlib.suppress(ConditionFailed):
            self._dynamo.put(row, AuditRow.pk.does_not_exist() | (AuditRow.started <= report.started))
        return written

    def part(self, report: Report, number: int) -> list[Finding]:
        """Return the findings of one part. A number beyond the last part has none."""
        row = self._dynamo.get(AuditRow, tables.audits_pk(report.plugin_id), _part(report.run, number))
        return [] if row is None else [_finding(body) for body in json.loads(row.body)]

    def _row(self, plugin_id: str, sk: str, body: str, now: float, started: float = 0.0) -> AuditRow:
        expires_at = int(now) + KEEP_SECONDS
        return AuditRow(tables.audits_pk(plugin_id), sk, body=body, started=started, expires_at=expires_at)


def _part(run: str, number: int) -> str:
    return f"{run}#{number:06d}"


def _finding(body: Mapping[str, Any]) -> Finding:
    return Finding(**{**body, "what": StorageKind(body["what"]), "verdict": Verdict(body["verdict"])})
