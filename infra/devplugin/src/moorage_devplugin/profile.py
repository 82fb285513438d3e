"""How the plugin behaves: in its own way, or like another plugin (`--like`)."""

from dataclasses import dataclass, replace
from typing import Final, Literal

from moorage.spec import csi_pb2 as csi
from moorage_devplugin import __version__

Controls = csi.ControllerServiceCapability.RPC
Nodes = csi.NodeServiceCapability.RPC
IdScheme = Literal["named", "uuid"]
GIBIBYTE: Final = 1 << 30
TEBIBYTE: Final = 1 << 40


@dataclass(frozen=True)
class Wording:
    """Texts of refusals that clients are known to depend on."""

    no_volume: str = 'there is no volume "{id}"'
    no_snapshot: str = 'there is no snapshot "{id}"'
    too_large: str = "{size} bytes are more than the {limit} that one volume may have"
    negative_size: str = "a size cannot be negative"
    mixed_access: str = "a volume is either a block device or mounted: ask for one of them"
    other_volume: str = 'a volume named "{name}" exists and differs in its {difference}'
    other_snapshot: str = 'a snapshot named "{name}" exists and is of another volume'


@dataclass(frozen=True)
class Profile:
    """All of the plugin that does not depend on its root."""

    name: str = "directory.csi.moorage"
    version: str = __version__
    topology_key: str = "topology.directory/node"
    ids: IdScheme = "named"
    default_size: int = GIBIBYTE
    largest: int = TEBIBYTE
    echo_parameters: bool = False
    """Whether CreateVolume answers with the parameters as volume context."""
    strict: bool = True
    """Whether it compares parameters and access type of a repeated name, topology, and capabilities to validate."""
    list_positions: bool = False
    """Whether list tokens are positions and lists have bare volumes, as csi-driver-host-path does."""
    node_expansion: bool = False
    groups: bool = True
    mutable: frozenset[str] = frozenset({"note"})
    """Mutable parameters that volumes take. They are only stored, since a folder has no use for them."""
    wording: Wording = Wording()
    controller: tuple["Controls.Type", ...] = (
        Controls.CREATE_DELETE_VOLUME,
        Controls.PUBLISH_UNPUBLISH_VOLUME,
        Controls.LIST_VOLUMES,
        Controls.GET_CAPACITY,
        Controls.CREATE_DELETE_SNAPSHOT,
        Controls.LIST_SNAPSHOTS,
        Controls.CLONE_VOLUME,
        Controls.PUBLISH_READONLY,
        Controls.EXPAND_VOLUME,
        Controls.LIST_VOLUMES_PUBLISHED_NODES,
        Controls.VOLUME_CONDITION,
        Controls.GET_VOLUME,
        Controls.SINGLE_NODE_MULTI_WRITER,
        Controls.MODIFY_VOLUME,
        Controls.GET_SNAPSHOT,
    )
    node: tuple["Nodes.Type", ...] = (
        Nodes.STAGE_UNSTAGE_VOLUME,
        Nodes.GET_VOLUME_STATS,
        Nodes.EXPAND_VOLUME,
        Nodes.VOLUME_CONDITION,
        Nodes.SINGLE_NODE_MULTI_WRITER,
    )


DIRECTORY: Final = Profile()
HOSTPATH: Final = replace(
    DIRECTORY,
    name="hostpath.csi.k8s.io",
    version="v1.17.0",
    topology_key="topology.hostpath.csi/node",
    ids="uuid",
    default_size=0,
    echo_parameters=True,
    strict=False,
    list_positions=True,
    node_expansion=True,
    groups=False,
    wording=Wording(
        no_volume="volume id {id} does not exist in the volumes list",
        no_snapshot="snapshot id {id} does not exist in the snapshots list",
        too_large="Requested capacity {size} exceeds maximum allowed {limit}",
        negative_size="cannot have negative capacity",
        mixed_access="cannot have both block and mount access type",
        other_volume="Volume with the same name: {name} but with different {difference} already exist",
        other_snapshot="snapshot with the same name: {name} but with different SourceVolumeId already exist",
    ),
    controller=tuple(
        capability
        for capability in DIRECTORY.controller
        if capability
        not in (
            Controls.PUBLISH_READONLY,
            Controls.LIST_VOLUMES_PUBLISHED_NODES,
            Controls.MODIFY_VOLUME,
            Controls.GET_SNAPSHOT,
        )
    ),
)
LIKE: Final = {"directory": DIRECTORY, "hostpath": HOSTPATH}
