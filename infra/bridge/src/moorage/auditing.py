"""Ask a control plane for audits, and register what an audit found.

The control plane does the work (PUT and GET /v1/audit/:plugin_id). This side waits and collects the pages. Only
`adopt` changes anything.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import aiohttp

ANSWER_SECONDS: Final = 60.0
WAIT: Final = "20s"
BUSY: Final = (429, 503)
BUSY_TRIES: Final = 5
LONGEST_PAUSE: Final = 30.0
WRONG: Final = ("orphan", "missing", "clash")
"""Verdicts that make `moorage audit` fail. The others are only shown."""


class AuditTrouble(Exception):
    """Something that the person at the terminal must know, in one line."""


@dataclass(frozen=True)
class Adoption:
    """An orphan, and the volume that it becomes."""

    plugin_id: str
    external_id: str
    namespace: str
    volume_id: str
    access_mode: str
    attachment_mode: str


class Api:
    """One control plane. Every method raises AuditTrouble."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url, self._session = url.rstrip("/"), session

    async def plugins(self) -> list[str]:
        """Return the IDs of all plugins."""
        return [str(plugin["ID"]) for plugin in await self._ask("GET", "/v1/plugins?type=csi")]

    async def audit(self, plugin_id: str, *, seconds: float) -> dict[str, Any]:
        """Audit the plugin, or join an audit that is running, and return the report with all its findings.

        Waits `seconds` at most.
        """
        path = f"/v1/audit/{quote(plugin_id, safe='')}"
        report: dict[str, Any] = await self._ask("PUT", path)
        end = asyncio.get_running_loop().time() + seconds
        while report["Status"] == "running":
            if asyncio.get_running_loop().time() > end:
                raise AuditTrouble(
                    f"the audit of {plugin_id} is not over after {seconds:.0f} s: the log of audit_volumes says why"
                )
            report = await self._ask("GET", f"{path}?wait={WAIT}")
        token = report["NextToken"]
        while token:
            page = await self._ask("GET", f"{path}?next_token={quote(token, safe='')}")
            report["Findings"] += page["Findings"]
            token = page["NextToken"]
        return report | {"NextToken": ""}

    async def adopt(self, wanted: Adoption) -> None:
        """Register a volume that the provider has, as any client would."""
        volume = {
            "ID": wanted.volume_id,
            "Name": wanted.volume_id,
            "Namespace": wanted.namespace,
            "PluginID": wanted.plugin_id,
            "ExternalID": wanted.external_id,
            "RequestedCapabilities": [{"AccessMode": wanted.access_mode, "AttachmentMode": wanted.attachment_mode}],
        }
        path = f"/v1/volume/csi/{quote(wanted.volume_id, safe='')}?namespace={quote(wanted.namespace, safe='')}"
        await self._ask("PUT", path, {"Volumes": [volume]}, {"If-None-Match": "*"})

    async def _ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Return the JSON of the answer. A busy control plane is asked again, BUSY_TRIES times in all."""
        for attempt in range(BUSY_TRIES):
            try:
                async with self._session.request(method, self._url + path, json=body, headers=headers) as answer:
                    text = await answer.text()
                    if answer.status in BUSY and attempt + 1 < BUSY_TRIES:
                        after = answer.headers.get("Retry-After", "")
                        pause = float(after) if after.isdecimal() else 2.0**attempt
                        await asyncio.sleep(min(pause, LONGEST_PAUSE))
                        continue
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                raise AuditTrouble(f"{self._url} does not answer: {str(exc) or type(exc).__name__}") from exc
            if answer.status >= 300:
                raise AuditTrouble(f"{method} {path}: {answer.status}: {text[:500].strip()}")
            try:
                return json.loads(text)
            except ValueError as exc:
                raise AuditTrouble(f"{method} {path}: the answer is no JSON: is {self._url} a Moorage?") from exc
        raise AssertionError  # pragma: no cover - the last try returns or raises


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Api]:
    """Connect to the control plane at `url` in this block."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield Api(url, session)


def wrong(reports: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of findings that are wrong: orphans, missing storage and claims that clash."""
    return sum(finding["Verdict"] in WRONG for report in reports for finding in report["Findings"])


def summary(report: Mapping[str, Any]) -> str:
    """Return one line about a report."""
    if report["Status"] != "done":
        return f"{report['PluginID']}: not audited: {report['Error']}"
    counts = ", ".join(_counted(name, number) for name, number in sorted(report["Counts"].items()) if number)
    return f"{report['PluginID']}: {counts or 'nothing there'}"


def _counted(name: str, number: int) -> str:
    what, _, verdict = name.partition(" ")
    return f"{number} {what}{'' if number == 1 else 's'} {verdict}"


def table(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table of the findings, with those that are wrong first. No lines if there are none."""
    rows = [
        (
            report["PluginID"],
            finding["What"],
            finding["Verdict"],
            finding["ExternalID"],
            f"{finding['Namespace']}/{finding['VolumeID']}" if finding["VolumeID"] else "-",
            finding["OperationID"] or "-",
            finding["Detail"] or "-",
        )
        for report in reports
        for finding in report["Findings"]
    ]
    if not rows:
        return []
    rows.sort(key=lambda row: (row[2] not in WRONG, row))
    rows.insert(0, ("PLUGIN", "WHAT", "VERDICT", "EXTERNAL ID", "VOLUME", "OPERATION", "DETAIL"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
