"""From a plain unix socket to a bridge: csi-sanity can neither show a certificate nor name a plugin, so this does."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

WORKERS = 16
LONGEST_SECONDS = 300.0
"""gRPC gives a call without a deadline one in a distant year, and takes none that far away."""


class Forwarder(grpc.GenericRpcHandler):
    """Hands unary calls on as bytes, with the worker's metadata, and counts them."""

    def __init__(self, channel: grpc.Channel, plugin_id: str) -> None:
        self._channel: Any = channel  # whose type stubs do not know calls of plain bytes
        self._metadata = (("moorage-plugin", plugin_id), ("moorage-protocol", "1"))
        self.calls = 0

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method

        def forward(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.calls += 1
            seconds = min(context.time_remaining(), LONGEST_SECONDS)
            try:
                answer: bytes = self._channel.unary_unary(method)(request, timeout=seconds, metadata=self._metadata)
            except grpc.RpcError as exc:
                context.abort(exc.code(), exc.details() or "")
            return answer

        return grpc.unary_unary_rpc_method_handler(forward)


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
