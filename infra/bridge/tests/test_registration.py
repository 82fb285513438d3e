"""What the bridge tells the control plane, when, and what it does with the answers."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc
import pytest

from infra.bridge.tests.parts import (
    NOW,
    ControlPlane,
    FakePlugin,
    Pki,
    Worker,
    control_plane_at,
    eventually,
    running,
    worker_at,
)
from moorage import certificates
from moorage.bridge.run import Bridge
from moorage.bridge.settings import BadSetting, PluginSettings, Settings
from moorage.certificates import Certificate

pytestmark = pytest.mark.enable_socket


def test_first_message_holds_everything_the_contract_names(
    bridge: Bridge, control_plane: ControlPlane, pki: Pki
) -> None:
    eventually(control_plane.puts)
    message = control_plane.puts()[0]
    assert message.path == "/v1/bridge/n1"
    body = dict(message.body)
    plugins = body.pop("Plugins")
    assert body.pop("InstanceID")
    assert body.pop("NodeName")
    assert body == {
        "Protocol": 1,
        "NodeID": "n1",
        "Sequence": 1,
        "Address": bridge.address,
        "BridgeVersion": "0.1.0",
        "CertificatePEM": (pki.bridge / "bridge.pem").read_text(),
    }
    assert plugins == [
        {
            "ID": "fake",
            "Healthy": True,
            "HealthDescription": "",
            "Provider": "fake.csi.moorage",
            "ProviderVersion": "7",
            "ControllerCapabilities": ["CREATE_DELETE_VOLUME"],
            "NodeCapabilities": ["STAGE_UNSTAGE_VOLUME"],
            "PluginCapabilities": ["CONTROLLER_SERVICE"],
            "Controller": True,
            "Node": True,
            "NodeInfo": {"ID": "ext-1", "MaxVolumes": 8, "AccessibleTopology": {"Segments": {"zone": "a"}}},
            "Serialize": "",
        }
    ]


def test_settings_of_a_plugin_are_registered(settings: Settings, control_plane: ControlPlane) -> None:
    chosen = replace(settings.plugins[0], serialize="node", deadlines={"CreateVolume": 9}, grace_seconds=4)
    with running(replace(settings, plugins=(chosen,))):
        eventually(control_plane.puts)
    plugin = control_plane.puts()[0].body["Plugins"][0]
    assert (plugin["Serialize"], plugin["DeadlineSeconds"], plugin["GraceSeconds"]) == ("node", {"CreateVolume": 9}, 4)


@pytest.mark.parametrize(
    ("half", "rpcs"), [("Node", ["ControllerGetCapabilities"]), ("Controller", ["NodeGetCapabilities", "NodeGetInfo"])]
)
def test_half_of_a_plugin_is_healthy_without_the_other(
    settings: Settings, control_plane: ControlPlane, plugin: FakePlugin, half: str, rpcs: list[str]
) -> None:
    """Controllers and nodes may be processes of their own, each of which names the whole plugin's services."""

    def refuse(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "not in this process")

    plugin.handlers |= dict.fromkeys(rpcs, refuse)
    with running(settings):
        eventually(control_plane.puts)
    said = control_plane.puts()[0].body["Plugins"][0]
    assert {name: said[name] for name in ("Healthy", "Controller", "Node")} == {
        "Healthy": True,
        "Controller": half == "Controller",
        "Node": half == "Node",
    }
    assert said["PluginCapabilities"] == ["CONTROLLER_SERVICE"]


def test_heartbeats_come_as_asked_with_growing_sequence_of_one_instance(
    bridge: Bridge, control_plane: ControlPlane
) -> None:
    eventually(lambda: len(control_plane.puts()) >= 3)
    bodies = [message.body for message in control_plane.puts()]
    assert [body["Sequence"] for body in bodies] == list(range(1, len(bodies) + 1))
    assert len({body["InstanceID"] for body in bodies}) == 1


def test_restart_is_another_instance_of_the_same_node(settings: Settings, control_plane: ControlPlane) -> None:
    def enough(wanted: int) -> bool:
        return len({message.body["InstanceID"] for message in control_plane.puts()}) == wanted

    wanted = 0
    for _ in range(2):
        with running(settings):
            wanted += 1
            eventually(partial(enough, wanted))
    bodies = [message.body for message in control_plane.puts()]
    assert {body["NodeID"] for body in bodies} == {"n1"}
    assert len({body["InstanceID"] for body in bodies}) == 2


def test_plugin_that_dies_and_returns_is_told_at_once(
    settings: Settings, control_plane: ControlPlane, plugin: FakePlugin
) -> None:
    """Neither the next heartbeat nor the next look at the plugin is waited for: both are ten minutes away."""
    control_plane.usual["HeartbeatSeconds"] = 600
    with running(replace(settings, probe_seconds=600)):
        eventually(lambda: control_plane.last_plugin("fake").get("Healthy"))
        plugin.stop()
        eventually(lambda: control_plane.last_plugin("fake").get("Healthy") is False)
        gone = control_plane.last_plugin("fake")
        assert gone["Provider"] == "fake.csi.moorage"  # the last fingerprint stays
        assert "UNAVAILABLE" in gone["HealthDescription"]
        plugin.start()
        eventually(lambda: control_plane.last_plugin("fake")["Healthy"])


def test_plugin_that_says_it_is_not_ready_is_unhealthy(
    settings: Settings, control_plane: ControlPlane, plugin: FakePlugin
) -> None:
    plugin.ready = False
    with running(replace(settings, probe_seconds=0.2)):
        eventually(lambda: "not ready" in control_plane.last_plugin("fake").get("HealthDescription", ""))
        plugin.ready = True
        eventually(lambda: control_plane.last_plugin("fake")["Healthy"])


def test_plugin_that_never_answered_is_registered_unhealthy(
    settings: Settings, control_plane: ControlPlane, tmp_path: Path
) -> None:
    absent = PluginSettings("absent", f"unix://{tmp_path}/absent.sock")
    with running(replace(settings, plugins=(*settings.plugins, absent))):
        eventually(lambda: control_plane.last_plugin("absent"))
        assert control_plane.last_plugin("absent")["Healthy"] is False
        assert control_plane.last_plugin("fake")["Healthy"] is True


def test_control_plane_that_is_away_is_waited_out(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    with control_plane_at() as first:
        port = first.port
    with running(replace(settings, api=f"http://127.0.0.1:{port}")) as bridge:
        eventually(lambda: "not registered" in caplog.messages)
        with control_plane_at(port) as back:
            eventually(back.puts)
            eventually(bridge.registration.registered.is_set)


@pytest.mark.parametrize("answer", [(503, b"away"), (200, b"<html>"), (200, b"[]"), (409, b"another key holds n1")])
def test_bad_answers_are_survived(settings: Settings, control_plane: ControlPlane, answer: tuple[int, bytes]) -> None:
    control_plane.answers.put(answer)
    with running(settings) as bridge:
        eventually(control_plane.puts)
        bridge.registration.changed()  # a person mended it: do not wait for the pause
        eventually(bridge.registration.registered.is_set)


def test_serial_that_the_control_plane_refuses_can_call_no_more(
    bridge: Bridge, control_plane: ControlPlane, plugin: FakePlugin, worker: Worker, pki: Pki
) -> None:
    plugin.handlers["DeleteVolume"] = lambda *_: b""
    worker.call("DeleteVolume")
    control_plane.usual["Refused"] = [Certificate.read(pki.worker / "worker.pem").serial.upper()]

    def is_refused() -> bool:
        try:
            worker.call("DeleteVolume")
        except grpc.RpcError as exc:
            return "refused serials" in str(exc)
        return False

    eventually(is_refused)
    control_plane.usual["Refused"] = []
    eventually(lambda: not is_refused())


def test_orderly_stop_deregisters_after_the_calls_in_flight(
    settings: Settings, control_plane: ControlPlane, plugin: FakePlugin, pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def slow(*_: object) -> bytes:
        eventually(lambda: "stopping" in caplog.messages)
        return b"done"

    plugin.handlers["CreateVolume"] = slow
    with ThreadPoolExecutor() as pool:
        with running(settings) as bridge:
            worker = worker_at(bridge.address, pki.client())
            eventually(control_plane.puts)
            answer = pool.submit(worker.call, "CreateVolume")
            eventually(lambda: plugin.called("CreateVolume"))
        assert answer.result()[0] == b"done"
        worker.channel.close()
    last, before = control_plane.messages[-1], control_plane.puts()[-1]
    assert last.method == "DELETE"
    assert last.body["InstanceID"] == before.body["InstanceID"]
    assert last.body["Sequence"] > before.body["Sequence"], "no client may repeat the message later"


def test_state_folder_keeps_the_node_and_refuses_another(settings: Settings, tmp_path: Path, pki: Pki) -> None:
    with running(settings):
        assert (settings.state / "node-id").read_text() == "n1\n"
        with pytest.raises(BadSetting, match="another bridge runs on"), running(replace(settings)):
            pass
    other = certificates.issue_bridge(pki.ca, "n2", tmp_path / "other", days=1, now=NOW)
    assert other.node_id == "n2"
    with pytest.raises(BadSetting, match="belongs to node n1"), running(replace(settings, certs=tmp_path / "other")):
        pass
