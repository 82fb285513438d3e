"""Between the domain's words and the messages of the CSI spec."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from chalicelib.csi.spec import csi_pb2 as csi
from chalicelib.domain.volume import Capability, Definition, MountOptions, TopologyRequest

_MODE: Final = csi.VolumeCapability.AccessMode
ACCESS_MODES: Final[Mapping[str, "csi.VolumeCapability.AccessMode.Mode"]] = {
    "single-node-reader-only": _MODE.SINGLE_NODE_READER_ONLY,
    "single-node-writer": _MODE.SINGLE_NODE_WRITER,
    "multi-node-reader-only": _MODE.MULTI_NODE_READER_ONLY,
    "multi-node-single-writer": _MODE.MULTI_NODE_SINGLE_WRITER,
    "multi-node-multi-writer": _MODE.MULTI_NODE_MULTI_WRITER,
}


def capabilities(wanted: Sequence[Capability], mount: MountOptions | None) -> list[Any]:
    return [capability(c, mount) for c in wanted]


def capability(wanted: Capability, mount: MountOptions | None) -> Any:
    """VolumeCapability of a pair of modes; the pair was checked before (domain.volume.mode_problem)."""
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
    """CapacityRange in bytes, None when neither is wanted."""
    return csi.CapacityRange(required_bytes=minimum, limit_bytes=maximum) if minimum or maximum else None


def topology_requirement(request: TopologyRequest | None) -> Any:
    if request is None or not (request.required or request.preferred):
        return None
    return csi.TopologyRequirement(
        requisite=[csi.Topology(segments=dict(t or {})) for t in request.required or ()],
        preferred=[csi.Topology(segments=dict(t or {})) for t in request.preferred or ()],
    )


def content_source(definition: Definition) -> Any:
    """Where the new volume's content comes from; clone and snapshot are the provider's own IDs."""
    source = csi.VolumeContentSource
    if definition.snapshot_id:
        return source(snapshot=source.SnapshotSource(snapshot_id=definition.snapshot_id))
    if definition.clone_id:
        return source(volume=source.VolumeSource(volume_id=definition.clone_id))
    return None


def seconds(timestamp: Any) -> int:
    """Whole seconds since the epoch of a protobuf Timestamp."""
    return int(timestamp.seconds)
