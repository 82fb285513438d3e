"""Snapshots and external volumes in Nomad's JSON. A provider's answers have index 0 and no known leader."""

from collections.abc import Mapping, Sequence
from typing import Any

from chalicelib.domain.external import ExternalVolume, Snapshot


def snapshot(item: Snapshot, plugin_id: str = "") -> dict[str, Any]:
    """Return one snapshot. In a list it names its plugin, in the answer of a create it does not."""
    return {
        "CreateTime": item.create_time,
        "ExternalSourceVolumeID": item.source,
        "ID": item.id,
        "IsReady": item.ready,
        "Name": "",
        "Parameters": None,
        "PluginID": plugin_id,
        "Secrets": None,
        "SizeBytes": item.size,
        "SourceVolumeID": "",
    }


def external(item: ExternalVolume) -> dict[str, Any]:
    """Return one volume of the provider."""
    return {
        "CapacityBytes": item.capacity,
        "CloneID": item.clone_id,
        "ExternalID": item.external_id,
        "IsAbnormal": item.abnormal,
        "PublishedExternalNodeIDs": list(item.published) or None,
        "SnapshotID": item.snapshot_id,
        "Status": item.status,
        "VolumeContext": item.context or None,
    }


def page(name: str, items: Sequence[Mapping[str, Any]] | None, next_token: str = "") -> dict[str, Any]:
    return {"Index": 0, "KnownLeader": False, "LastContact": 0, "NextToken": next_token, name: items}
