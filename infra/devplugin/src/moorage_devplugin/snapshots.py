"""The controller service's part about snapshots (CSI spec, Controller Service RPC)."""

import re
from collections.abc import Sequence

import grpc

from moorage.spec import csi_pb2 as csi
from moorage_devplugin import disk
from moorage_devplugin.plugin import Plugin, page, timestamp
from moorage_devplugin.records import Snapshot, Volume
from moorage_devplugin.refusal import Refused, invalid, missing, required


class Snapshots:
    """Takes, deletes and lists snapshots. They are whole copies, so that the volume may be deleted."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin, self._vault, self._holds = plugin, plugin.vault, plugin.holds
        self._profile, self._words = plugin.profile, plugin.profile.wording

    def create_snapshot(self, request: csi.CreateSnapshotRequest) -> csi.CreateSnapshotResponse:
        """CSI spec, CreateSnapshot. Idempotent by name. The snapshot is ready when it answers."""
        volume_id = required(request.source_volume_id, "source_volume_id")
        required(request.name, "name")
        with self._holds.change(f"snapshot name {request.name}"), self._holds.read(f"volume {volume_id}"):
            snapshot = self._vault.snapshots.by_name(request.name)
            if snapshot is None:
                snapshot = self.take(request.name, self._source(volume_id))
            elif snapshot.volume != volume_id:
                raise Refused(grpc.StatusCode.ALREADY_EXISTS, self._words.other_snapshot.format(name=request.name))
        return csi.CreateSnapshotResponse(snapshot=csi_snapshot(snapshot))

    def delete_snapshot(self, request: csi.DeleteSnapshotRequest) -> csi.DeleteSnapshotResponse:
        """CSI spec, DeleteSnapshot. OK if it is gone. A snapshot of a group is deleted with the group only."""
        snapshot_id = required(request.snapshot_id, "snapshot_id")
        with self._holds.change(f"snapshot {snapshot_id}"):
            snapshot = self._vault.snapshots.records.get(snapshot_id)
            if snapshot is not None and snapshot.group and self._vault.groups.get(snapshot.group) is not None:
                text = f'snapshot "{snapshot_id}" belongs to group "{snapshot.group}": delete the group'
                raise invalid(text)
            if snapshot is not None:
                self._vault.drop(self._vault.snapshots, snapshot)
        return csi.DeleteSnapshotResponse()

    def list_snapshots(self, request: csi.ListSnapshotsRequest) -> csi.ListSnapshotsResponse:
        """CSI spec, ListSnapshots. In order of creation, filtered by volume or snapshot. None for an unknown one."""
        found = [
            one
            for one in self._vault.snapshots.ready()
            if request.source_volume_id in ("", one.volume) and request.snapshot_id in ("", one.id)
        ]
        if self._profile.list_positions:
            shown, token = _as_hostpath_pages(found, token=request.starting_token, size=request.max_entries)
        else:
            shown, token = page(found, token=request.starting_token, size=request.max_entries)
        entry = csi.ListSnapshotsResponse.Entry
        return csi.ListSnapshotsResponse(entries=[entry(snapshot=csi_snapshot(one)) for one in shown], next_token=token)

    def get_snapshot(self, request: csi.GetSnapshotRequest) -> csi.GetSnapshotResponse:
        """CSI spec, GetSnapshot."""
        snapshot_id = required(request.snapshot_id, "snapshot_id")
        snapshot = self._vault.snapshots.get(snapshot_id)
        if snapshot is None:
            raise missing(self._words.no_snapshot.format(id=snapshot_id))
        return csi.GetSnapshotResponse(snapshot=csi_snapshot(snapshot))

    def take(self, name: str, volume: Volume, *, group: str = "") -> Snapshot:
        """Copy the data of `volume`, which the caller must hold, and return the snapshot."""
        snapshot = Snapshot(
            id=self._plugin.new_id(name),
            name=name,
            seq=self._vault.next_seq(),
            created=self._vault.now(),
            volume=volume.id,
            size=volume.capacity,
            block=volume.block,
            group=group,
        )
        data = self._vault.data(volume)
        return self._vault.make(self._vault.snapshots, snapshot, lambda path: disk.copy_tree(data, path))

    def _source(self, volume_id: str) -> Volume:
        volume = self._vault.volumes.get(volume_id)
        if volume is None:
            raise missing(self._words.no_volume.format(id=volume_id))
        return volume


def csi_snapshot(snapshot: Snapshot) -> csi.Snapshot:
    """Return the snapshot as CSI has it."""
    return csi.Snapshot(
        size_bytes=snapshot.size,
        snapshot_id=snapshot.id,
        source_volume_id=snapshot.volume,
        creation_time=timestamp(snapshot.created),
        ready_to_use=True,
        group_snapshot_id=snapshot.group,
    )


def _as_hostpath_pages(found: Sequence[Snapshot], *, token: str, size: int) -> tuple[Sequence[Snapshot], str]:
    """Return a page whose tokens are positions from 0 (as recorded of csi-driver-host-path 1.17, with its texts)."""
    if size < 0:
        raise invalid("max_entries cannot be negative")
    if token and not re.fullmatch(r"[0-9]{1,9}", token):
        raise Refused(grpc.StatusCode.ABORTED, "startingToken=0 !< int32=4294967295")
    start = int(token or 0)
    if start > len(found):
        raise Refused(grpc.StatusCode.ABORTED, f"startingToken={start} > len(snapshots)={len(found)}")
    end = min(len(found), start + size) if size else len(found)
    return found[start:end], str(end) if end < len(found) else ""
