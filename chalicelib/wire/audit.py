"""Reports of audits in JSON: our own resource, in the style of Nomad's."""

from collections.abc import Mapping, Sequence
from typing import Any

from chalicelib.domain.audit import Finding


def report(found: Mapping[str, Any], findings: Sequence[Finding], next_token: str = "") -> dict[str, Any]:
    """Return one report with a part of its findings. Times are in nanoseconds since the epoch, 0 for none."""
    return {
        "Counts": dict(found["counts"]),
        "EndTime": _ns(found["ended"]),
        "Error": found["error"],
        "Findings": [_finding(f) for f in findings],
        "ID": found["run"],
        "NextToken": next_token,
        "PluginID": found["plugin_id"],
        "StartTime": _ns(found["started"]),
        "Status": found["status"],
    }


def _finding(found: Finding) -> dict[str, Any]:
    return {
        "Detail": found.detail,
        "ExternalID": found.external_id,
        "Namespace": found.namespace,
        "OperationID": found.operation_id,
        "Verdict": found.verdict.value,
        "VolumeID": found.volume_id,
        "What": found.what.value,
    }


def _ns(seconds: float) -> int:
    return int(seconds * 1000) * 1_000_000
