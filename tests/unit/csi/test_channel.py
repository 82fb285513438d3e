"""One call as the worker makes it, against a plugin on a unix socket."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from chalicelib import tracing
from chalicelib.csi.calls import CsiCalls
from chalicelib.csi.channel import invoke
from chalicelib.csi.spec import csi_pb2 as csi
from chalicelib.domain.call import Attempt, CallOptions
from chalicelib.domain.plugin import Instance
from chalicelib.errors import PluginError, PluginRejected, PluginUnreachable
from tests.fakes.clock import FakeClock
from tests.plugin import SocketChannels

INSTANCE = Instance("p", "n", "127.0.0.1:1", True, controller=True)
FLAGS = csi.VolumeCapability(mount=csi.VolumeCapability.MountVolume(mount_flags=["noatime", "password=open sesame"]))


class Plugin(grpc.GenericRpcHandler):
    """Answers DeleteVolume with an error of these words."""

    def __init__(self) -> None:
        self.words = ""
        self.remaining: list[float] = []

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        def refuse(_: bytes, context: grpc.ServicerContext) -> bytes:
            self.remaining.append(context.time_remaining())
            context.abort(grpc.StatusCode.INTERNAL, self.words)

        return grpc.unary_unary_rpc_method_handler(refuse)


@pytest.fixture
def plugin() -> Plugin:
    return Plugin()


@pytest.fixture
def call(tmp_path: Path, plugin: Plugin) -> Iterator[Callable[..., Any]]:
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((plugin,))
    server.add_insecure_port(f"unix://{tmp_path}/p.sock")
    server.start()
    clock = FakeClock()
    channels = SocketChannels(tmp_path / "p.sock", clock.monotonic)

    def send(request: Any, seconds: float = 10.0, attempt: Attempt | None = None) -> Any:
        options = CallOptions(clock.monotonic() + seconds, attempt=attempt)
        return invoke(channels, INSTANCE, request, csi.DeleteVolumeResponse, options, service="Controller")

    yield send
    channels.close()
    server.stop(0).wait()


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("no such token: swordfish", "no such token: [REDACTED]"),
        ("user ab may not, swordfish, open sesame", "user ab may not, [REDACTED], [REDACTED]"),
        ("operation error EC2: DetachVolume, StatusCode: 400, RequestID: 404fbe2a-11e7-4f0d", None),
        ("request id 0123456789abcdef: denied", "request id [REDACTED]: denied"),
        ("the request identified a volume", "the request identified a volume"),
        ("volume vol-0123 is busy", "volume vol-0123 is busy"),
    ],
)
def test_what_a_plugin_says_is_shown_without_secrets_and_request_ids(
    call: Callable[..., Any], plugin: Plugin, words: str, shown: str | None
) -> None:
    plugin.words = words
    request = csi.ControllerPublishVolumeRequest(
        volume_id="v", secrets={"token": "swordfish", "user": "ab"}, volume_capability=FLAGS
    )
    with pytest.raises(PluginRejected) as caught:
        call(request)
    said = "operation error EC2: DetachVolume, StatusCode: 400, RequestID [REDACTED]" if shown is None else shown
    assert caught.value.text == f"rpc error: code = Internal desc = {said}"


def test_a_call_has_what_is_left_of_its_time(call: Callable[..., Any], plugin: Plugin) -> None:
    with pytest.raises(PluginRejected):
        call(csi.DeleteVolumeRequest(), seconds=7.0)
    # gRPC rounds a deadline up on the wire.
    assert 5.0 < plugin.remaining[0] < 7.5
    for seconds in (0.0, -3.0):
        with pytest.raises(PluginUnreachable, match="time was over"):
            call(csi.DeleteVolumeRequest(), seconds=seconds)
    assert len(plugin.remaining) == 1


@pytest.mark.parametrize(
    ("deadlines", "most"), [({"ListVolumes": 3.0}, 3.0), ({"ListVolumes": 300.0}, 10.0), ({}, 10.0)]
)
def test_a_question_is_over_at_the_plugins_own_deadline_if_that_is_sooner(
    call: Callable[..., Any], plugin: Plugin, tmp_path: Path, deadlines: dict[str, float], most: float
) -> None:
    clock = FakeClock()
    channels = SocketChannels(tmp_path / "p.sock", clock.monotonic)
    instance = replace(INSTANCE, healthy=True, deadlines=deadlines)
    calls = CsiCalls(lambda _: [instance], lambda *_: instance, channels, clock.jitter)
    with pytest.raises(PluginError):
        calls.list_volumes("p", per_page=1, next_token="", call=CallOptions(clock.monotonic() + 10.0))
    channels.close()
    assert most - 2 < plugin.remaining[-1] < most + 1


@dataclass
class Recorder:
    """What X-Ray is told."""

    names: list[str] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def in_subsegment(self, name: str) -> Iterator["Recorder"]:
        self.names.append(name)
        yield self

    def put_annotation(self, key: str, value: str) -> None:
        self.annotations[key] = value


@pytest.mark.parametrize("attempt", [Attempt("o", 3), None])
def test_a_call_is_a_part_of_the_trace(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, attempt: Attempt | None
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(tracing, "_recorder", recorder)
    with pytest.raises(PluginRejected):
        call(csi.DeleteVolumeRequest(secrets={"token": "swordfish"}), attempt=attempt)
    assert recorder.names == ["DeleteVolume"]
    assert recorder.annotations == {"plugin_id": "p"} | ({"operation_id": "o"} if attempt else {})
