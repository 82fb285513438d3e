"""The GroupController service: snapshots of several volumes at once (CSI spec, Group Controller Service RPC)."""

import contextlib
from collections.abc import Sequence

import grpc

from moorage.spec import csi_pb2 as csi
from moorage_devplugin.plugin import Plugin, timestamp
from moorage_devplugin.records import Group, Volume
from moorage_devplugin.refusal import Refused, invalid, missing, required
from moorage_devplugin.snapshots import Snapshots, csi_snapshot


class Groups:
    """Takes and deletes groups of snapshots. This plugin changes no volume of a group meanwhile."""

    def __init__(self, plugin: Plugin, snapshots: Snapshots) -> None:
        self._plugin, self._vault, self._holds = plugin, plugin.vault, plugin.holds
        self._snapshots = snapshots

    def group_controller_get_capabilities(
        self, _: csi.GroupControllerGetCapabilitiesRequest
    ) -> csi.GroupControllerGetCapabilitiesResponse:
        rpc = csi.GroupControllerServiceCapability.RPC
        one = csi.GroupControllerServiceCapability(rpc=rpc(type=rpc.CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT))
        return csi.GroupControllerGetCapabilitiesResponse(capabilities=[one])

    def create_volume_group_snapshot(
        self, request: csi.CreateVolumeGroupSnapshotRequest
    ) -> csi.CreateVolumeGroupSnapshotResponse:
        """CSI spec, CreateVolumeGroupSnapshot. Idempotent by name. After an error, nothing of the group is left."""
        name = required(request.name, "name")
        if not request.source_volume_ids:
            raise invalid("source_volume_ids is missing in the request")
        wanted = sorted(set(request.source_volume_ids))
        with self._holds.change(f"group name {name}"), self._holds.read(*(f"volume {one}" for one in wanted)):
            group = self._vault.groups.by_name(name)
            if group is None:
                group = self._take(name, [self._volume(one) for one in wanted])
            elif sorted(self._vault.snapshots.records[one].volume for one in group.snapshots) != wanted:
                raise Refused(grpc.StatusCode.ALREADY_EXISTS, f'a group "{name}" exists and is of other volumes')
        return csi.CreateVolumeGroupSnapshotResponse(group_snapshot=self._csi_group(group))

    def delete_volume_group_snapshot(
        self, request: csi.DeleteVolumeGroupSnapshotRequest
    ) -> csi.DeleteVolumeGroupSnapshotResponse:
        """CSI spec, DeleteVolumeGroupSnapshot. OK if it is gone."""
        group_id = required(request.group_snapshot_id, "group_snapshot_id")
        with self._holds.change(f"group {group_id}"):
            group = self._vault.groups.get(group_id)
            if group is not None:
                self._check_members(group, request.snapshot_ids)
                self._drop(group)
        return csi.DeleteVolumeGroupSnapshotResponse()

    def get_volume_group_snapshot(
        self, request: csi.GetVolumeGroupSnapshotRequest
    ) -> csi.GetVolumeGroupSnapshotResponse:
        """CSI spec, GetVolumeGroupSnapshot."""
        group_id = required(request.group_snapshot_id, "group_snapshot_id")
        group = self._vault.groups.get(group_id)
        if group is None:
            raise missing(f'there is no group of snapshots "{group_id}"')
        self._check_members(group, request.snapshot_ids)
        return csi.GetVolumeGroupSnapshotResponse(group_snapshot=self._csi_group(group))

    def _take(self, name: str, volumes: Sequence[Volume]) -> Group:
        group_id = self._plugin.new_id(name)
        # A kill between two snapshots leaves some without their group. The repeat of the call finds them by name.
        taken = []
        with contextlib.ExitStack() as undo:
            for volume in volumes:
                snapshot_name = f"{name} of {volume.id}"
                snapshot = self._vault.snapshots.by_name(snapshot_name)
                snapshot = snapshot or self._snapshots.take(snapshot_name, volume, group=group_id)
                undo.callback(self._vault.drop, self._vault.snapshots, snapshot)
                taken.append(snapshot.id)
            group = self._vault.groups.put(
                Group(
                    id=group_id,
                    name=name,
                    seq=self._vault.next_seq(),
                    created=self._vault.now(),
                    state="ready",
                    snapshots=taken,
                )
            )
            undo.pop_all()
        return group

    def _drop(self, group: Group) -> None:
        """Drop the members first: after a kill, the group is still there for the repeat of the call."""
        for snapshot_id in group.snapshots:
            snapshot = self._vault.snapshots.records.get(snapshot_id)
            if snapshot is not None:
                self._vault.drop(self._vault.snapshots, snapshot)
        self._vault.groups.forget(group.id)

    def _check_members(self, group: Group, asked: Sequence[str]) -> None:
        if asked and sorted(asked) != sorted(group.snapshots):
            raise invalid(f'group "{group.id}" does not consist of these snapshots')

    def _volume(self, volume_id: str) -> Volume:
        volume = self._vault.volumes.get(volume_id)
        if volume is None:
            raise missing(f'there is no volume "{volume_id}"')
        return volume

    def _csi_group(self, group: Group) -> csi.VolumeGroupSnapshot:
        members = [self._vault.snapshots.get(one) for one in group.snapshots]
        return csi.VolumeGroupSnapshot(
            group_snapshot_id=group.id,
            snapshots=[csi_snapshot(one) for one in members if one is not None],
            creation_time=timestamp(group.created),
            ready_to_use=True,
        )
