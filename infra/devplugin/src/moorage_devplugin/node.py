"""The Node service (CSI spec, Node Service RPC).

A use is recorded before anything is done at a path, and forgotten after it was undone. A kill in between leaves a
record, whose path the repeat of the call checks again.
"""

import dataclasses
import hashlib
import os
from pathlib import Path

import grpc

from moorage.spec import csi_pb2 as csi
from moorage_devplugin import disk, mounts
from moorage_devplugin.plugin import Plugin, is_block
from moorage_devplugin.records import Use, Volume
from moorage_devplugin.refusal import Refused, invalid, missing, required
from moorage_devplugin.volumes import BLOCK_FILE, Volumes


class Node:
    """Publishes volumes at paths of this machine."""

    def __init__(self, plugin: Plugin, volumes: Volumes, *, option: mounts.MountOption, writable_links: bool) -> None:
        self._plugin, self._vault, self._holds, self._volumes = plugin, plugin.vault, plugin.holds, volumes
        self._wish, self._writable_links = option, writable_links

    def node_get_info(self, _: csi.NodeGetInfoRequest) -> csi.NodeGetInfoResponse:
        return csi.NodeGetInfoResponse(node_id=self._plugin.node_id, accessible_topology=self._plugin.topology)

    def node_get_capabilities(self, _: csi.NodeGetCapabilitiesRequest) -> csi.NodeGetCapabilitiesResponse:
        rpc = csi.NodeServiceCapability.RPC
        return csi.NodeGetCapabilitiesResponse(
            capabilities=[csi.NodeServiceCapability(rpc=rpc(type=one)) for one in self._plugin.profile.node]
        )

    def node_stage_volume(self, request: csi.NodeStageVolumeRequest) -> csi.NodeStageVolumeResponse:
        """CSI spec, NodeStageVolume. A folder needs no preparation, so it is only recorded as staged."""
        volume_id = required(request.volume_id, "volume_id")
        path = _absolute(request.staging_target_path, "staging_target_path")
        capability = self._capability(request, "volume_capability")
        with self._holds.change(f"volume {volume_id}"):
            volume = self._volumes.require(volume_id)
            use = self._use(volume, path, "staged", capability, readonly=False)
            if not self._is_in_use_already(use):
                self._vault.uses.put(use)
        return csi.NodeStageVolumeResponse()

    def node_unstage_volume(self, request: csi.NodeUnstageVolumeRequest) -> csi.NodeUnstageVolumeResponse:
        """CSI spec, NodeUnstageVolume. OK if it is not staged."""
        volume_id = required(request.volume_id, "volume_id")
        path = _absolute(request.staging_target_path, "staging_target_path")
        with self._holds.change(f"volume {volume_id}"):
            use = self._vault.uses.get(_use_id(volume_id, path))
            if use is not None:
                published = [
                    one.name for one in self._vault.uses.ready() if one.volume == volume_id and one.kind == "published"
                ]
                if published:
                    text = f"the volume is still published at {', '.join(published)}: unpublish it first"
                    raise Refused(grpc.StatusCode.FAILED_PRECONDITION, text)
                self._vault.uses.forget(use.id)
        return csi.NodeUnstageVolumeResponse()

    def node_publish_volume(self, request: csi.NodePublishVolumeRequest) -> csi.NodePublishVolumeResponse:
        """CSI spec, NodePublishVolume. By bind mount or link, and idempotent per path."""
        volume_id = required(request.volume_id, "volume_id")
        path = _absolute(request.target_path, "target_path")
        capability = self._capability(request, "volume_capability")
        with self._holds.change(f"volume {volume_id}", f"path {path}"):
            volume = self._volumes.require(volume_id)
            self._check_staged(volume_id, request.staging_target_path)
            use = self._use(volume, path, "published", capability, readonly=request.readonly)
            source = self._source(volume)
            self._check_single(use)
            if not self._is_in_use_already(use) or not mounts.shows(source, path):
                self._publish(use, source, path)
        return csi.NodePublishVolumeResponse()

    def node_unpublish_volume(self, request: csi.NodeUnpublishVolumeRequest) -> csi.NodeUnpublishVolumeResponse:
        """CSI spec, NodeUnpublishVolume. OK if it is not published. The target path is removed."""
        volume_id = required(request.volume_id, "volume_id")
        path = _absolute(request.target_path, "target_path")
        with self._holds.change(f"volume {volume_id}", f"path {path}"):
            use = self._vault.uses.get(_use_id(volume_id, path))
            if use is not None:
                self._hide(use, path)
                self._vault.reached("unpublished-target")
                self._vault.uses.forget(use.id)
        return csi.NodeUnpublishVolumeResponse()

    def node_get_volume_stats(self, request: csi.NodeGetVolumeStatsRequest) -> csi.NodeGetVolumeStatsResponse:
        """CSI spec, NodeGetVolumeStats. Used is what the data takes on the disk, total the volume's size."""
        volume = self._at_path(request.volume_id, request.volume_path)
        condition = self._volumes.condition(volume)
        usage = []
        if not condition.abnormal:
            taken, files = disk.usage(self._vault.data(volume))
            size = volume.capacity or taken
            usage.append(_usage(csi.VolumeUsage.BYTES, total=size, used=taken))
            if not volume.block:
                free = os.statvfs(self._vault.root).f_favail
                usage.append(_usage(csi.VolumeUsage.INODES, total=files + free, used=files))
        return csi.NodeGetVolumeStatsResponse(usage=usage, volume_condition=condition)

    def node_expand_volume(self, request: csi.NodeExpandVolumeRequest) -> csi.NodeExpandVolumeResponse:
        """CSI spec, NodeExpandVolume. The controller did all there is to do."""
        volume = self._at_path(request.volume_id, request.volume_path)
        wanted = request.capacity_range
        if wanted.required_bytes > volume.capacity or 0 < wanted.limit_bytes < volume.capacity:
            text = f"the volume has {volume.capacity} bytes: expand it by ControllerExpandVolume first"
            raise Refused(grpc.StatusCode.OUT_OF_RANGE, text)
        return csi.NodeExpandVolumeResponse(capacity_bytes=volume.capacity)

    def _publish(self, use: Use, source: Path, path: Path) -> None:
        before = self._vault.uses.get(use.id)
        made = not os.path.lexists(path) or (before is not None and before.made)
        self._vault.uses.put(dataclasses.replace(use, source=str(source), made=made))
        readonly = use.readonly and not self._writable_links
        try:
            how = mounts.show(source, path, option=self._wish, readonly=readonly)
        except (mounts.ReadOnlyImpossible, OSError) as exc:
            # What an earlier call did is still to be undone.
            self._vault.uses.put(before) if before is not None else self._vault.uses.forget(use.id)
            text = "read-only needs a bind mount, which this process may not make: run the plugin as root on Linux"
            if isinstance(exc, OSError):
                text = f"{path} cannot show the volume: {exc.strerror}"
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, text) from exc
        self._vault.reached("published-target")
        mounted = mounts.mounted_at(path) if how == "bind" else ""
        self._vault.uses.put(dataclasses.replace(use, source=str(source), made=made, how=how, mounted=mounted))

    def _hide(self, use: Use, path: Path) -> None:
        try:
            mounts.hide(self._shown(use), path, mounted=use.mounted, made=use.made)
        except OSError as exc:
            text = f"{path} cannot be taken away: {exc.strerror}"
            raise Refused(grpc.StatusCode.INTERNAL, text) from exc

    def _shown(self, use: Use) -> Path:
        """Return the folder or file that a use shows. Records of version 0.1.0 do not name it."""
        if use.source:
            return Path(use.source)
        volume = self._vault.volumes.records.get(use.volume)
        data = self._vault.root / "volumes" / use.volume
        return data / BLOCK_FILE if volume is not None and volume.block else data

    def _is_in_use_already(self, use: Use) -> bool:
        existing = self._vault.uses.get(use.id)
        if existing is None:
            return False
        if (existing.capability, existing.readonly) != (use.capability, use.readonly):
            text = f'{use.name} has volume "{use.volume}" {use.kind} in another way: undo that first'
            raise Refused(grpc.StatusCode.ALREADY_EXISTS, text)
        return True

    def _use(self, volume: Volume, path: Path, kind: str, capability: csi.VolumeCapability, *, readonly: bool) -> Use:
        if is_block([capability], self._plugin.profile.wording.mixed_access) != volume.block:
            raise invalid(f'volume "{volume.id}" is {"a block device" if volume.block else "mounted, no block device"}')
        return Use(
            id=_use_id(volume.id, path),
            name=str(path),
            seq=self._vault.next_seq(),
            created=self._vault.now(),
            state="ready",
            volume=volume.id,
            kind="staged" if kind == "staged" else "published",
            readonly=readonly,
            mode=capability.access_mode.mode,
            # A digest, because mount flags may hold secrets and are only compared.
            capability=hashlib.sha256(capability.SerializeToString(deterministic=True)).hexdigest(),
        )

    def _check_staged(self, volume_id: str, staging: str) -> None:
        if not staging:
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, "staging_target_path is missing: stage the volume first")
        use = self._vault.uses.get(_use_id(volume_id, _absolute(staging, "staging_target_path")))
        if use is None or use.kind != "staged":
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, f"the volume is not staged at {staging}: stage it first")

    def _check_single(self, use: Use) -> None:
        """Refuse a second path for a single writer (CSI spec, NodePublishVolume, access mode of the second path)."""
        single = csi.VolumeCapability.AccessMode.SINGLE_NODE_SINGLE_WRITER
        for other in self._vault.uses.ready():
            elsewhere = other.volume == use.volume and other.kind == "published" and other.id != use.id
            if elsewhere and single in (other.mode, use.mode):
                text = f"the volume has a single writer and is published at {other.name}: unpublish it there first"
                raise Refused(grpc.StatusCode.FAILED_PRECONDITION, text)

    def _at_path(self, volume_id: str, path: str) -> Volume:
        """Return the volume if it is staged or published at `path`. Raises Refused (NOT_FOUND) if not."""
        required(volume_id, "volume_id")
        required(path, "volume_path")
        volume = self._volumes.require(volume_id)
        use = self._vault.uses.get(_use_id(volume.id, Path(os.path.normpath(path))))
        if use is None or (use.kind == "published" and not os.path.lexists(path)):
            raise missing(f'volume "{volume.id}" is not at {path}')
        return volume

    def _source(self, volume: Volume) -> Path:
        condition = self._volumes.condition(volume)
        if condition.abnormal:
            raise Refused(grpc.StatusCode.INTERNAL, condition.message)
        data = self._vault.data(volume)
        return data / BLOCK_FILE if volume.block else data

    def _capability(
        self, request: csi.NodeStageVolumeRequest | csi.NodePublishVolumeRequest, field: str
    ) -> csi.VolumeCapability:
        if not request.HasField("volume_capability"):
            raise invalid(f"{field} is missing in the request")
        is_block([request.volume_capability], self._plugin.profile.wording.mixed_access)
        return request.volume_capability


def _absolute(path: str, field: str) -> Path:
    required(path, field)
    found = Path(os.path.normpath(path))
    if not found.is_absolute():
        raise invalid(f"{field} must be an absolute path")
    return found


def _use_id(volume_id: str, path: Path) -> str:
    return hashlib.sha256(f"{volume_id}\n{path}".encode()).hexdigest()[:32]


def _usage(unit: "csi.VolumeUsage.Unit", *, total: int, used: int) -> csi.VolumeUsage:
    return csi.VolumeUsage(unit=unit, total=total, used=used, available=max(0, total - used))
