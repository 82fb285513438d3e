"""Serve a FakeProvider as a CSI plugin, by gRPC on a unix socket.

A hook of the provider runs in a thread of the server. An exception of it that is no gRPC status, like a death, is kept
by the number of its call, and FakeChannels raises it in the caller's thread.
"""

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.wrappers_pb2 import BoolValue

from chalicelib.csi.channel import rpc_of
from chalicelib.csi.spec import csi_pb2 as csi
from chalicelib.domain.outcome import Outcome, outcome
from chalicelib.domain.plugin import Instance
from chalicelib.errors import PluginInDoubt, PluginRejected
from tests.fakes.provider import FakeProvider, snake

THREADS: Final = 32
NODE_ID: Final = "node"
"""The node of a call that does not name one."""
CONTROLLER: Final = (
    "CREATE_DELETE_VOLUME",
    "PUBLISH_UNPUBLISH_VOLUME",
    "LIST_VOLUMES",
    "CREATE_DELETE_SNAPSHOT",
    "LIST_SNAPSHOTS",
    "EXPAND_VOLUME",
)


def _capabilities() -> tuple[Message, ...]:
    """Return the answers to the calls that describe the plugin."""
    service, expansion = csi.PluginCapability.Service, csi.PluginCapability.VolumeExpansion
    controller, node = csi.ControllerServiceCapability, csi.NodeServiceCapability
    return (
        csi.GetPluginInfoResponse(name="fake.csi.moorage", vendor_version="1"),
        csi.GetPluginCapabilitiesResponse(
            capabilities=[
                csi.PluginCapability(service=service(type=service.CONTROLLER_SERVICE)),
                csi.PluginCapability(volume_expansion=expansion(type=expansion.ONLINE)),
            ]
        ),
        csi.ProbeResponse(ready=BoolValue(value=True)),
        csi.ControllerGetCapabilitiesResponse(
            capabilities=[controller(rpc=controller.RPC(type=getattr(controller.RPC, one))) for one in CONTROLLER]
        ),
        csi.NodeGetCapabilitiesResponse(capabilities=[node(rpc=node.RPC(type=node.RPC.STAGE_UNSTAGE_VOLUME))]),
        csi.NodeGetInfoResponse(node_id=NODE_ID),
    )


DESCRIPTION: Final = {answer.DESCRIPTOR.name.removesuffix("Response"): answer for answer in _capabilities()}


class CsiServer(grpc.GenericRpcHandler):
    """The services Identity, Controller and Node of one provider."""

    def __init__(self, provider: FakeProvider, path: Path) -> None:
        self._provider = provider
        self._raised: dict[str, BaseException] = {}
        self._methods = dict(self._handlers())
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="fake-plugin")
        self._server = grpc.server(self._threads, handlers=[self], options=(("grpc.so_reuseport", 0),))
        self._server.add_insecure_port(f"unix://{path}")
        self._server.start()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._methods.get(handler_call_details.method)

    def raised(self, call: str) -> BaseException | None:
        """Return the exception that a hook raised in this call, if it was no gRPC status."""
        return self._raised.pop(call, None)

    def stop(self) -> None:
        self._server.stop(None).wait()
        self._threads.shutdown()

    def _handlers(self) -> Iterator[tuple[str, Any]]:
        for service in csi.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                if method.name in DESCRIPTION or hasattr(self._provider, snake(method.name)):
                    yield (
                        f"/{service.full_name}/{method.name}",
                        grpc.unary_unary_rpc_method_handler(
                            self._answer,
                            request_deserializer=GetMessageClass(method.input_type).FromString,
                            response_serializer=GetMessageClass(method.output_type).SerializeToString,
                        ),
                    )

    def _answer(self, request: Message, context: grpc.ServicerContext) -> Message:  # noqa: RET503 - abort raises
        rpc, given = rpc_of(request), dict(context.invocation_metadata())
        if rpc in DESCRIPTION:
            return DESCRIPTION[rpc]
        attempt = (str(given.get("moorage-operation", "")), int(given.get("moorage-attempt", 0)))
        try:
            return self._provider.serve(request, node_id=str(given.get("fake-node", NODE_ID)), attempt=attempt)
        except BaseException as exc:  # noqa: BLE001 - a death, too, is raised where the call was made
            error = exc
        if isinstance(error, PluginRejected | PluginInDoubt):
            meaning = outcome(rpc, error.code)
            if isinstance(error, PluginInDoubt) is (meaning is Outcome.IN_DOUBT):
                context.abort(grpc.StatusCode[error.code], error.text)
            error = AssertionError(f"{error!r} has the code {error.code}, which is {meaning.value} after {rpc}")
        self._raised[str(given["fake-call"])] = error
        context.abort(grpc.StatusCode.UNKNOWN, "raised where the call was made")


class FakeChannels:
    """Channels to the server of one provider. The first call starts the server."""

    _numbers = itertools.count()

    def __init__(self, provider: FakeProvider, monotonic: Callable[[], float]) -> None:
        self._provider, self.monotonic = provider, monotonic
        self._opened: tuple[CsiServer, grpc.Channel, Path] | None = None

    def of(self, instance: Instance) -> Any:
        server, channel, _ = self._opened = self._opened or self._open()
        return _Channel(server, channel, instance.node_id)

    def forget(self) -> None:
        """Do nothing: there is no certificate to read again."""

    def close(self) -> None:
        """Stop the server. The next call starts another."""
        if self._opened is not None:
            server, channel, folder = self._opened
            self._opened = None
            channel.close()
            server.stop()
            shutil.rmtree(folder)

    def _open(self) -> tuple[CsiServer, grpc.Channel, Path]:
        folder = Path(tempfile.mkdtemp(prefix="fake-plugin-"))
        server = CsiServer(self._provider, folder / "csi.sock")
        return server, grpc.insecure_channel(f"unix://{folder}/csi.sock"), folder


@dataclass(frozen=True)
class _Channel:
    """The part of a grpc.Channel that the product uses."""

    server: CsiServer
    channel: grpc.Channel
    node_id: str

    def unary_unary(self, method: str, **serializers: Any) -> Callable[..., Any]:
        inner = self.channel.unary_unary(method, **serializers)

        def call(request: Message, *, timeout: float, metadata: tuple[tuple[str, str], ...]) -> Any:
            number = str(next(FakeChannels._numbers))
            told = (*metadata, ("fake-node", self.node_id), ("fake-call", number))
            try:
                return inner(request, timeout=timeout, metadata=told)
            except grpc.RpcError:
                raised = self.server.raised(number)
                if raised is None:
                    raise
            raise raised

        return call


@contextmanager
def serving(folder: Path) -> Iterator[Path]:
    """Serve a new provider, which has the one node NODE_ID; the socket."""
    server = CsiServer(FakeProvider(nodes=frozenset({NODE_ID}), makes_folders=True), folder / "csi.sock")
    try:
        yield folder / "csi.sock"
    finally:
        server.stop()
