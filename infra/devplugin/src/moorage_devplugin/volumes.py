"""The controller service's part about volumes (CSI spec, Controller Service RPC)."""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path

import grpc
from google.protobuf.wrappers_pb2 import Int64Value

from moorage.spec import csi_pb2 as csi
from moorage_devplugin import disk
from moorage_devplugin.plugin import Plugin, is_block, page
from moorage_devplugin.records import Attachment, Snapshot, Volume
from moorage_devplugin.refusal import Refused, invalid, missing, required

BLOCK_FILE = "block"
Mode = csi.VolumeCapability.AccessMode
ONE_NODE = (
    Mode.SINGLE_NODE_WRITER,
    Mode.SINGLE_NODE_READER_ONLY,
    Mode.SINGLE_NODE_SINGLE_WRITER,
    Mode.SINGLE_NODE_MULTI_WRITER,
)


class Volumes:
    """Creates, deletes, attaches, grows, changes and lists volumes."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin, self._vault, self._holds = plugin, plugin.vault, plugin.holds
        self._profile, self._words = plugin.profile, plugin.profile.wording

    def controller_get_capabilities(
        self, _: csi.ControllerGetCapabilitiesRequest
    ) -> csi.ControllerGetCapabilitiesResponse:
        rpc = csi.ControllerServiceCapability.RPC
        return csi.ControllerGetCapabilitiesResponse(
            capabilities=[csi.ControllerServiceCapability(rpc=rpc(type=one)) for one in self._profile.controller]
        )

    def create_volume(self, request: csi.CreateVolumeRequest) -> csi.CreateVolumeResponse:
        """CSI spec, CreateVolume. Idempotent by name."""
        required(request.name, "name")
        block = is_block(request.volume_capabilities, self._words.mixed_access)
        self._check_range(request.capacity_range)
        self._check_mutable(request.mutable_parameters)
        sources = [key for key in (_source_key(request.volume_content_source),) if key]
        with self._holds.change(f"volume name {request.name}"), self._holds.read(*sources):
            existing = self._vault.volumes.by_name(request.name)
            if existing is None:
                self._check_topology(request.accessibility_requirements)
                existing = self._make(request, block)
            else:
                self._check_same(existing, request, block)
        return csi.CreateVolumeResponse(volume=self.csi_volume(existing))

    def delete_volume(self, request: csi.DeleteVolumeRequest) -> csi.DeleteVolumeResponse:
        """CSI spec, DeleteVolume. OK if it is gone, FAILED_PRECONDITION while a node uses it."""
        volume_id = required(request.volume_id, "volume_id")
        with self._holds.change(f"volume {volume_id}"):
            volume = self._vault.volumes.records.get(volume_id)
            if volume is not None:
                self._check_unused(volume)
                self._vault.drop(self._vault.volumes, volume)
        return csi.DeleteVolumeResponse()

    def controller_publish_volume(
        self, request: csi.ControllerPublishVolumeRequest
    ) -> csi.ControllerPublishVolumeResponse:
        """CSI spec, ControllerPublishVolume. Idempotent per volume and node."""
        volume_id, node_id = required(request.volume_id, "volume_id"), required(request.node_id, "node_id")
        if not request.HasField("volume_capability"):
            raise invalid("volume_capability is missing in the request")
        block = is_block([request.volume_capability], self._words.mixed_access)
        wanted = Attachment(readonly=request.readonly, mode=request.volume_capability.access_mode.mode, block=block)
        with self._holds.change(f"volume {volume_id}"):
            volume = self.require(volume_id)
            if node_id not in self._plugin.nodes:
                raise missing(f'there is no node "{node_id}"')
            existing = volume.attachments.get(node_id)
            if existing is None:
                self._check_attachable(volume, node_id, wanted)
                attachments = {**volume.attachments, node_id: wanted}
                self._vault.volumes.put(dataclasses.replace(volume, attachments=attachments))
            elif existing != wanted:
                raise Refused(
                    grpc.StatusCode.ALREADY_EXISTS,
                    f'volume "{volume_id}" is published to node "{node_id}" in another way: unpublish it first',
                )
        return csi.ControllerPublishVolumeResponse()

    def controller_unpublish_volume(
        self, request: csi.ControllerUnpublishVolumeRequest
    ) -> csi.ControllerUnpublishVolumeResponse:
        """CSI spec, ControllerUnpublishVolume. OK without such a volume or attachment. No node means all nodes."""
        volume_id = required(request.volume_id, "volume_id")
        with self._holds.change(f"volume {volume_id}"):
            volume = self._vault.volumes.get(volume_id)
            if volume is not None:
                kept = {node: one for node, one in volume.attachments.items() if request.node_id not in ("", node)}
                if kept != volume.attachments:
                    self._vault.volumes.put(dataclasses.replace(volume, attachments=kept))
        return csi.ControllerUnpublishVolumeResponse()

    def validate_volume_capabilities(
        self, request: csi.ValidateVolumeCapabilitiesRequest
    ) -> csi.ValidateVolumeCapabilitiesResponse:
        """CSI spec, ValidateVolumeCapabilities. Confirms all that is asked, or nothing and says why."""
        volume_id = required(request.volume_id, "volume_id")
        if not request.volume_capabilities:
            raise invalid("volume_capabilities is missing in the request")
        volume = self.require(volume_id)
        blocks = {is_block([one], self._words.mixed_access) for one in request.volume_capabilities}
        reason = self._mismatch(volume, blocks, request) if self._profile.strict else ""
        if reason:
            return csi.ValidateVolumeCapabilitiesResponse(message=reason)
        return csi.ValidateVolumeCapabilitiesResponse(
            confirmed=csi.ValidateVolumeCapabilitiesResponse.Confirmed(
                volume_context=request.volume_context,
                volume_capabilities=request.volume_capabilities,
                parameters=request.parameters,
                mutable_parameters=request.mutable_parameters,
            )
        )

    def list_volumes(self, request: csi.ListVolumesRequest) -> csi.ListVolumesResponse:
        """CSI spec, ListVolumes. In order of creation."""
        every = self._vault.volumes.ready()
        if self._profile.list_positions:
            return _as_hostpath_lists(every, request, self)
        shown, token = page(every, token=request.starting_token, size=request.max_entries)
        entry = csi.ListVolumesResponse.Entry
        status = csi.ListVolumesResponse.VolumeStatus
        return csi.ListVolumesResponse(
            entries=[
                entry(
                    volume=self.csi_volume(one),
                    status=status(published_node_ids=sorted(one.attachments), volume_condition=self.condition(one)),
                )
                for one in shown
            ],
            next_token=token,
        )

    def controller_get_volume(self, request: csi.ControllerGetVolumeRequest) -> csi.ControllerGetVolumeResponse:
        """CSI spec, ControllerGetVolume."""
        volume = self.require(required(request.volume_id, "volume_id"))
        status = csi.ControllerGetVolumeResponse.VolumeStatus(
            published_node_ids=sorted(volume.attachments), volume_condition=self.condition(volume)
        )
        return csi.ControllerGetVolumeResponse(volume=self.csi_volume(volume), status=status)

    def get_capacity(self, request: csi.GetCapacityRequest) -> csi.GetCapacityResponse:
        """CSI spec, GetCapacity. 0 for another topology than this node's."""
        segments = request.accessible_topology.segments
        if request.HasField("accessible_topology") and not self._is_here(segments):
            return csi.GetCapacityResponse(available_capacity=0)
        return csi.GetCapacityResponse(
            available_capacity=self._available(),
            maximum_volume_size=Int64Value(value=self._profile.largest),
            minimum_volume_size=Int64Value(value=0),
        )

    def controller_expand_volume(
        self, request: csi.ControllerExpandVolumeRequest
    ) -> csi.ControllerExpandVolumeResponse:
        """CSI spec, ControllerExpandVolume. OK with the present size if that is large enough."""
        volume_id = required(request.volume_id, "volume_id")
        if not request.HasField("capacity_range"):
            raise invalid("capacity_range is missing in the request")
        self._check_range(request.capacity_range)
        with self._holds.change(f"volume {volume_id}"):
            volume = self.require(volume_id)
            limit = request.capacity_range.limit_bytes
            if limit and volume.capacity > limit:
                raise Refused(
                    grpc.StatusCode.OUT_OF_RANGE, f"the volume has {volume.capacity} bytes, above the limit of {limit}"
                )
            size = max(volume.capacity, request.capacity_range.required_bytes)
            if size > volume.capacity:
                self._check_space(size - volume.capacity)
                if volume.block:
                    os.truncate(self._vault.data(volume) / BLOCK_FILE, size)
                self._vault.volumes.put(dataclasses.replace(volume, capacity=size))
        return csi.ControllerExpandVolumeResponse(
            capacity_bytes=size, node_expansion_required=self._profile.node_expansion
        )

    def controller_modify_volume(
        self, request: csi.ControllerModifyVolumeRequest
    ) -> csi.ControllerModifyVolumeResponse:
        """CSI spec, ControllerModifyVolume. INVALID_ARGUMENT for a parameter that volumes here do not take."""
        volume_id = required(request.volume_id, "volume_id")
        if not request.mutable_parameters:
            raise invalid("mutable_parameters is missing in the request")
        self._check_mutable(request.mutable_parameters)
        with self._holds.change(f"volume {volume_id}"):
            volume = self.require(volume_id)
            mutable = volume.mutable | dict(request.mutable_parameters)
            if mutable != volume.mutable:
                self._vault.volumes.put(dataclasses.replace(volume, mutable=mutable))
        return csi.ControllerModifyVolumeResponse()

    def require(self, volume_id: str) -> Volume:
        """Return the volume. Raises Refused (NOT_FOUND) if there is none."""
        volume = self._vault.volumes.get(volume_id)
        if volume is None:
            raise missing(self._words.no_volume.format(id=volume_id))
        return volume

    def csi_volume(self, volume: Volume, *, bare: bool = False) -> csi.Volume:
        """Return the volume as CSI has it."""
        source = None
        if volume.source_snapshot:
            source = csi.VolumeContentSource(
                snapshot=csi.VolumeContentSource.SnapshotSource(snapshot_id=volume.source_snapshot)
            )
        elif volume.source_volume:
            source = csi.VolumeContentSource(
                volume=csi.VolumeContentSource.VolumeSource(volume_id=volume.source_volume)
            )
        return csi.Volume(
            capacity_bytes=volume.capacity,
            volume_id=volume.id,
            volume_context={} if bare else volume.context,
            content_source=None if bare else source,
            accessible_topology=[] if bare else [self._plugin.topology],
        )

    def condition(self, volume: Volume) -> csi.VolumeCondition:
        """Return the volume's condition. It is abnormal when its data is missing."""
        data = self._vault.data(volume)
        if not disk.is_plain_folder(data):
            return csi.VolumeCondition(abnormal=True, message=f"the folder volumes/{volume.id} is missing")
        if volume.block and not (data / BLOCK_FILE).is_file():
            return csi.VolumeCondition(abnormal=True, message=f"the file volumes/{volume.id}/{BLOCK_FILE} is missing")
        return csi.VolumeCondition(
            abnormal=False, message="" if self._profile.list_positions else "the data is in place"
        )

    def _make(self, request: csi.CreateVolumeRequest, block: bool) -> Volume:
        source = self._source(request.volume_content_source)
        size = request.capacity_range.required_bytes
        if not size:
            default = max(self._profile.default_size, _size(source))
            limit = request.capacity_range.limit_bytes
            size = min(default, limit or default) if default else limit
        if _size(source) > size:
            raise Refused(
                grpc.StatusCode.OUT_OF_RANGE, f"the source has {_size(source)} bytes: ask for at least as many"
            )
        if source is not None and source.block != block:
            raise invalid(
                "the source has the other access type: a block device cannot become a folder, nor the reverse"
            )
        self._check_space(size)
        parameters = dict(request.parameters)
        volume = Volume(
            id=self._plugin.new_id(request.name),
            name=request.name,
            seq=self._plugin.vault.next_seq(),
            created=self._vault.now(),
            capacity=size,
            block=block,
            parameters=parameters,
            mutable=dict(request.mutable_parameters),
            context=parameters if self._profile.echo_parameters else {},
            source_snapshot=request.volume_content_source.snapshot.snapshot_id,
            source_volume=request.volume_content_source.volume.volume_id,
        )
        return self._vault.make(self._vault.volumes, volume, lambda path: self._fill(path, source, volume))

    def _fill(self, path: Path, source: Volume | Snapshot | None, volume: Volume) -> None:
        if source is not None:
            disk.copy_tree(self._vault.data(source), path)
        else:
            path.mkdir()
            path.chmod(0o755)  # independent of the umask: programs of any user reach it where it is mounted
        if volume.block:
            block = path / BLOCK_FILE
            block.touch(mode=0o600)
            os.truncate(block, volume.capacity)
        disk.sync_folder(path)

    def _source(self, content: csi.VolumeContentSource) -> Volume | Snapshot | None:
        kind = content.WhichOneof("type")
        if kind == "volume":
            return self.require(required(content.volume.volume_id, "volume_id of the source"))
        if kind == "snapshot":
            snapshot_id = required(content.snapshot.snapshot_id, "snapshot_id of the source")
            snapshot = self._vault.snapshots.get(snapshot_id)
            if snapshot is None:
                raise missing(self._words.no_snapshot.format(id=snapshot_id))
            return snapshot
        return None

    def _check_same(self, volume: Volume, request: csi.CreateVolumeRequest, block: bool) -> None:
        difference = self._difference(volume, request, block)
        if difference:
            text = self._words.other_volume.format(name=volume.name, difference=difference)
            raise Refused(grpc.StatusCode.ALREADY_EXISTS, text)

    def _difference(self, volume: Volume, request: csi.CreateVolumeRequest, block: bool) -> str:
        size, content = request.capacity_range, request.volume_content_source
        strict = self._profile.strict
        if volume.capacity < size.required_bytes or 0 < size.limit_bytes < volume.capacity:
            return "size"
        if (volume.source_snapshot, volume.source_volume) != (content.snapshot.snapshot_id, content.volume.volume_id):
            return "source"
        if strict and volume.block != block:
            return "access type"
        if strict and volume.parameters != dict(request.parameters):
            return "parameters"
        return ""

    def _check_mutable(self, parameters: Mapping[str, str]) -> None:
        unknown = sorted(set(parameters) - self._profile.mutable)
        if unknown:
            takes = ", ".join(sorted(self._profile.mutable)) or "none"
            raise invalid(f"mutable parameter {unknown[0]} is unknown: volumes here take {takes}")

    def _check_range(self, size: csi.CapacityRange) -> None:
        if size.required_bytes < 0 or size.limit_bytes < 0:
            raise invalid(self._words.negative_size)
        if 0 < size.limit_bytes < size.required_bytes:
            raise invalid(f"limit_bytes {size.limit_bytes} is below required_bytes {size.required_bytes}")
        if size.required_bytes > self._profile.largest:
            text = self._words.too_large.format(size=size.required_bytes, limit=self._profile.largest)
            raise Refused(grpc.StatusCode.OUT_OF_RANGE, text)

    def _check_space(self, size: int) -> None:
        if self._plugin.capacity and size > self._available():
            text = f"{size} bytes are wanted and {self._available()} of {self._plugin.capacity} are left"
            raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, text)

    def _available(self) -> int:
        if not self._plugin.capacity:
            space = os.statvfs(self._vault.root)
            return space.f_bavail * space.f_frsize
        return max(0, self._plugin.capacity - sum(one.capacity for one in self._vault.volumes.ready()))

    def _check_topology(self, wanted: csi.TopologyRequirement) -> None:
        if (
            self._profile.strict
            and wanted.requisite
            and not any(self._is_here(one.segments) for one in wanted.requisite)
        ):
            text = f"volumes can only be made where {self._profile.topology_key} is {self._plugin.node_id}"
            raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, text)

    def _is_here(self, segments: Mapping[str, str]) -> bool:
        return all(value == self._plugin.topology.segments.get(key) for key, value in segments.items())

    def _check_unused(self, volume: Volume) -> None:
        users = sorted(volume.attachments)
        paths = [use.name for use in self._vault.uses.ready() if use.volume == volume.id]
        if users or paths:
            by = ", ".join([*(f"node {user}" for user in users), *paths])
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION, f'volume "{volume.id}" is in use by {by}: unpublish it first'
            )

    def _check_attachable(self, volume: Volume, node_id: str, wanted: Attachment) -> None:
        others = sorted(set(volume.attachments) - {node_id})
        modes = {wanted.mode, *(one.mode for one in volume.attachments.values())}
        if others and not modes.isdisjoint(ONE_NODE):
            text = (
                f'volume "{volume.id}" is published to node {", ".join(others)} and one mode allows a single node only'
            )
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, text)
        if volume.block != wanted.block and self._profile.strict:
            raise invalid(f'volume "{volume.id}" is {"a block device" if volume.block else "mounted, no block device"}')

    def _mismatch(self, volume: Volume, blocks: set[bool], request: csi.ValidateVolumeCapabilitiesRequest) -> str:
        if blocks != {volume.block}:
            return "the volume is a block device" if volume.block else "the volume is mounted and no block device"
        if any(volume.parameters.get(key) != value for key, value in request.parameters.items()):
            return "the volume was made with other parameters"
        if dict(request.volume_context) != volume.context and request.volume_context:
            return "the volume context is not the one that CreateVolume answered"
        return ""


def _size(source: Volume | Snapshot | None) -> int:
    if source is None:
        return 0
    return source.capacity if isinstance(source, Volume) else source.size


def _source_key(content: csi.VolumeContentSource) -> str:
    kind = content.WhichOneof("type")
    if kind == "volume":
        return f"volume {content.volume.volume_id}"
    return f"snapshot {content.snapshot.snapshot_id}" if kind == "snapshot" else ""


def _as_hostpath_lists(
    every: list[Volume], request: csi.ListVolumesRequest, volumes: Volumes
) -> csi.ListVolumesResponse:
    """Return one page without a next token. Tokens are positions from 1 (as recorded of csi-driver-host-path 1.17)."""
    token = request.starting_token
    if token and not re.fullmatch(r"[0-9]{1,9}", token):
        raise Refused(grpc.StatusCode.ABORTED, "The type of startingToken should be integer")
    start = int(token) if token else 1
    end = request.max_entries or len(every)
    entry, status = csi.ListVolumesResponse.Entry, csi.ListVolumesResponse.VolumeStatus
    return csi.ListVolumesResponse(
        entries=[
            entry(
                volume=volumes.csi_volume(one, bare=True),
                status=status(
                    published_node_ids=["".join(sorted(one.attachments)[:1])], volume_condition=volumes.condition(one)
                ),
            )
            for one in every[max(0, start - 1) : end]
        ]
    )
