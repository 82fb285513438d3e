"""What terraform-provider-nomad does with an answer, measured against a real Nomad with Terraform 1.11.4."""

from typing import Any, Final

STOPS_RETRIES: Final = (
    "already exist",
    "requested capacity",
    "LimitBytes cannot be less than",
    "cannot be updated",
    "not compatible with existing",
    "can not update mount options while volume is in use",
    "validation:",
    "missing volume definition",
    "plugin has no controller",
    "does not support creating volumes",
)
"""A create or register whose error holds none of these is repeated for nine minutes."""

REPLACES: Final = ("ID", "Namespace", "PluginID")
"""Without one of these keys in a read the next plan destroys the volume and makes a new one."""
UPDATES: Final = ("Name", "RequestedCapabilities")
"""Without one of these the next plan changes the volume in place, for ever."""
MAY_NOT_CHANGE: Final = (
    "Name", "RequestedCapabilities", "Context", "Topologies", "ExternalID", "Provider", "ControllerRequired",
)  # fmt: skip
"""During an update these may not differ from the state: else `Provider produced inconsistent result after apply`."""


def definition(volume_id: str = "data", **fields: Any) -> dict[str, Any]:
    """A body as the Go client encodes it for the provider: every field, as zero or null where nothing was given."""
    volume: dict[str, Any] = {
        "ID": volume_id,
        "Name": volume_id,
        "ExternalID": "",
        "Namespace": "",
        "RequestedTopologies": None,
        "Topologies": None,
        "AccessMode": "",
        "AttachmentMode": "",
        "MountOptions": None,
        "Secrets": None,
        "Parameters": None,
        "Context": None,
        "Capacity": 0,
        "RequestedCapacityMin": 0,
        "RequestedCapacityMax": 0,
        "RequestedCapabilities": [{"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}],
        "CloneID": "",
        "SnapshotID": "",
        "ReadAllocs": None,
        "WriteAllocs": None,
        "Allocations": None,
        "Schedulable": False,
        "PluginID": "directory",
        "Provider": "",
        "ProviderVersion": "",
        "ControllerRequired": False,
        "ControllersHealthy": 0,
        "ControllersExpected": 0,
        "NodesHealthy": 0,
        "NodesExpected": 0,
        "ResourceExhausted": "0001-01-01T00:00:00Z",
        "CreateIndex": 0,
        "ModifyIndex": 0,
        "CreateTime": 0,
        "ModifyTime": 0,
    } | fields
    return {"Volumes": [volume], "PolicyOverride": False, "Region": "", "Namespace": "", "SecretID": ""}


def gives_up_at(text: str) -> bool:
    """Whether an error ends the retries of a create or register."""
    return any(marker in text for marker in STOPS_RETRIES)


def takes_for_gone(error: str) -> bool:
    """Whether the error of a read makes the provider forget the volume."""
    return "404" in error
