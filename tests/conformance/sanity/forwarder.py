"""From a plain unix socket to a bridge: csi-sanity can neither show a certificate nor name a plugin, so this does."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc

from moorage.spec import csi_pb2 as csi

WORKERS = 16
LONGEST_SECONDS = 300.0
"""gRPC gives a call without a deadline one in a distant year, and takes none that far away."""


UNDO = {"NodeStageVolume": "NodeUnstageVolume", "NodePublishVolume": "NodeUnpublishVolume"}


class Forwarder(grpc.GenericRpcHandler):
    """Hands unary calls on as bytes, with the worker's metadata, and counts them.

    A stage or publish that fails is undone, as the worker does. csi-sanity leaves that out, and uses the path for
    another volume next, which the bridge refuses.
    """

    def __init__(self, channel: grpc.Channel, plugin_id: str) -> None:
        self._channel: Any = channel  # whose type stubs do not know calls of plain bytes
        self._metadata = (("moorage-plugin", plugin_id), ("moorage-protocol", "1"))
        self.calls = 0
        self._done: set[tuple[str, bytes]] = set()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method

        def forward(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.calls += 1
            seconds = min(context.time_remaining(), LONGEST_SECONDS)
            try:
                answer: bytes = self._channel.unary_unary(method)(request, timeout=seconds, metadata=self._metadata)
            except grpc.RpcError as exc:
                self._undo(method, request)
                context.abort(exc.code(), exc.details() or "")
            self._done.add(_what(method, request))
            return answer

        return grpc.unary_unary_rpc_method_handler(forward)

    def _undo(self, method: str, request: bytes) -> None:
        service, _, rpc = method.rpartition("/")
        what = _what(method, request)
        if rpc not in UNDO or what in self._done:
            return
        with suppress(grpc.RpcError):
            undo = self._channel.unary_unary(f"{service}/{UNDO[rpc]}")
            undo(what[1], timeout=LONGEST_SECONDS, metadata=self._metadata)


def _what(method: str, request: bytes) -> tuple[str, bytes]:
    """Return an RPC, and the request that undoes it if it is a stage or publish."""
    rpc = method.rpartition("/")[2]
    if rpc == "NodeStageVolume":
        stage = csi.NodeStageVolumeRequest.FromString(request)
        undo: Any = csi.NodeUnstageVolumeRequest(
            volume_id=stage.volume_id, staging_target_path=stage.staging_target_path
        )
    elif rpc == "NodePublishVolume":
        publish = csi.NodePublishVolumeRequest.FromString(request)
        undo = csi.NodeUnpublishVolumeRequest(volume_id=publish.volume_id, target_path=publish.target_path)
    else:
        return rpc, request
    return rpc, undo.SerializeToString()


@contextmanager
def forwarding(socket: Path, channel: grpc.Channel, plugin_id: str) -> Iterator[Forwarder]:
    """Listen on `socket` and forward to `channel`, a bridge's, while the context lasts."""
    forwarder = Forwarder(channel, plugin_id)
    server = grpc.server(ThreadPoolExecutor(WORKERS))
    server.add_generic_rpc_handlers((forwarder,))
    server.add_insecure_port(f"unix://{socket}")
    server.start()
    yield forwarder
    server.stop(grace=1).wait()
