"""The node service of the directory plugin without its process, with one volume."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moorage.spec import csi_pb2 as csi
from moorage_devplugin.mounts import MountOption
from moorage_devplugin.node import Node
from moorage_devplugin.plugin import Plugin
from moorage_devplugin.profile import LIKE
from moorage_devplugin.vault import Vault
from moorage_devplugin.volumes import Volumes


def _capability() -> csi.VolumeCapability:
    access = csi.VolumeCapability.AccessMode
    return csi.VolumeCapability(
        mount=csi.VolumeCapability.MountVolume(), access_mode=access(mode="SINGLE_NODE_MULTI_WRITER")
    )


@dataclass
class Machine:
    """A folder for targets, and a plugin with the volume `volume`, which is staged."""

    root: Path
    state: Path
    node: Node
    volume: str
    staging: str
    vault: Vault

    @classmethod
    def make(cls, folder: Path, option: MountOption = "symlink") -> "Machine":
        root, state = folder / "mnt", folder / "plugin"
        root.mkdir()
        vault = Vault(state, lambda _: None)
        vault.open()
        plugin = Plugin(LIKE["directory"], vault, "n1", frozenset({"n1"}))
        volumes = Volumes(plugin)
        request = csi.CreateVolumeRequest(name="data", volume_capabilities=[_capability()])
        made = volumes.create_volume(request).volume.volume_id
        node = Node(plugin, volumes, option=option, writable_links=False)
        machine = cls(root, state, node, made, str(folder / "staging"), vault)
        node.node_stage_volume(
            csi.NodeStageVolumeRequest(
                volume_id=made, staging_target_path=machine.staging, volume_capability=_capability()
            )
        )
        return machine

    def publish(self, target: Path) -> Path:
        self.node.node_publish_volume(
            csi.NodePublishVolumeRequest(
                volume_id=self.volume,
                staging_target_path=self.staging,
                target_path=str(target),
                volume_capability=_capability(),
            )
        )
        return target

    def unpublish(self, target: Path) -> None:
        self.node.node_unpublish_volume(csi.NodeUnpublishVolumeRequest(volume_id=self.volume, target_path=str(target)))

    def unstage(self, staging: Path) -> None:
        self.node.node_unstage_volume(
            csi.NodeUnstageVolumeRequest(volume_id=self.volume, staging_target_path=str(staging))
        )

    def uses(self) -> list[str]:
        """Paths at which the volume is recorded as published."""
        return [use.name for use in self.vault.uses.ready() if use.kind == "published"]

    def remove_data(self) -> None:
        """Remove the volume's folder, as by hand."""
        (self.state / "volumes" / self.volume).rmdir()

    def make_records_older(self) -> None:
        """Take from the records what version 0.1.0 did not write."""
        self._rewrite(lambda stored: [stored.pop(name) for name in ("source", "mounted", "made")])

    def forget_how(self) -> None:
        """Make the records those of a plugin that died before it recorded how the volume is visible."""
        self._rewrite(lambda stored: stored.update(how="nothing", mounted=""))

    def _rewrite(self, change: Any) -> None:
        for path in (self.state / "state" / "uses").glob("*.json"):
            stored = json.loads(path.read_text())
            if stored["kind"] == "published":
                change(stored)
                path.write_text(json.dumps(stored))
        self.vault.uses.load()
