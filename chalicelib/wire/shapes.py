"""The declared bodies of the API's requests. Names and types are those of recordings and of Nomad's public Go client.

Nomad's error texts name the package `structs`. What a client may send but this service never reads (the allocations in
a volume) is declared by its outer type only.
"""

from chalicelib.wire.kinds import (
    BOOL,
    INT,
    INT64,
    STRING,
    STRING_MAP,
    STRINGS,
    TIME,
    UINT64,
    Field,
    ListOf,
    MapOf,
    Pointer,
    Struct,
    Text,
)

_ACCESS_MODE = Text("structs.CSIVolumeAccessMode")
_ATTACHMENT_MODE = Text("structs.CSIVolumeAttachmentMode")
_SECRETS = MapOf(STRING, name="structs.CSISecrets")
_ALLOCATION = Pointer(Struct("structs.Allocation", ()))
_ALLOCATION_STUB = Pointer(Struct("structs.AllocListStub", ()))

WRITE_REQUEST = (
    Field("Region", STRING, embedded="WriteRequest"),
    Field("Namespace", STRING, embedded="WriteRequest"),
    Field("SecretID", STRING, embedded="WriteRequest"),
)

CSI_TOPOLOGY = Struct("structs.CSITopology", (Field("Segments", STRING_MAP),))

CSI_TOPOLOGY_REQUEST = Struct(
    "structs.CSITopologyRequest",
    (
        Field("Required", ListOf(Pointer(CSI_TOPOLOGY), null_elements=False)),
        Field("Preferred", ListOf(Pointer(CSI_TOPOLOGY), null_elements=False)),
    ),
)

CSI_MOUNT_OPTIONS = Struct("structs.CSIMountOptions", (Field("FSType", STRING), Field("MountFlags", STRINGS)))

CSI_VOLUME_CAPABILITY = Struct(
    "structs.CSIVolumeCapability", (Field("AttachmentMode", _ATTACHMENT_MODE), Field("AccessMode", _ACCESS_MODE))
)

CSI_VOLUME = Struct(
    "structs.CSIVolume",
    (
        Field("ID", STRING),
        Field("Name", STRING),
        Field("ExternalID", STRING),
        Field("Namespace", STRING),
        Field("RequestedTopologies", Pointer(CSI_TOPOLOGY_REQUEST)),
        # A volume read from a Nomad has a leading null here, and may be sent back as it was read.
        Field("Topologies", ListOf(Pointer(CSI_TOPOLOGY))),
        Field("AccessMode", _ACCESS_MODE),
        Field("AttachmentMode", _ATTACHMENT_MODE),
        Field("MountOptions", Pointer(CSI_MOUNT_OPTIONS)),
        Field("Secrets", _SECRETS),
        Field("Parameters", STRING_MAP),
        Field("Context", STRING_MAP),
        Field("Capacity", INT64),
        Field("RequestedCapacityMin", INT64),
        Field("RequestedCapacityMax", INT64),
        Field("RequestedCapabilities", ListOf(Pointer(CSI_VOLUME_CAPABILITY), null_elements=False)),
        Field("CloneID", STRING),
        Field("SnapshotID", STRING),
        Field("ReadAllocs", MapOf(_ALLOCATION)),
        Field("WriteAllocs", MapOf(_ALLOCATION)),
        Field("Allocations", ListOf(_ALLOCATION_STUB)),
        Field("Schedulable", BOOL),
        Field("PluginID", STRING),
        Field("Provider", STRING),
        Field("ProviderVersion", STRING),
        Field("ControllerRequired", BOOL),
        Field("ControllersHealthy", INT),
        Field("ControllersExpected", INT),
        Field("NodesHealthy", INT),
        Field("NodesExpected", INT),
        Field("ResourceExhausted", TIME),
        Field("CreateIndex", UINT64),
        Field("ModifyIndex", UINT64),
        Field("CreateTime", INT64),
        Field("ModifyTime", INT64),
    ),
)

_VOLUMES = (
    Field("Volumes", ListOf(Pointer(CSI_VOLUME), null_elements=False)),
    Field("PolicyOverride", BOOL),
    *WRITE_REQUEST,
)

CSI_VOLUME_REGISTER_REQUEST = Struct("structs.CSIVolumeRegisterRequest", _VOLUMES)
CSI_VOLUME_CREATE_REQUEST = Struct("structs.CSIVolumeCreateRequest", _VOLUMES)

CSI_SNAPSHOT = Struct(
    "structs.CSISnapshot",
    (
        Field("ID", STRING),
        Field("ExternalSourceVolumeID", STRING),
        Field("SizeBytes", INT64),
        Field("CreateTime", INT64),
        Field("IsReady", BOOL),
        Field("SourceVolumeID", STRING),
        Field("PluginID", STRING),
        Field("Name", STRING),
        Field("Secrets", _SECRETS),
        Field("Parameters", STRING_MAP),
    ),
)

CSI_SNAPSHOT_CREATE_REQUEST = Struct(
    "structs.CSISnapshotCreateRequest",
    (Field("Snapshots", ListOf(Pointer(CSI_SNAPSHOT), null_elements=False)), *WRITE_REQUEST),
)

NAMESPACE_CAPABILITIES = Struct(
    "structs.NamespaceCapabilities",
    (
        Field("EnabledTaskDrivers", STRINGS),
        Field("DisabledTaskDrivers", STRINGS),
        Field("EnabledNetworkModes", STRINGS),
        Field("DisabledNetworkModes", STRINGS),
    ),
)


def _default_allowed_denied(go_type: str) -> Struct:
    return Struct(go_type, (Field("Default", STRING), Field("Allowed", STRINGS), Field("Denied", STRINGS)))


NAMESPACE = Struct(
    "structs.Namespace",
    (
        Field("Name", STRING),
        Field("Description", STRING),
        Field("Quota", STRING),
        Field("Capabilities", Pointer(NAMESPACE_CAPABILITIES)),
        Field("NodePoolConfiguration", Pointer(_default_allowed_denied("structs.NamespaceNodePoolConfiguration"))),
        Field("VaultConfiguration", Pointer(_default_allowed_denied("structs.NamespaceVaultConfiguration"))),
        Field("ConsulConfiguration", Pointer(_default_allowed_denied("structs.NamespaceConsulConfiguration"))),
        Field("Meta", STRING_MAP),
        Field("CreateIndex", UINT64),
        Field("ModifyIndex", UINT64),
        Field("RequiredExtraClaims", STRING_MAP),
        Field("OptionalExtraClaims", STRING_MAP),
    ),
)
