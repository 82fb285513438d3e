"""The rules of CSI for a plugin, tested with the fake plugin and with the directory plugin."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from google.protobuf.message import Message

from chalicelib.csi.channel import rpc_of
from chalicelib.csi.spec import csi_pb2 as csi
from tests import plugin
from tests.fakes import csi_server

SERVERS: Final[dict[str, Callable[[Path], AbstractContextManager[Path]]]] = {
    "fake": csi_server.serving,
    "directory": lambda folder: plugin.running(folder, "--node-id", csi_server.NODE_ID),
}
SERVICES: Final = {m.name: s.full_name for s in csi.DESCRIPTOR.services_by_name.values() for m in s.methods}
NODE_ID: Final = csi_server.NODE_ID
MIB: Final = 1 << 20


@dataclass
class Client:
    """A client of one plugin. It raises a status that is not OK as grpc.RpcError."""

    channel: grpc.Channel
    folder: Path

    def __call__(self, request: Message) -> Any:
        rpc = rpc_of(request)
        answer = getattr(csi, f"{rpc}Response")
        call = self.channel.unary_unary(
            f"/{SERVICES[rpc]}/{rpc}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        return call(request, timeout=20)

    def refused(self, request: Message) -> str:
        """Make a call that the plugin refuses, and return the name of its status."""
        with pytest.raises(grpc.RpcError) as caught:
            self(request)
        code: grpc.StatusCode = caught.value.code()
        return code.name

    def path(self, name: str) -> str:
        return str(self.folder / name)


@pytest.fixture(scope="module", params=SERVERS)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("plugin")
    with SERVERS[request.param](folder) as socket, grpc.insecure_channel(f"unix://{socket}") as channel:
        yield Client(channel, folder)


def capability(mode: str = "SINGLE_NODE_WRITER") -> csi.VolumeCapability:
    access = csi.VolumeCapability.AccessMode
    return csi.VolumeCapability(mount=csi.VolumeCapability.MountVolume(), access_mode=access(mode=mode))


def creation(name: str, size: int = MIB, **fields: Any) -> csi.CreateVolumeRequest:
    given: dict[str, Any] = {
        "name": name,
        "capacity_range": csi.CapacityRange(required_bytes=size),
        "volume_capabilities": [capability()],
    } | fields
    return csi.CreateVolumeRequest(**given)


def create(client: Client, name: str, **fields: Any) -> str:
    return str(client(creation(name, **fields)).volume.volume_id)


def publication(volume_id: str, node_id: str = NODE_ID) -> csi.ControllerPublishVolumeRequest:
    return csi.ControllerPublishVolumeRequest(volume_id=volume_id, node_id=node_id, volume_capability=capability())


def staging(client: Client, volume_id: str) -> csi.NodeStageVolumeRequest:
    return csi.NodeStageVolumeRequest(
        volume_id=volume_id, staging_target_path=client.path("stage"), volume_capability=capability()
    )


def mount(client: Client, volume_id: str) -> csi.NodePublishVolumeRequest:
    return csi.NodePublishVolumeRequest(
        volume_id=volume_id,
        staging_target_path=client.path("stage"),
        target_path=client.path("target"),
        volume_capability=capability(),
    )


def snapshot_ids(client: Client, **fields: Any) -> list[str]:
    return [entry.snapshot.snapshot_id for entry in client(csi.ListSnapshotsRequest(**fields)).entries]


def test_the_plugin_says_what_it_can_do(client: Client) -> None:
    assert client(csi.GetPluginInfoRequest()).name
    assert client(csi.ProbeRequest()).ready.value
    rpc = csi.ControllerServiceCapability.RPC.Type
    controller = {rpc.Name(c.rpc.type) for c in client(csi.ControllerGetCapabilitiesRequest()).capabilities}
    assert controller >= set(csi_server.CONTROLLER)
    node = [c.rpc.type for c in client(csi.NodeGetCapabilitiesRequest()).capabilities]
    assert csi.NodeServiceCapability.RPC.STAGE_UNSTAGE_VOLUME in node
    assert client(csi.NodeGetInfoRequest()).node_id == NODE_ID


def test_the_same_name_is_the_same_volume(client: Client) -> None:
    first, again = client(creation("same")).volume, client(creation("same")).volume
    assert first == again
    assert first.capacity_bytes == MIB
    assert create(client, "another") != first.volume_id
    assert client.refused(creation("same", 2 * MIB)) == "ALREADY_EXISTS"


def test_what_is_deleted_is_gone_and_can_be_deleted_again(client: Client) -> None:
    volume_id = create(client, "short-lived")
    for _ in range(2):
        client(csi.DeleteVolumeRequest(volume_id=volume_id))
    assert volume_id not in [e.volume.volume_id for e in client(csi.ListVolumesRequest()).entries]
    client(csi.DeleteVolumeRequest(volume_id="never-was"))
    client(csi.DeleteSnapshotRequest(snapshot_id="never-was"))


def test_an_expansion_is_repeatable_and_never_shrinks(client: Client) -> None:
    volume_id = create(client, "grows")

    def expand(size: int, limit: int = 0) -> csi.ControllerExpandVolumeRequest:
        return csi.ControllerExpandVolumeRequest(
            volume_id=volume_id, capacity_range=csi.CapacityRange(required_bytes=size, limit_bytes=limit)
        )

    for wanted in (2 * MIB, 2 * MIB, MIB):
        assert client(expand(wanted)).capacity_bytes == 2 * MIB
    assert client.refused(expand(MIB, limit=MIB)) == "OUT_OF_RANGE"


def test_capabilities_are_confirmed(client: Client) -> None:
    request = csi.ValidateVolumeCapabilitiesRequest(
        volume_id=create(client, "validated"), volume_capabilities=[capability()]
    )
    assert list(client(request).confirmed.volume_capabilities) == [capability()]


def test_a_volume_is_published_to_one_node_and_taken_away(client: Client) -> None:
    volume_id = create(client, "published")
    for _ in range(2):
        client(publication(volume_id))
    listed = {e.volume.volume_id: e.status for e in client(csi.ListVolumesRequest()).entries}
    assert list(listed[volume_id].published_node_ids) == [NODE_ID]
    assert client.refused(csi.DeleteVolumeRequest(volume_id=volume_id)) == "FAILED_PRECONDITION"
    for node_id in (NODE_ID, NODE_ID, ""):
        client(csi.ControllerUnpublishVolumeRequest(volume_id=volume_id, node_id=node_id))
    client(csi.DeleteVolumeRequest(volume_id=volume_id))
    client(csi.ControllerUnpublishVolumeRequest(volume_id=volume_id, node_id=NODE_ID))


def test_a_volume_is_staged_and_mounted_and_both_are_undone(client: Client) -> None:
    volume_id = create(client, "mounted")
    assert client.refused(mount(client, volume_id)) == "FAILED_PRECONDITION"
    for _ in range(2):
        client(staging(client, volume_id))
        client(mount(client, volume_id))
    assert client.refused(csi.DeleteVolumeRequest(volume_id=volume_id)) == "FAILED_PRECONDITION"
    for _ in range(2):
        client(csi.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=client.path("target")))
    for _ in range(2):
        client(csi.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path=client.path("stage")))
    client(csi.DeleteVolumeRequest(volume_id=volume_id))


def test_a_snapshot_is_found_by_its_name_and_outlives_its_volume(client: Client) -> None:
    source, other = create(client, "source"), create(client, "other")
    request = csi.CreateSnapshotRequest(source_volume_id=source, name="nightly")
    first, again = client(request).snapshot, client(request).snapshot
    assert first == again
    assert (first.source_volume_id, first.size_bytes, first.ready_to_use) == (source, MIB, True)
    assert client.refused(csi.CreateSnapshotRequest(source_volume_id=other, name="nightly")) == "ALREADY_EXISTS"
    client(csi.DeleteVolumeRequest(volume_id=source))
    assert snapshot_ids(client, source_volume_id=source) == [first.snapshot_id]
    content = csi.VolumeContentSource(snapshot=csi.VolumeContentSource.SnapshotSource(snapshot_id=first.snapshot_id))
    restored = client(creation("restored", volume_content_source=content)).volume
    assert restored.content_source == content
    for _ in range(2):
        client(csi.DeleteSnapshotRequest(snapshot_id=first.snapshot_id))
    assert snapshot_ids(client, snapshot_id=first.snapshot_id) == []


def test_lists_are_read_in_pages(client: Client) -> None:
    for number in range(5):
        create(client, f"listed-{number}")
    every = [e.volume.volume_id for e in client(csi.ListVolumesRequest()).entries]
    read: list[str] = []
    token = ""
    while token or not read:
        page = client(csi.ListVolumesRequest(max_entries=2, starting_token=token))
        assert len(page.entries) <= 2
        read += [e.volume.volume_id for e in page.entries]
        token = page.next_token
    assert read == every
    assert client.refused(csi.ListVolumesRequest(starting_token="no token")) == "ABORTED"
    assert client.refused(csi.ListSnapshotsRequest(starting_token="no token")) == "ABORTED"


def unknown(client: Client) -> list[Message]:
    """Return requests about volumes, snapshots and nodes that do not exist."""
    volume_id = create(client, "attachable")
    return [
        csi.ControllerExpandVolumeRequest(volume_id="never-was", capacity_range=csi.CapacityRange(required_bytes=1)),
        csi.ValidateVolumeCapabilitiesRequest(volume_id="never-was", volume_capabilities=[capability()]),
        csi.CreateSnapshotRequest(source_volume_id="never-was", name="of-nothing"),
        creation(
            "from-nothing",
            volume_content_source=csi.VolumeContentSource(
                snapshot=csi.VolumeContentSource.SnapshotSource(snapshot_id="never-was")
            ),
        ),
        publication("never-was"),
        publication(volume_id, "no-node"),
        staging(client, "never-was"),
        mount(client, "never-was"),
    ]


def test_what_is_unknown_is_not_found(client: Client) -> None:
    assert [(rpc_of(r), client.refused(r)) for r in unknown(client)] == [
        (rpc_of(r), "NOT_FOUND") for r in unknown(client)
    ]


INCOMPLETE: Final = [
    (creation("x"), ("name", "volume_capabilities")),
    (csi.DeleteVolumeRequest(volume_id="x"), ("volume_id",)),
    (
        csi.ControllerExpandVolumeRequest(volume_id="x", capacity_range=csi.CapacityRange(required_bytes=1)),
        ("volume_id", "capacity_range"),
    ),
    (
        csi.ValidateVolumeCapabilitiesRequest(volume_id="x", volume_capabilities=[capability()]),
        ("volume_id", "volume_capabilities"),
    ),
    (csi.CreateSnapshotRequest(source_volume_id="x", name="x"), ("source_volume_id", "name")),
    (csi.DeleteSnapshotRequest(snapshot_id="x"), ("snapshot_id",)),
    (publication("x"), ("volume_id", "node_id", "volume_capability")),
    (csi.ControllerUnpublishVolumeRequest(volume_id="x"), ("volume_id",)),
    (
        csi.NodeStageVolumeRequest(volume_id="x", staging_target_path="/x", volume_capability=capability()),
        ("volume_id", "staging_target_path", "volume_capability"),
    ),
    (csi.NodeUnstageVolumeRequest(volume_id="x", staging_target_path="/x"), ("volume_id", "staging_target_path")),
    (
        csi.NodePublishVolumeRequest(volume_id="x", target_path="/x", volume_capability=capability()),
        ("volume_id", "target_path", "volume_capability"),
    ),
    (csi.NodeUnpublishVolumeRequest(volume_id="x", target_path="/x"), ("volume_id", "target_path")),
]


@pytest.mark.parametrize(
    ("request_", "name"),
    [(request, name) for request, names in INCOMPLETE for name in names],
    ids=lambda value: value if isinstance(value, str) else rpc_of(value),
)
def test_what_must_be_there_is_missed(client: Client, request_: Message, name: str) -> None:
    incomplete = type(request_)()
    incomplete.CopyFrom(request_)
    incomplete.ClearField(name)
    assert client.refused(incomplete) == "INVALID_ARGUMENT"
