"""What Go decodes of every request, and what Moorage makes of every answer that Go encodes."""

from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.domain.claim import Use
from chalicelib.domain.external import ExternalVolume, Page, Snapshot
from chalicelib.domain.volume import Capability, Definition, Made, MountOptions, TopologyRequest, Volume
from tests.conformance.echo import peer
from tests.conformance.echo.peer import Peer, call

pytestmark = [pytest.mark.conformance, pytest.mark.enable_socket, pytest.mark.timeout(600)]

LARGE = 2**53 + 1
"""What Go answers for sizes: more than a float holds exactly."""
SECRETS = {"token": "s3cret ü", "empty": ""}
MODES = {
    "single-node-reader-only": "SINGLE_NODE_READER_ONLY",
    "single-node-writer": "SINGLE_NODE_WRITER",
    "multi-node-reader-only": "MULTI_NODE_READER_ONLY",
    "multi-node-single-writer": "MULTI_NODE_SINGLE_WRITER",
    "multi-node-multi-writer": "MULTI_NODE_MULTI_WRITER",
}
EVERY_PAIR = tuple(Capability(mode, how) for mode in MODES for how in ("file-system", "block-device"))
MOUNT = {"fs_type": "ext4", "mount_flags": ["noatime", "password=x"]}
EVERY_PAIR_DECODED = [
    {"access_mode": {"mode": mode}} | ({"mount": MOUNT} if how == "mount" else {"block": {}})
    for mode in MODES.values()
    for how in ("mount", "block")
]


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    folder = tmp_path_factory.mktemp("echo")
    with peer.running(peer.build(folder), folder) as running:
        yield running


def volume(**fields: Any) -> Volume:
    given: dict[str, Any] = {
        "external_id": "provider's id/ü",
        "capabilities": EVERY_PAIR,
        "mount_options": MountOptions("ext4", ("noatime", "password=x")),
        "parameters": {"kind": "fast", "empty": ""},
        "context": {"server": "10.0.0.1", "empty": ""},
    } | fields
    return Volume("default", "data", peer.PLUGIN_ID, definition=Definition(**given))


def create(echo: Peer, wanted: Volume) -> Made:
    return echo.calls.create_volume(wanted, name="data ü", call=call(**SECRETS))


def test_create_with_every_field_from_a_snapshot(echo: Peer) -> None:
    places = TopologyRequest(
        required=({"zone": "z1", "rack": "r1"}, {"zone": "z2"}), preferred=({"zone": "z2"}, {"zone": "z1"})
    )
    made = create(
        echo,
        volume(capacity_min=LARGE, capacity_max=2**62, snapshot_id="snap ü", clone_id="", topology_request=places),
    )
    assert echo.decoded("CreateVolume") == {
        "name": "data ü",
        "capacity_range": {"required_bytes": str(LARGE), "limit_bytes": str(2**62)},
        "volume_capabilities": EVERY_PAIR_DECODED,
        "parameters": {"kind": "fast", "empty": ""},
        "secrets": SECRETS,
        "volume_content_source": {"snapshot": {"snapshot_id": "snap ü"}},
        "accessibility_requirements": {
            "requisite": [{"segments": {"zone": "z1", "rack": "r1"}}, {"segments": {"zone": "z2"}}],
            "preferred": [{"segments": {"zone": "z2"}}, {"segments": {"zone": "z1"}}],
        },
    }
    assert made == Made(
        external_id="id of data ü",
        capacity=LARGE,
        context={"answered": "ünï", "empty": ""},
        topologies=({"zone": "z1", "rack": "r1"}, {"zone": "z2"}),
        snapshot_id="snap ü",
        clone_id="",
    )


def test_create_from_a_volume(echo: Peer) -> None:
    made = create(echo, volume(clone_id="parent"))
    decoded = echo.decoded("CreateVolume")
    assert decoded["volume_content_source"] == {"volume": {"volume_id": "parent"}}
    assert (made.clone_id, made.snapshot_id, made.topologies) == ("parent", "", ())


@pytest.mark.parametrize(
    ("sizes", "decoded"),
    [
        ({"capacity_min": 1}, {"required_bytes": "1"}),
        ({"capacity_max": 1}, {"limit_bytes": "1"}),
        ({}, None),
    ],
)
def test_a_size_that_is_not_wanted_is_not_there(
    echo: Peer, sizes: dict[str, int], decoded: dict[str, str] | None
) -> None:
    create(echo, volume(**sizes))
    assert echo.decoded("CreateVolume").get("capacity_range") == decoded


def test_create_with_nothing_beside_what_must_be_there(echo: Peer) -> None:
    """A message without fields is there for Go: `mount` without options is still mount."""
    bare = Volume(
        "default",
        "data",
        peer.PLUGIN_ID,
        definition=Definition(capabilities=(Capability("single-node-writer", "file-system"),)),
    )
    echo.calls.create_volume(bare, name="bare", call=call())
    assert echo.decoded("CreateVolume") == {
        "name": "bare",
        "volume_capabilities": [{"access_mode": {"mode": "SINGLE_NODE_WRITER"}, "mount": {}}],
    }


def test_delete(echo: Peer) -> None:
    echo.calls.delete_volume(peer.PLUGIN_ID, "provider's id/ü", call=call(**SECRETS))
    assert echo.decoded("DeleteVolume") == {"volume_id": "provider's id/ü", "secrets": SECRETS}


def test_expand(echo: Peer) -> None:
    grown = echo.calls.controller_expand_volume(volume(), required=LARGE, limit=2**62, call=call(**SECRETS))
    assert grown == LARGE
    assert echo.decoded("ControllerExpandVolume") == {
        "volume_id": "provider's id/ü",
        "capacity_range": {"required_bytes": str(LARGE), "limit_bytes": str(2**62)},
        "secrets": SECRETS,
        "volume_capability": EVERY_PAIR_DECODED[0],
    }


def test_validate(echo: Peer) -> None:
    """Go confirms what it decoded: a volume that is mounted, in every access mode."""
    mounted = tuple(pair for pair in EVERY_PAIR if pair.attachment_mode == "file-system")
    echo.calls.validate_volume_capabilities(volume(capabilities=mounted), call=call(**SECRETS))
    assert echo.decoded("ValidateVolumeCapabilities") == {
        "volume_id": "provider's id/ü",
        "volume_context": {"server": "10.0.0.1", "empty": ""},
        "volume_capabilities": [one for one in EVERY_PAIR_DECODED if "mount" in one],
        "parameters": {"kind": "fast", "empty": ""},
        "secrets": SECRETS,
    }


def test_snapshots(echo: Peer) -> None:
    made = echo.calls.create_snapshot(
        peer.PLUGIN_ID,
        "provider's id/ü",
        name="nightly ü",
        parameters={"kind": "full"},
        call=call(**SECRETS),
    )
    assert echo.decoded("CreateSnapshot") == {
        "source_volume_id": "provider's id/ü",
        "name": "nightly ü",
        "secrets": SECRETS,
        "parameters": {"kind": "full"},
    }
    assert made == Snapshot("id of nightly ü", "provider's id/ü", LARGE, create_time=1700000000, ready=True)
    echo.calls.delete_snapshot(peer.PLUGIN_ID, made.id, call=call(**SECRETS))
    assert echo.decoded("DeleteSnapshot") == {"snapshot_id": "id of nightly ü", "secrets": SECRETS}


def test_lists(echo: Peer) -> None:
    listed = echo.calls.list_volumes(peer.PLUGIN_ID, per_page=7, next_token="from ü", call=call())
    assert echo.decoded("ListVolumes") == {"max_entries": 7, "starting_token": "from ü"}
    first = ExternalVolume(
        external_id="listed",
        capacity=LARGE,
        context={"a": "b"},
        clone_id="parent",
        published=["n1", "n2"],
        abnormal=True,
        status="worn",
    )
    second = ExternalVolume("restored", context={}, snapshot_id="taken", published=[])
    assert listed == Page([first, second], "from ü+")
    found = echo.calls.list_snapshots(peer.PLUGIN_ID, per_page=3, next_token="t", call=call(**SECRETS))
    assert echo.decoded("ListSnapshots") == {"max_entries": 3, "starting_token": "t", "secrets": SECRETS}
    assert found == Page([Snapshot("s", "v", LARGE, create_time=1700000000, ready=True)], "t+")


@pytest.mark.parametrize("pair", range(len(EVERY_PAIR)))
@pytest.mark.parametrize("read_only", [True, False])
def test_publish_on_the_controller(echo: Peer, pair: int, read_only: bool) -> None:
    use = Use(EVERY_PAIR[pair], read_only)
    context = echo.calls.controller_publish_volume(volume(), use, external_node_id="node ü", call=call(**SECRETS))
    assert context == {"device": "node ü/dev"}
    assert echo.decoded("ControllerPublishVolume") == {
        "volume_id": "provider's id/ü",
        "node_id": "node ü",
        "volume_capability": EVERY_PAIR_DECODED[pair],
        "secrets": SECRETS,
        "volume_context": {"server": "10.0.0.1", "empty": ""},
    } | ({"readonly": True} if read_only else {})


def test_unpublish_on_the_controller(echo: Peer) -> None:
    echo.calls.controller_unpublish_volume(
        peer.PLUGIN_ID, "provider's id/ü", external_node_id="node ü", call=call(**SECRETS)
    )
    decoded = {"volume_id": "provider's id/ü", "node_id": "node ü", "secrets": SECRETS}
    assert echo.decoded("ControllerUnpublishVolume") == decoded


def test_on_the_node(echo: Peer) -> None:
    stage, target = str(echo.mounts / "stage"), str(echo.mounts / "target ü")
    use = Use(EVERY_PAIR[1], True, {"device": "/dev/ü"}, stage, target)
    echo.calls.node_stage_volume(volume(), use, node_id="n1", call=call(**SECRETS))
    staged = {
        "volume_id": "provider's id/ü",
        "publish_context": {"device": "/dev/ü"},
        "staging_target_path": stage,
        "volume_capability": EVERY_PAIR_DECODED[1],
        "secrets": SECRETS,
        "volume_context": {"server": "10.0.0.1", "empty": ""},
    }
    assert echo.decoded("NodeStageVolume") == staged
    echo.calls.node_publish_volume(volume(), use, node_id="n1", call=call(**SECRETS))
    assert echo.decoded("NodePublishVolume") == staged | {"target_path": target, "readonly": True}
    echo.calls.node_unpublish_volume(peer.PLUGIN_ID, "provider's id/ü", node_id="n1", path=target, call=call())
    assert echo.decoded("NodeUnpublishVolume") == {"volume_id": "provider's id/ü", "target_path": target}
    echo.calls.node_unstage_volume(peer.PLUGIN_ID, "provider's id/ü", node_id="n1", path=stage, call=call())
    assert echo.decoded("NodeUnstageVolume") == {"volume_id": "provider's id/ü", "staging_target_path": stage}


def test_the_bridge_understands_every_capability_and_the_node(echo: Peer) -> None:
    """Names where our stubs have them; of what CSI added later, the number."""
    told = echo.registered
    assert (told["Provider"], told["ProviderVersion"], told["Healthy"]) == ("echo.csi.moorage", "1.13", True)
    assert told["PluginCapabilities"] == [
        "CONTROLLER_SERVICE",
        "VOLUME_ACCESSIBILITY_CONSTRAINTS",
        "GROUP_CONTROLLER_SERVICE",
        "SNAPSHOT_METADATA_SERVICE",
        "5",
        "VOLUME_EXPANSION_ONLINE",
        "VOLUME_EXPANSION_OFFLINE",
    ]
    assert told["ControllerCapabilities"] == [
        "CREATE_DELETE_VOLUME",
        "PUBLISH_UNPUBLISH_VOLUME",
        "LIST_VOLUMES",
        "GET_CAPACITY",
        "CREATE_DELETE_SNAPSHOT",
        "LIST_SNAPSHOTS",
        "CLONE_VOLUME",
        "PUBLISH_READONLY",
        "EXPAND_VOLUME",
        "LIST_VOLUMES_PUBLISHED_NODES",
        "GET_VOLUME",
        "SINGLE_NODE_MULTI_WRITER",
        "MODIFY_VOLUME",
        "GET_SNAPSHOT",
        "16",
        "17",
    ]
    assert told["NodeCapabilities"] == [
        "STAGE_UNSTAGE_VOLUME",
        "GET_VOLUME_STATS",
        "EXPAND_VOLUME",
        "SINGLE_NODE_MULTI_WRITER",
        "VOLUME_MOUNT_GROUP",
        "7",
        "8",
    ]
    place = {"Segments": {"zone": "z1", "rack": "r1"}}
    assert told["NodeInfo"] == {"ID": "echo-node", "MaxVolumes": LARGE, "AccessibleTopology": place}
