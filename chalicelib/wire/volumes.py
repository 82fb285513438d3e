"""Write volumes in Nomad's JSON, and read them. wire/shapes.py declares the requests, wire/claims.py shows the claims.

Clients depend on this (recorded from a real Nomad): secrets are always null, and mount flags are shown as
`[REDACTED]`. The answer of a write is the request's volume with what the provider decided, not yet with its plugin's
counts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from chalicelib.domain.claim import Claim
from chalicelib.domain.plugin import Plugin
from chalicelib.domain.volume import Capability, Definition, MountOptions, Segments, TopologyRequest, Volume
from chalicelib.wire import claims as claims_wire
from chalicelib.wire.kinds import INT, Field, MapOf, Pointer, Struct
from chalicelib.wire.shapes import CSI_VOLUME

REDACTED = "[REDACTED]"
_CLAIMS = MapOf(Pointer(Struct("structs.CSIVolumeClaim", ())))
FILTER_SHAPE = Struct(
    "structs.CSIVolume",
    (
        *CSI_VOLUME.fields,
        Field("ReadClaims", _CLAIMS),
        Field("WriteClaims", _CLAIMS),
        Field("PastClaims", _CLAIMS),
        Field("CurrentReaders", INT),
        Field("CurrentWriters", INT),
    ),
)


def volume(item: Volume, plugin: Plugin | None, claims: Sequence[Claim] = ()) -> dict[str, Any]:
    """Return the answer of a read. Without `plugin` the counts are 0, as after a write."""
    body = _common(item, plugin) | {
        "Capacity": item.definition.capacity,
        "CloneID": item.definition.clone_id,
        "Context": dict(item.definition.context or {}),
        "MountOptions": _mount_options(item.definition.mount_options),
        "Parameters": dict(item.definition.parameters or {}),
        "ProviderVersion": item.definition.provider_version,
        "RequestedCapabilities": [
            {"AccessMode": c.access_mode, "AttachmentMode": c.attachment_mode} for c in item.definition.capabilities
        ],
        "RequestedCapacityMax": item.definition.capacity_max,
        "RequestedCapacityMin": item.definition.capacity_min,
        "RequestedTopologies": _topology_request(item.definition.topology_request),
        "Secrets": None,
        "SnapshotID": item.definition.snapshot_id,
    }
    return body | claims_wire.shown(claims)


def extension(shared_with: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return what a read shows beside Nomad's fields: namespaces and IDs of the other volumes of the same storage."""
    return {"Moorage": {"SharedWith": [{"ID": volume_id, "Namespace": name} for name, volume_id in shared_with]}}


def stub(item: Volume, plugin: Plugin | None) -> dict[str, Any]:
    """Return the entry of a list."""
    return _common(item, plugin) | {"CurrentReaders": item.readers, "CurrentWriters": item.writers}


def filter_datum(item: Volume, plugin: Plugin | None, held: Sequence[Claim] = ()) -> dict[str, Any]:
    """Return what a filter sees: every field of the answers, and the stored claims, but no secret and no mount flag."""
    claims = {
        "ReadClaims": {c.allocation_id: None for c in held if not c.writes},
        "WriteClaims": {c.allocation_id: None for c in held if c.writes},
        "PastClaims": {c.allocation_id: None for c in held if not c.live},
    }
    readers = {"CurrentReaders": item.readers, "CurrentWriters": item.writers}
    options = _mount_options(item.definition.mount_options) if item.definition.mount_options is not None else None
    return volume(item, plugin, held) | claims | readers | {"MountOptions": options}


def _common(item: Volume, plugin: Plugin | None) -> dict[str, Any]:
    return {
        "AccessMode": item.access_mode,
        "AttachmentMode": item.attachment_mode,
        "ControllerRequired": plugin is not None and plugin.controller_required,
        "ControllersExpected": plugin.controllers_expected if plugin else 0,
        "ControllersHealthy": plugin.controllers_healthy if plugin else 0,
        "CreateIndex": item.create_index,
        "CreateTime": item.create_time,
        "ExternalID": item.definition.external_id,
        "ID": item.id,
        "ModifyIndex": item.modify_index,
        "ModifyTime": item.modify_time,
        "Name": item.definition.name,
        "Namespace": item.namespace,
        "NodesExpected": plugin.nodes_expected if plugin else 0,
        "NodesHealthy": plugin.nodes_healthy if plugin else 0,
        "PluginID": item.plugin_id,
        "Provider": item.definition.provider,
        "ResourceExhausted": None,
        "Schedulable": plugin is not None and plugin.schedulable,
        "Topologies": [_topology(t) for t in item.definition.topologies or ()],
    }


def written(index: int, volumes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the answer of a register or create."""
    return {"Index": index, "KnownLeader": True, "LastContact": 0, "NextToken": "", "Volumes": volumes, "Warnings": ""}


def from_body(body: Mapping[str, Any], *, namespace: str) -> tuple[Volume, dict[str, str]]:
    """Return the volume of one decoded element of `Volumes`, and its secrets, which are kept apart from it."""
    item = Volume(
        namespace=body["Namespace"] or namespace,
        id=body["ID"],
        plugin_id=body["PluginID"],
        definition=Definition(
            name=body["Name"],
            external_id=body["ExternalID"],
            capabilities=tuple(
                Capability(c["AccessMode"], c["AttachmentMode"])
                for c in body["RequestedCapabilities"] or ()
                if c is not None
            ),
            mount_options=_read_mount_options(body["MountOptions"]),
            parameters=body["Parameters"] or None,
            context=body["Context"] or None,
            topologies=tuple(t["Segments"] for t in body["Topologies"] or () if t is not None) or None,
            topology_request=_read_topology_request(body["RequestedTopologies"]),
            capacity=body["Capacity"],
            capacity_min=body["RequestedCapacityMin"],
            capacity_max=body["RequestedCapacityMax"],
            clone_id=body["CloneID"],
            snapshot_id=body["SnapshotID"],
        ),
        create_time=body["CreateTime"],
        modify_time=body["ModifyTime"],
    )
    return item, dict(body["Secrets"] or {})


def secrets_header(value: str) -> dict[str, str]:
    """Return the pairs of `X-Nomad-CSI-Secrets: k=v,k2=v2`.

    What is no pair is ignored, since clients send the header everywhere.
    """
    pairs = (part.partition("=") for part in value.split(",")) if value else ()
    return {key.strip(): rest.strip() for key, found, rest in pairs if found and key.strip()}


def _mount_options(options: MountOptions | None) -> dict[str, Any]:
    if options is None:
        return {"FSType": "", "MountFlags": None}
    return {"FSType": options.fs_type, "MountFlags": [REDACTED] if options.mount_flags else None}


def _read_mount_options(body: Mapping[str, Any] | None) -> MountOptions | None:
    if body is None:
        return None
    flags = body["MountFlags"]
    return MountOptions(body["FSType"], None if flags is None else tuple(flags))


def _topology(segments: Segments | None) -> dict[str, Any]:
    return {"Segments": None if segments is None else dict(segments)}


def _topology_request(request: TopologyRequest | None) -> dict[str, Any] | None:
    if request is None:
        return None
    parts = {"Preferred": request.preferred, "Required": request.required}
    return {name: None if part is None else [{"Segments": t} for t in part] for name, part in parts.items()}


def _read_topology_request(body: Mapping[str, Any] | None) -> TopologyRequest | None:
    if body is None:
        return None
    required, preferred = (
        None if body[name] is None else tuple(None if t is None else t["Segments"] for t in body[name])
        for name in ("Required", "Preferred")
    )
    return TopologyRequest(required, preferred)
