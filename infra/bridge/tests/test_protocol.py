"""A bridge works with workers and control planes that are one protocol behind or ahead of it, and no further."""

import pytest

from infra.bridge.tests.parts import ControlPlane, FakePlugin, Pki, eventually, running, worker_at
from moorage.bridge import registration, relay
from moorage.bridge.settings import Settings

pytestmark = pytest.mark.enable_socket

OURS = 5


@pytest.fixture(autouse=True)
def _protocol_with_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "PROTOCOL", OURS)
    monkeypatch.setattr(registration, "PROTOCOL", OURS)


@pytest.mark.parametrize(("theirs", "served"), [(3, False), (4, True), (5, True), (6, True), (7, False)])
def test_calls_of_workers(
    settings: Settings, pki: Pki, plugin: FakePlugin, control_plane: ControlPlane, theirs: int, served: bool
) -> None:
    plugin.handlers["DeleteVolume"] = lambda *_: b"done"
    control_plane.usual["Protocol"] = OURS
    with running(settings) as bridge:
        worker = worker_at(bridge.address, pki.client())
        if served:
            assert worker.call("DeleteVolume", moorage_protocol=str(theirs))[0] == b"done"
        else:
            error = worker.refused("DeleteVolume", moorage_protocol=str(theirs))
            assert f"this bridge speaks protocol 5, the call {theirs}: update" in error.details()
            assert plugin.called("DeleteVolume") == []
        worker.channel.close()


@pytest.mark.parametrize(("theirs", "heard"), [(3, False), (4, True), (5, True), (6, True), (7, False)])
def test_answers_of_control_planes(
    settings: Settings,
    control_plane: ControlPlane,
    caplog: pytest.LogCaptureFixture,
    theirs: int,
    heard: bool,
) -> None:
    control_plane.usual["Protocol"] = theirs
    with caplog.at_level("INFO"), running(settings) as bridge:
        if heard:
            eventually(bridge.registration.registered.is_set)
        else:
            eventually(lambda: "not registered" in caplog.messages)
            assert not bridge.registration.registered.is_set()
    assert control_plane.puts()[0].body["Protocol"] == OURS
    reasons = [getattr(record, "reason", "") for record in caplog.records if record.message == "not registered"]
    wanted = f"the control plane speaks protocol {theirs}, this bridge 5: update the older of the two"
    assert reasons == ([] if heard else [wanted])


def test_the_first_protocol_has_none_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "PROTOCOL", 1)
    assert [theirs for theirs in ("", "0", "1", "2", "3", "-1", "1.0", "x") if relay.understands(theirs)] == ["1", "2"]
