"""A storage provider in memory, with hooks for every way to fail. tests/fakes/csi_server.py serves it by gRPC.

It follows CSI's rules for names, IDs and repeated calls. tests/fakes/test_plugins.py runs the same tests against it and
the directory plugin.
"""

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from chalicelib.csi.channel import rpc_of
from chalicelib.csi.spec import csi_pb2 as csi
from chalicelib.errors import PluginInDoubt, PluginRejected

T = TypeVar("T")
_MODE: Final = csi.VolumeCapability.AccessMode
SINGLE_NODE: Final = (
    _MODE.SINGLE_NODE_WRITER,
    _MODE.SINGLE_NODE_READER_ONLY,
    _MODE.SINGLE_NODE_SINGLE_WRITER,
    _MODE.SINGLE_NODE_MULTI_WRITER,
)


@dataclass
class Stored:
    """A volume or snapshot as the provider has it."""

    id: str
    name: str
    capacity: int = 0
    source: str = ""


Attempt = tuple[str, int]
"""The operation and the number in a call's metadata."""
Hook = Callable[[str, "FakeProvider"], None]


class Stranded(Exception):
    """Raised by a `before` hook to delay a call: its caller gets `error`, and `land` makes its effect later."""

    def __init__(self, error: BaseException) -> None:
        super().__init__("stranded")
        self.error = error


@dataclass
class FakeProvider:
    """A provider's storage, and a method for each RPC. `before` and `after` are called around the effect of each call.

    A hook that raises PluginRejected or PluginInDoubt ends the call with the gRPC status of the error's code. Any other
    exception of a hook is raised where the call was made.
    """

    volumes: dict[str, Stored] = field(default_factory=dict)
    snapshots: dict[str, Stored] = field(default_factory=dict)
    before: list[Hook] = field(default_factory=list)
    after: list[Hook] = field(default_factory=list)
    log: list[tuple[str, str, Attempt]] = field(default_factory=list)
    """RPC, subject and attempt of each call."""
    secrets: list[Mapping[str, str]] = field(default_factory=list)
    """Secrets of each call in `log`."""
    attached: set[tuple[str, str]] = field(default_factory=set)
    """Volume and node, by the provider's IDs."""
    mounted: set[tuple[str, str, str]] = field(default_factory=set)
    """Volume, Moorage's ID of the node, and path, of volumes that are staged or published."""
    stranded: list[Callable[[], Any]] = field(default_factory=list)
    context: Mapping[str, str] = field(default_factory=lambda: {"made": "yes"})
    topologies: Sequence[Mapping[str, str]] = ()
    """Of every volume that is created, as `context` is."""
    nodes: frozenset[str] | None = None
    """The nodes that volumes can be attached to; None for any."""
    stages: bool = True
    """Whether volumes are staged before they are published."""
    makes_folders: bool = False
    """Whether there is a folder at a target path while something is published there."""
    made: int = 0
    calling: str = ""
    """The node of the call that is being served. It is empty for a call to the controller."""

    def serve(self, request: Message, *, node_id: str, attempt: Attempt) -> Message:
        """Answer one call, made on the node with that ID."""
        rpc = rpc_of(request)
        method = getattr(self, snake(rpc))

        def effect() -> Message:
            answer: Message = method(request, node_id) if rpc.startswith("Node") else method(request)
            return answer

        self.calling = node_id if rpc.startswith("Node") else ""
        self.log.append((rpc, _subject(request), attempt))
        self.secrets.append(dict(getattr(request, "secrets", {})))
        for hook in list(self.before):
            try:
                hook(rpc, self)
            except Stranded as exc:
                self.stranded.append(effect)
                raise exc.error from exc
        answer = effect()
        for hook in list(self.after):
            hook(rpc, self)
        return answer

    def land(self) -> int:
        """Let delayed calls have their effect, and return how many there were."""
        landing, self.stranded = self.stranded, []
        for effect in landing:
            with contextlib.suppress(PluginRejected):  # its caller has gone
                effect()
        return len(landing)

    def create_volume(self, request: csi.CreateVolumeRequest) -> csi.CreateVolumeResponse:
        name, size = _required(request.name, "name"), request.capacity_range
        if not request.volume_capabilities:
            raise _invalid("volume_capabilities is missing")
        source = request.volume_content_source
        if source.snapshot.snapshot_id:
            _known(self.snapshots, source.snapshot.snapshot_id)
        if source.volume.volume_id:
            _known(self.volumes, source.volume.volume_id)
        share = request.parameters.get("share", "")
        # As some NFS plugins do: one share is one volume, whatever name it is created by.
        volume = self.volumes.get(share) or next((v for v in self.volumes.values() if v.name == name), None)
        if volume is None:
            volume = Stored(share or self._new_id("ext"), name, size.required_bytes or size.limit_bytes or 1024)
            self.volumes[volume.id] = volume
        elif volume.capacity < size.required_bytes or 0 < size.limit_bytes < volume.capacity:
            raise PluginRejected(f"a volume {name} exists and has {volume.capacity} bytes", code="ALREADY_EXISTS")
        return csi.CreateVolumeResponse(
            volume=csi.Volume(
                volume_id=volume.id,
                capacity_bytes=volume.capacity,
                volume_context=self.context,
                content_source=source if source.WhichOneof("type") else None,
                accessible_topology=[csi.Topology(segments=segments) for segments in self.topologies],
            )
        )

    def delete_volume(self, request: csi.DeleteVolumeRequest) -> csi.DeleteVolumeResponse:
        volume_id = _required(request.volume_id, "volume_id")
        if any(volume_id == used for used, *_ in (*self.attached, *self.mounted)):
            raise PluginRejected(f"volume {volume_id} is in use", code="FAILED_PRECONDITION")
        self.volumes.pop(volume_id, None)
        return csi.DeleteVolumeResponse()

    def controller_expand_volume(
        self, request: csi.ControllerExpandVolumeRequest
    ) -> csi.ControllerExpandVolumeResponse:
        volume_id = _required(request.volume_id, "volume_id")
        if not request.HasField("capacity_range"):
            raise _invalid("capacity_range is missing")
        volume, size = _known(self.volumes, volume_id), request.capacity_range
        if 0 < size.limit_bytes < max(volume.capacity, size.required_bytes):
            raise PluginRejected(f"the volume has {volume.capacity} bytes", code="OUT_OF_RANGE")
        volume.capacity = max(volume.capacity, size.required_bytes)
        return csi.ControllerExpandVolumeResponse(capacity_bytes=volume.capacity)

    def validate_volume_capabilities(
        self, request: csi.ValidateVolumeCapabilitiesRequest
    ) -> csi.ValidateVolumeCapabilitiesResponse:
        volume_id = _required(request.volume_id, "volume_id")
        if not request.volume_capabilities:
            raise _invalid("volume_capabilities is missing")
        _known(self.volumes, volume_id)
        confirmed = csi.ValidateVolumeCapabilitiesResponse.Confirmed(volume_capabilities=request.volume_capabilities)
        return csi.ValidateVolumeCapabilitiesResponse(confirmed=confirmed)

    def list_volumes(self, request: csi.ListVolumesRequest) -> csi.ListVolumesResponse:
        volumes, next_token = _page(list(self.volumes.values()), request.max_entries, request.starting_token)
        status, entry = csi.ListVolumesResponse.VolumeStatus, csi.ListVolumesResponse.Entry
        return csi.ListVolumesResponse(
            entries=[
                entry(
                    volume=csi.Volume(volume_id=v.id, capacity_bytes=v.capacity, volume_context=self.context),
                    status=status(published_node_ids=sorted(node for volume, node in self.attached if volume == v.id)),
                )
                for v in volumes
            ],
            next_token=next_token,
        )

    def create_snapshot(self, request: csi.CreateSnapshotRequest) -> csi.CreateSnapshotResponse:
        source, name = _required(request.source_volume_id, "source_volume_id"), _required(request.name, "name")
        snapshot = next((s for s in self.snapshots.values() if s.name == name), None)
        if snapshot is None:
            size = _known(self.volumes, source).capacity
            snapshot = Stored(self._new_id("snap"), name, size, source)
            self.snapshots[snapshot.id] = snapshot
        elif snapshot.source != source:
            raise PluginRejected(f"a snapshot {name} exists and is of another volume", code="ALREADY_EXISTS")
        return csi.CreateSnapshotResponse(snapshot=_snapshot(snapshot))

    def delete_snapshot(self, request: csi.DeleteSnapshotRequest) -> csi.DeleteSnapshotResponse:
        self.snapshots.pop(_required(request.snapshot_id, "snapshot_id"), None)
        return csi.DeleteSnapshotResponse()

    def list_snapshots(self, request: csi.ListSnapshotsRequest) -> csi.ListSnapshotsResponse:
        wanted = [
            s
            for s in self.snapshots.values()
            if request.snapshot_id in ("", s.id) and request.source_volume_id in ("", s.source)
        ]
        snapshots, next_token = _page(wanted, request.max_entries, request.starting_token)
        entry = csi.ListSnapshotsResponse.Entry
        return csi.ListSnapshotsResponse(
            entries=[entry(snapshot=_snapshot(s)) for s in snapshots], next_token=next_token
        )

    def controller_publish_volume(
        self, request: csi.ControllerPublishVolumeRequest
    ) -> csi.ControllerPublishVolumeResponse:
        volume_id, node_id = _required(request.volume_id, "volume_id"), _required(request.node_id, "node_id")
        mode = _mode(request)
        _known(self.volumes, volume_id)
        if self.nodes is not None and node_id not in self.nodes:
            raise PluginRejected(f"there is no node {node_id}", code="NOT_FOUND")
        others = {node for volume, node in self.attached if volume == volume_id} - {node_id}
        if others and mode in SINGLE_NODE:
            raise PluginRejected("attached elsewhere", code="FAILED_PRECONDITION")
        self.attached.add((volume_id, node_id))
        return csi.ControllerPublishVolumeResponse(publish_context={"device": f"/dev/{volume_id}"})

    def controller_unpublish_volume(
        self, request: csi.ControllerUnpublishVolumeRequest
    ) -> csi.ControllerUnpublishVolumeResponse:
        volume_id = _required(request.volume_id, "volume_id")
        self.attached -= {(v, n) for v, n in self.attached if v == volume_id and request.node_id in ("", n)}
        return csi.ControllerUnpublishVolumeResponse()

    def node_stage_volume(self, request: csi.NodeStageVolumeRequest, node_id: str) -> csi.NodeStageVolumeResponse:
        volume_id = _required(request.volume_id, "volume_id")
        path = _required(request.staging_target_path, "staging_target_path")
        _mode(request)
        _known(self.volumes, volume_id)
        self.mounted.add((volume_id, node_id, path))
        return csi.NodeStageVolumeResponse()

    def node_publish_volume(self, request: csi.NodePublishVolumeRequest, node_id: str) -> csi.NodePublishVolumeResponse:
        volume_id, path = _required(request.volume_id, "volume_id"), _required(request.target_path, "target_path")
        _mode(request)
        _known(self.volumes, volume_id)
        if self.stages and (volume_id, node_id, request.staging_target_path) not in self.mounted:
            raise PluginRejected(f"not staged at {request.staging_target_path}", code="FAILED_PRECONDITION")
        self.mounted.add((volume_id, node_id, path))
        if self.makes_folders:
            Path(path).mkdir(exist_ok=True)
        return csi.NodePublishVolumeResponse()

    def node_unpublish_volume(
        self, request: csi.NodeUnpublishVolumeRequest, node_id: str
    ) -> csi.NodeUnpublishVolumeResponse:
        volume_id, path = _required(request.volume_id, "volume_id"), _required(request.target_path, "target_path")
        self.mounted.discard((volume_id, node_id, path))
        if self.makes_folders and Path(path).exists():
            Path(path).rmdir()
        return csi.NodeUnpublishVolumeResponse()

    def node_unstage_volume(self, request: csi.NodeUnstageVolumeRequest, node_id: str) -> csi.NodeUnstageVolumeResponse:
        volume_id = _required(request.volume_id, "volume_id")
        path = _required(request.staging_target_path, "staging_target_path")
        self.mounted.discard((volume_id, node_id, path))
        return csi.NodeUnstageVolumeResponse()

    def nodes_with(self, volume_id: str) -> set[str]:
        """Return the nodes on which the volume is staged or published."""
        return {node_id for mounted, node_id, _ in self.mounted if mounted == volume_id}

    def _new_id(self, prefix: str) -> str:
        self.made += 1
        return f"{prefix}-{self.made}"


def once(rpc: str, error: BaseException) -> Hook:
    """Return a hook that raises `error` at the first call of `rpc` only."""
    used: list[bool] = []

    def hook(called: str, provider: FakeProvider) -> None:
        if called == rpc and not used:
            used.append(True)
            raise error

    return hook


def snake(rpc: str) -> str:
    """Return the name of the method for an RPC: "create_volume" for "CreateVolume"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", rpc).lower()


def _subject(request: Any) -> str:
    for name in ("name", "snapshot_id", "volume_id"):
        if getattr(request, name, ""):
            node_id = getattr(request, "node_id", "")
            return f"{getattr(request, name)}@{node_id}" if node_id else str(getattr(request, name))
    return ""


def _snapshot(snapshot: Stored) -> csi.Snapshot:
    return csi.Snapshot(
        snapshot_id=snapshot.id,
        source_volume_id=snapshot.source,
        size_bytes=snapshot.capacity,
        creation_time=Timestamp(seconds=1),
        ready_to_use=True,
    )


def _page(entries: Sequence[T], size: int, token: str) -> tuple[Sequence[T], str]:
    if size < 0:
        raise _invalid("max_entries is negative")
    if token and not token.isdecimal():
        raise PluginInDoubt(f"{token} is no token of this plugin", code="ABORTED")
    start = int(token or 0)
    end = start + size if size else len(entries)
    return entries[start:end], str(end) if end < len(entries) else ""


def _mode(request: Any) -> int:
    if not request.HasField("volume_capability"):
        raise _invalid("volume_capability is missing")
    return int(request.volume_capability.access_mode.mode)


def _known(stored: Mapping[str, Stored], stored_id: str) -> Stored:
    if stored_id not in stored:
        raise PluginRejected(f"there is no {stored_id}", code="NOT_FOUND")
    return stored[stored_id]


def _required(value: str, name: str) -> str:
    if not value:
        raise _invalid(f"{name} is missing")
    return value


def _invalid(text: str) -> PluginRejected:
    return PluginRejected(text, code="INVALID_ARGUMENT")
