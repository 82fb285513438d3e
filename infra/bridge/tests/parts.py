"""Real parts for the bridge's tests: certificates, a plugin on a unix socket, a control plane on loopback, a bridge."""

import asyncio
import base64
import datetime as dt
import hashlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from moorage import certificates
from moorage.bridge.run import Bridge
from moorage.bridge.settings import Settings
from moorage.spec import csi_pb2 as csi

NOW = dt.datetime.now(dt.UTC)
WITHIN = 15.0


def eventually(condition: Callable[[], object], within: float = WITHIN) -> None:
    """Wait until `condition` holds, and fail after `within` seconds."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, f"did not become true in {within} s"
        time.sleep(0.01)


@dataclass(frozen=True)
class Pki:
    """A CA and what it issued."""

    ca: Path
    bridge: Path
    worker: Path

    def client(
        self, folder: Path | None = None, *, role: str = "worker", ca: Path | None = None
    ) -> grpc.ChannelCredentials:
        folder = folder or self.worker
        return grpc.ssl_channel_credentials(
            ((ca or self.ca) / "ca.pem").read_bytes(),
            (folder / f"{role}-key.pem").read_bytes(),
            (folder / f"{role}.pem").read_bytes(),
        )


def make_pki(folder: Path) -> Pki:
    pki = Pki(folder / "ca", folder / "bridge", folder / "worker")
    certificates.make_ca(pki.ca, days=3650, now=NOW)
    certificates.issue_bridge(pki.ca, "n1", pki.bridge, days=10, now=NOW)
    certificates.issue_worker(pki.ca, pki.worker, days=10, now=NOW)
    return pki


Handler = Callable[[bytes, grpc.ServicerContext], Any]


@dataclass
class Call:
    """One call as the plugin got it."""

    method: str
    request: bytes
    metadata: dict[str, str | bytes]
    remaining: float | None


class FakePlugin(grpc.GenericRpcHandler):
    """A plugin on a unix socket that answers with what a test put into `handlers`, and remembers its calls."""

    def __init__(self, socket: Path) -> None:
        self.target = f"unix://{socket}"
        self.handlers: dict[str, Handler] = {}
        self.calls: list[Call] = []
        self.info = csi.GetPluginInfoResponse(name="fake.csi.moorage", vendor_version="7")
        self.ready = True
        self._server: grpc.Server | None = None

    def start(self) -> Self:
        self._server = grpc.server(ThreadPoolExecutor(16), options=(("grpc.max_receive_message_length", -1),))
        self._server.add_generic_rpc_handlers((self,))
        self._server.add_insecure_port(self.target)
        self._server.start()
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(0).wait()

    def called(self, rpc: str) -> list[Call]:
        return [call for call in self.calls if call.method.endswith(f"/{rpc}")]

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method
        handler = self.handlers.get(method.rpartition("/")[2]) or self._own(method)
        if handler is None:
            return None

        def note(request: bytes, context: grpc.ServicerContext) -> Any:
            metadata = dict(context.invocation_metadata())
            self.calls.append(Call(method, request, metadata, context.time_remaining()))
            return handler(request, context)

        if method.endswith(("GetMetadataAllocated", "GetMetadataDelta")):
            return grpc.unary_stream_rpc_method_handler(note)
        return grpc.unary_unary_rpc_method_handler(note)

    def _own(self, method: str) -> Handler | None:
        service = csi.PluginCapability.Service
        rpc = csi.ControllerServiceCapability.RPC
        node = csi.NodeServiceCapability.RPC
        answers = {
            "GetPluginInfo": self.info,
            "GetPluginCapabilities": csi.GetPluginCapabilitiesResponse(
                capabilities=[csi.PluginCapability(service=service(type=service.CONTROLLER_SERVICE))]
            ),
            "ControllerGetCapabilities": csi.ControllerGetCapabilitiesResponse(
                capabilities=[csi.ControllerServiceCapability(rpc=rpc(type=rpc.CREATE_DELETE_VOLUME))]
            ),
            "NodeGetCapabilities": csi.NodeGetCapabilitiesResponse(
                capabilities=[csi.NodeServiceCapability(rpc=node(type=node.STAGE_UNSTAGE_VOLUME))]
            ),
            "NodeGetInfo": csi.NodeGetInfoResponse(
                node_id="ext-1", max_volumes_per_node=8, accessible_topology=csi.Topology(segments={"zone": "a"})
            ),
        }
        name = method.rpartition("/")[2]
        if name == "Probe":
            return lambda *_: csi.ProbeResponse(ready={"value": self.ready}).SerializeToString()
        found = answers.get(name)
        return None if found is None else lambda *_: found.SerializeToString()


@dataclass
class Message:
    """One request to the control plane, its signature already checked."""

    method: str
    path: str
    body: dict[str, Any]


@dataclass
class ControlPlane:
    """Takes registrations on loopback, and checks the signature of each with the certificate that was registered."""

    messages: list[Message] = field(default_factory=list)
    answers: "queue.Queue[tuple[int, bytes]]" = field(default_factory=queue.Queue)
    usual: dict[str, Any] = field(
        default_factory=lambda: {"Protocol": 1, "HeartbeatSeconds": 1, "Refused": [], "Index": 5}
    )
    key: Any = None
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def puts(self) -> list[Message]:
        return [message for message in self.messages if message.method == "PUT"]

    def last_plugin(self, plugin_id: str) -> dict[str, Any]:
        plugins: list[dict[str, Any]] = self.puts()[-1].body["Plugins"] if self.puts() else []
        return next((one for one in plugins if one["ID"] == plugin_id), {})

    def take(self, request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        decoded = json.loads(body) if body else {}
        if request.command == "PUT":
            self.key = x509.load_pem_x509_certificate(decoded["CertificatePEM"].encode()).public_key()
        scheme, encoded = request.headers["X-Moorage-Signature"].split(" ")
        assert scheme == "v1"
        signed = f"{request.command}\n{request.path}\n{hashlib.sha256(body).hexdigest()}".encode()
        self.key.verify(base64.b64decode(encoded), signed, ec.ECDSA(hashes.SHA256()))
        self.messages.append(Message(request.command, request.path, decoded))
        try:
            return self.answers.get_nowait()
        except queue.Empty:
            return 200, json.dumps(self.usual).encode()


@contextmanager
def control_plane_at(port: int = 0) -> Iterator[ControlPlane]:
    plane = ControlPlane()

    class Taker(BaseHTTPRequestHandler):
        def _take(self) -> None:
            status, body = plane.take(self)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_DELETE = _take  # noqa: N815 - the names that http.server asks for

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server names it so
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Taker)
    plane.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield plane
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def running(settings: Settings) -> Iterator[Bridge]:
    """A bridge in this process, on a loop in a thread of its own."""
    started: queue.Queue[Bridge | Exception] = queue.Queue()
    stop: list[Callable[[], object]] = []

    async def run() -> None:
        try:
            bridge = await Bridge.start(settings)
        except Exception as exc:  # noqa: BLE001 - raised again where the test waits
            started.put(exc)
            return
        event = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(event.set))
        started.put(bridge)
        await bridge.run(event)

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    bridge = started.get(timeout=WITHIN)
    if isinstance(bridge, Exception):
        raise bridge
    yield bridge
    stop[0]()
    thread.join(WITHIN)
    assert not thread.is_alive()


@dataclass
class Worker:
    """A channel with the worker's certificate, and calls over it as bytes."""

    channel: Any  # grpc.Channel, whose type stubs do not know calls of plain bytes

    def call(
        self,
        rpc: str,
        request: bytes = b"",
        *,
        service: str = "Controller",
        seconds: float = 5.0,
        **metadata: str | bytes,
    ) -> tuple[bytes, Any]:
        """Call, and return response and call. Keywords become metadata, `_` in their names `-`."""
        response, call = self.channel.unary_unary(f"/csi.v1.{service}/{rpc}").with_call(
            request, timeout=seconds, metadata=self.metadata(**metadata)
        )
        return response, call

    def refused(self, rpc: str, **arguments: Any) -> Any:
        """The error of a call that has to fail."""
        with pytest.raises(grpc.RpcError) as caught:
            self.call(rpc, **arguments)
        return caught.value

    def stream(self, rpc: str, request: bytes = b"") -> Any:
        """A call of the SnapshotMetadata service, whose answers are streams."""
        return self.channel.unary_stream(f"/csi.v1.SnapshotMetadata/{rpc}")(
            request, timeout=10, metadata=self.metadata()
        )

    @staticmethod
    def metadata(**more: str | bytes) -> tuple[tuple[str, str | bytes], ...]:
        usual: dict[str, str | bytes] = {"moorage_plugin": "fake", "moorage_protocol": "1"}
        return tuple((key.replace("_", "-"), value) for key, value in (usual | more).items() if value)


def worker_at(address: str, credentials: grpc.ChannelCredentials, node_id: str = "n1") -> Worker:
    name = ("grpc.ssl_target_name_override", f"{node_id}.bridge.moorage")
    return Worker(grpc.secure_channel(address, credentials, options=(name, ("grpc.max_receive_message_length", -1))))
