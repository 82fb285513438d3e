"""Conversion between the domain's types and the messages of the CSI spec."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from chalicelib.csi.spec import csi_pb2 as csi
from chalicelib.domain.external import ExternalVolume, Snapshot
from chalicelib.domain.volume import Capability, Definition, Made, MountOptions, TopologyRequest

_MODE: Final = csi.VolumeCapability.AccessMode
ACCESS_MODES: Final[Mapping[str, "csi.VolumeCapability.AccessMode.Mode"]] = {
    "single-node-reader-only": _MODE.SINGLE_NODE_READER_ONLY,
    "single-node-writer": _MODE.SINGLE_NODE_WRITER,
    "multi-node-reader-only": _MODE.MULTI_NODE_READER_ONLY,
    "multi-node-single-writer": _MODE.MULTI_NODE_SINGLE_WRITER,
    "multi-node-multi-writer": _MODE.MULTI_NODE_MULTI_WRITER,
}


def capabilities(wanted: Sequence[Capability], mount: MountOptions | None) -> list[Any]:
    """Return a VolumeCapability for each pair of modes."""
    return [capability(c, mount) for c in wanted]


def capability(wanted: Capability, mount: MountOptions | None) -> Any:
    """Return the VolumeCapability for a pair of modes, which must be valid (domain.volume.mode_problem)."""
    message = csi.VolumeCapability(access_mode=csi.VolumeCapability.AccessMode(mode=ACCESS_MODES[wanted.access_mode]))
    if wanted.attachment_mode == "block-device":
        message.block.SetInParent()
    else:
        message.mount.SetInParent()
        if mount is not None:
            message.mount.fs_type = mount.fs_type
            message.mount.mount_flags.extend(mount.mount_flags or ())
    return message


def capacity_range(minimum: int, maximum: int) -> Any:
    """Return the CapacityRange in bytes, or None when neither limit is given."""
    return csi.CapacityRange(required_bytes=minimum, limit_bytes=maximum) if minimum or maximum else None


def topology_requirement(request: TopologyRequest | None) -> Any:
    """Return the TopologyRequirement, or None when nothing is required or preferred."""
    if request is None or not (request.required or request.preferred):
        return None
    return csi.TopologyRequirement(
        requisite=[csi.Topology(segments=dict(t or {})) for t in request.required or ()],
        preferred=[csi.Topology(segments=dict(t or {})) for t in request.preferred or ()],
    )


def content_source(definition: Definition) -> Any:
    """Return the VolumeContentSource: a snapshot or a volume by its external ID, or None for an empty volume."""
    source = csi.VolumeContentSource
    if definition.snapshot_id:
        return source(snapshot=source.SnapshotSource(snapshot_id=definition.snapshot_id))
    if definition.clone_id:
        return source(volume=source.VolumeSource(volume_id=definition.clone_id))
    return None


def made(answer: "csi.Volume", asked: Definition) -> Made:
    """Return what the provider decided about a new volume.

    The answer's content source replaces the one that was asked for only when the answer has one.
    """
    return Made(
        external_id=answer.volume_id,
        capacity=int(answer.capacity_bytes),
        context=dict(answer.volume_context),
        topologies=tuple(dict(t.segments) for t in answer.accessible_topology),
        snapshot_id=answer.content_source.snapshot.snapshot_id or asked.snapshot_id,
        clone_id=answer.content_source.volume.volume_id or asked.clone_id,
    )


def external_volume(entry: "csi.ListVolumesResponse.Entry") -> ExternalVolume:
    """Return one entry of ListVolumes."""
    volume, status = entry.volume, entry.status
    return ExternalVolume(
        external_id=volume.volume_id,
        capacity=int(volume.capacity_bytes),
        context=dict(volume.volume_context),
        clone_id=volume.content_source.volume.volume_id,
        snapshot_id=volume.content_source.snapshot.snapshot_id,
        published=list(status.published_node_ids),
        abnormal=bool(status.volume_condition.abnormal),
        status=status.volume_condition.message,
    )


def snapshot(answer: "csi.Snapshot") -> Snapshot:
    """Return a snapshot. Its creation time is rounded down to seconds."""
    return Snapshot(
        id=answer.snapshot_id,
        source=answer.source_volume_id,
        size=int(answer.size_bytes),
        create_time=int(answer.creation_time.seconds),
        ready=bool(answer.ready_to_use),
    )


def unconfirmed(asked: Sequence[Capability], confirmed: "Sequence[csi.VolumeCapability]") -> str:
    """Return why ValidateVolumeCapabilities did not confirm what was asked, or an empty text if it did.

    Nomad compares each confirmed access type with every requested one, so it refuses a request for both types.
    """
    modes = {c.attachment_mode for c in asked}
    for capability in confirmed:
        kind = "block-device" if capability.WhichOneof("access_type") == "block" else "file-system"
        if modes - {kind}:
            text = f"'{kind}' access type was not requested but was validated by the controller"
            return f"volume capability validation failed: 1 error occurred:\n\t* {text}\n\n"
    return ""
