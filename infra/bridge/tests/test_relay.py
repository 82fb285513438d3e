"""Calls through a real bridge with mutual TLS, to a plugin on a socket."""

import threading
import time
from typing import Any

import grpc
import pytest

from infra.bridge.tests.parts import WITHIN, FakePlugin, Worker, eventually

pytestmark = pytest.mark.enable_socket
BYTES = b"\x0a\x03abc\x99\x06\x00\xff\xfe not even protobuf \x00"


def test_bytes_pass_unchanged_in_both_directions(plugin: FakePlugin, worker: Worker) -> None:
    plugin.handlers["CreateVolume"] = lambda request, _: request[::-1]
    response, _ = worker.call("CreateVolume", BYTES)
    assert response == BYTES[::-1]
    assert plugin.called("CreateVolume")[0].request == BYTES


def test_five_megabytes_pass(plugin: FakePlugin, worker: Worker) -> None:
    plugin.handlers["CreateVolume"] = lambda request, _: request
    large = b"x" * (5 << 20)
    assert worker.call("CreateVolume", large)[0] == large


def test_metadata_passes_but_ours_and_the_transports(plugin: FakePlugin, worker: Worker) -> None:
    plugin.handlers["CreateVolume"] = lambda *_: b""
    worker.call("CreateVolume", x_custom="1", x_raw_bin=b"\x00\xff", moorage_operation="op", moorage_attempt="3")
    seen = plugin.called("CreateVolume")[0].metadata
    assert seen["x-custom"] == "1"
    assert seen["x-raw-bin"] == b"\x00\xff"
    assert [key for key in seen if key.startswith("moorage-")] == []


def test_initial_and_trailing_metadata_come_back(plugin: FakePlugin, worker: Worker) -> None:
    def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.send_initial_metadata((("x-initial", "i"),))
        context.set_trailing_metadata((("x-trailing-bin", b"\x00t"),))
        return b""

    plugin.handlers["CreateVolume"] = answer
    _, call = worker.call("CreateVolume")
    assert ("x-initial", "i") in [tuple(one) for one in call.initial_metadata()]
    assert ("x-trailing-bin", b"\x00t") in [tuple(one) for one in call.trailing_metadata()]


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_passes_with_its_text_and_details(
    plugin: FakePlugin, worker: Worker, code: grpc.StatusCode
) -> None:
    def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\x08\x05"), ("x-why", "this")))
        context.abort(code, "vo\u00fclume \u00e9 is gone")

    plugin.handlers["DeleteVolume"] = answer
    error = worker.refused("DeleteVolume")
    assert (error.code(), error.details()) == (code, "vo\u00fclume \u00e9 is gone")
    trailing = dict(error.trailing_metadata())
    assert trailing["x-why"] == "this"
    assert trailing["grpc-status-details-bin"] == b"\x08\x05"
    assert "moorage-refused" not in trailing


def test_deadline_reaches_the_plugin(plugin: FakePlugin, worker: Worker) -> None:
    plugin.handlers["CreateVolume"] = lambda *_: b""
    worker.call("CreateVolume", seconds=20.0)
    remaining = plugin.called("CreateVolume")[0].remaining
    assert remaining is not None
    assert 15 < remaining < 20.5


def test_deadline_that_passes_ends_the_call_on_both_sides(plugin: FakePlugin, worker: Worker) -> None:
    ended = threading.Event()

    def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.add_callback(ended.set)
        ended.wait(2 * WITHIN)
        return b""

    plugin.handlers["CreateVolume"] = answer
    assert worker.refused("CreateVolume", seconds=0.3).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert ended.wait(WITHIN)


def test_cancelling_reaches_the_plugin(plugin: FakePlugin, worker: Worker) -> None:
    began, ended = threading.Event(), threading.Event()

    def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.add_callback(ended.set)
        began.set()
        ended.wait(2 * WITHIN)
        return b""

    plugin.handlers["CreateVolume"] = answer
    call = worker.channel.unary_unary("/csi.v1.Controller/CreateVolume").future(
        b"", timeout=2 * WITHIN, metadata=worker.metadata()
    )
    assert began.wait(WITHIN)
    call.cancel()
    assert ended.wait(WITHIN)


def test_stream_arrives_item_by_item_and_its_end_too(plugin: FakePlugin, worker: Worker) -> None:
    go_on = threading.Event()

    def answer(request: bytes, context: grpc.ServicerContext) -> Any:
        yield b"1" + request
        assert go_on.wait(WITHIN)
        yield b"2"
        context.set_trailing_metadata((("x-end", "e"),))

    plugin.handlers["GetMetadataAllocated"] = answer
    stream = worker.stream("GetMetadataAllocated", b"r")
    assert next(stream) == b"1r"
    go_on.set()
    assert list(stream) == [b"2"]
    assert ("x-end", "e") in [tuple(one) for one in stream.trailing_metadata()]


def test_stream_that_is_cancelled_ends_at_the_plugin(plugin: FakePlugin, worker: Worker) -> None:
    ended = threading.Event()

    def answer(_: bytes, context: grpc.ServicerContext) -> Any:
        context.add_callback(ended.set)
        while context.is_active():
            yield b"more"
            time.sleep(0.01)

    plugin.handlers["GetMetadataDelta"] = answer
    stream = worker.stream("GetMetadataDelta", b"")
    assert next(stream) == b"more"
    stream.cancel()
    assert ended.wait(WITHIN)


def test_error_in_the_midst_of_a_stream_passes(plugin: FakePlugin, worker: Worker) -> None:
    def answer(_: bytes, context: grpc.ServicerContext) -> Any:
        yield b"1"
        context.abort(grpc.StatusCode.OUT_OF_RANGE, "beyond the end")

    plugin.handlers["GetMetadataDelta"] = answer
    stream = worker.stream("GetMetadataDelta", b"")
    assert next(stream) == b"1"
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE


def test_method_that_csi_has_yet_to_name_is_forwarded(plugin: FakePlugin, worker: Worker) -> None:
    plugin.handlers["ControllerTeleportVolume"] = lambda request, _: request
    assert worker.call("ControllerTeleportVolume", b"x")[0] == b"x"


@pytest.mark.parametrize("method", ["/grpc.health.v1.Health/Check", "/csi.v2.Identity/Probe", "/csi.v1", "/x/y"])
def test_other_services_are_not_forwarded(plugin: FakePlugin, worker: Worker, method: str) -> None:
    plugin.handlers[method.rpartition("/")[2]] = lambda *_: b""
    with pytest.raises(grpc.RpcError) as caught:
        worker.channel.unary_unary(method)(b"", timeout=5, metadata=worker.metadata())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert [call for call in plugin.calls if call.method == method] == []


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"moorage_plugin": "other"}, "it has fake"),
        ({"moorage_plugin": ""}, 'no plugin ""'),
        ({"moorage_protocol": "3"}, "speaks protocol 1, the call 3: update"),
        ({"moorage_protocol": ""}, "speaks protocol 1, the call none: update"),
        ({"moorage_protocol": "0"}, "speaks protocol 1, the call 0: update"),
        ({"moorage_protocol": "one"}, "speaks protocol 1, the call one: update"),
        ({"moorage_operation": "o"}, "belong together"),
        ({"moorage_attempt": "1"}, "belong together"),
        ({"moorage_operation": "o", "moorage_attempt": "-1"}, "belong together"),
        ({"moorage_operation": "o", "moorage_attempt": "9" * 4000}, "belong together"),
    ],
)
def test_call_that_says_too_little_is_refused_in_doubt(
    plugin: FakePlugin, worker: Worker, metadata: dict[str, str], words: str
) -> None:
    plugin.handlers["DeleteVolume"] = lambda *_: b""
    error = worker.refused("DeleteVolume", **metadata)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert words in error.details()
    assert dict(error.trailing_metadata())["moorage-refused"] == "1"
    assert plugin.called("DeleteVolume") == []


def test_lower_attempt_of_an_operation_is_refused_and_never_forwarded(plugin: FakePlugin, worker: Worker) -> None:
    plugin.handlers["DeleteVolume"] = lambda *_: b""
    worker.call("DeleteVolume", moorage_operation="a", moorage_attempt="2")
    worker.call("DeleteVolume", moorage_operation="a", moorage_attempt="2")
    worker.call("DeleteVolume", moorage_operation="b", moorage_attempt="1")
    error = worker.refused("DeleteVolume", moorage_operation="a", moorage_attempt="1")
    assert error.code() is grpc.StatusCode.ABORTED
    assert dict(error.trailing_metadata())["moorage-refused"] == "1"
    assert len(plugin.called("DeleteVolume")) == 3


def test_plugin_that_is_away_is_unavailable_and_back_again(plugin: FakePlugin, worker: Worker) -> None:
    plugin.handlers["DeleteVolume"] = lambda *_: b""
    plugin.stop()
    assert worker.refused("DeleteVolume", seconds=2.0).code() is grpc.StatusCode.UNAVAILABLE
    plugin.start()

    def answers() -> bool:
        try:
            worker.call("DeleteVolume", seconds=2.0)
        except grpc.RpcError:
            return False
        return True

    eventually(answers)
