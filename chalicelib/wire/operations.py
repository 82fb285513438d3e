"""Operations in JSON: our own resource, in the style of Nomad's."""

from typing import Any

from chalicelib.domain.operation import Operation


def operation(found: Operation) -> dict[str, Any]:
    """Return one operation, without definition and secrets. Times are in nanoseconds since the epoch, 0 for none."""
    return {
        "Attempt": found.attempt,
        "CreateTime": _ns(found.create_time),
        "Error": found.error,
        "ExternalID": found.external_id or str(found.result.get("external_id") or ""),
        "ID": found.id,
        "Kind": found.kind.value,
        "LastError": found.last_error,
        "LeaseUntil": _ns(found.lease_until),
        "ModifyTime": _ns(found.update_time),
        "Namespace": found.namespace,
        "NotBefore": _ns(found.not_before),
        "PluginID": found.plugin_id,
        "Result": _result(found),
        "Status": found.status.value,
        "Step": found.step,
        "StorageName": found.storage_name,
        "Tries": found.tries,
        "VolumeID": found.volume_id,
    }


def page(found: list[dict[str, Any]], next_token: str) -> dict[str, Any]:
    return {"NextToken": next_token, "Operations": found}


def _result(found: Operation) -> dict[str, Any] | None:
    """Return the index at which the change can be read, and the ID of a snapshot, or None without a result."""
    if not found.result:
        return None
    return {"Index": int(found.result.get("index") or 0), "SnapshotID": str(found.result.get("id") or "")}


def _ns(seconds: float) -> int:
    return int(seconds * 1000) * 1_000_000
