"""Serve the services on a socket: one generic handler per RPC of csi.proto, with faults and log lines around each."""

import json
import logging
import re
import stat
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from moorage.spec import csi_pb2 as csi
from moorage_devplugin.faults import Faults
from moorage_devplugin.refusal import Refused
from moorage_devplugin.vault import Unusable

THREADS: Final = 32
LONGEST_SOCKET: Final = 100
LARGEST_MESSAGE: Final = 16 << 20
Rpc = Callable[[Any], Message]
log: Final = logging.getLogger("moorage_devplugin")


class JsonLines(logging.Formatter):
    """Format a record as one line of JSON. Of a request, it has only the fields in FIELDS."""

    FIELDS: Final = ("rpc", "code", "milliseconds", "volume", "text", "id", "was", "endpoint", "root")

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in self.FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_to_stderr(level: str) -> None:
    """Write structured log lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def serve(endpoint: str, services: Mapping[str, tuple[object, ...]], faults: Faults) -> grpc.Server:
    """Serve `services`, each name in csi.proto with its implementations. Raises Unusable for a bad endpoint."""
    server = grpc.server(
        ThreadPoolExecutor(THREADS, thread_name_prefix="rpc"),
        options=(
            ("grpc.max_receive_message_length", LARGEST_MESSAGE),
            ("grpc.max_send_message_length", LARGEST_MESSAGE),
            ("grpc.so_reuseport", 0),
        ),
    )
    for name, implementations in services.items():
        server.add_generic_rpc_handlers((_handlers(name, implementations, faults),))
    try:
        server.add_insecure_port(_free_endpoint(endpoint))
    except RuntimeError as exc:
        raise Unusable(f"{endpoint} cannot be listened on: {exc}") from exc
    server.start()
    return server


def _free_endpoint(endpoint: str) -> str:
    """Remove a socket that a dead process left, and return the endpoint. Raises Unusable."""
    scheme, _, rest = endpoint.partition("://")
    if scheme != "unix" or not rest.startswith("/"):
        raise Unusable(f"{endpoint} is no endpoint: write unix:///absolute/path")
    path = Path(rest)
    if len(rest.encode()) > LONGEST_SOCKET:
        raise Unusable(f"the path {rest} is too long for a socket: choose one of at most {LONGEST_SOCKET} bytes")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not stat.S_ISSOCK(path.lstat().st_mode):
        raise Unusable(f"{rest} is in the way and no socket: move it away, or choose another --endpoint")
    path.unlink(missing_ok=True)
    return endpoint


def _handlers(service: str, implementations: tuple[object, ...], faults: Faults) -> grpc.GenericRpcHandler:
    methods = {}
    for method in csi.DESCRIPTOR.services_by_name[service].methods:
        name = snake(method.name)
        rpc: Rpc | None = next((getattr(one, name) for one in implementations if hasattr(one, name)), None)
        if rpc is not None:
            methods[method.name] = grpc.unary_unary_rpc_method_handler(
                _handler(method.name, rpc, faults),
                request_deserializer=GetMessageClass(method.input_type).FromString,
                response_serializer=GetMessageClass(method.output_type).SerializeToString,
            )
    return grpc.method_handlers_generic_handler(f"csi.v1.{service}", methods)


def _handler(name: str, rpc: Rpc, faults: Faults) -> Callable[[Any, grpc.ServicerContext], Message]:
    def call(request: Any, context: grpc.ServicerContext) -> Message:
        started = time.monotonic()
        try:
            response = _call_with_faults(name, rpc, request, faults)
        except Refused as exc:
            _report(name, request, exc.code, started, exc.text)
            context.abort(exc.code, exc.text)
        _report(name, request, grpc.StatusCode.OK, started, "")
        return response

    return call


def _call_with_faults(name: str, rpc: Rpc, request: Any, faults: Faults) -> Message:
    """Call the RPC with its faults before and after. Every exception becomes Refused."""
    try:
        faults.strike(name, after=False)
        response = rpc(request)
        faults.strike(name, after=True)
    except Refused:
        raise
    except Exception as exc:  # the edge of the process: the caller and the log get it
        log.exception("failed", extra={"rpc": name})
        raise Refused(grpc.StatusCode.INTERNAL, f"{type(exc).__name__}: {exc}") from exc
    return response


def _report(name: str, request: Any, code: grpc.StatusCode, started: float, text: str) -> None:
    extra = {"rpc": name, "code": code.name, "milliseconds": round((time.monotonic() - started) * 1000, 1)}
    if text:
        extra["text"] = text
    volume = getattr(request, "volume_id", "")
    if volume:
        extra["volume"] = volume
    quiet = name in ("Probe", "GetPluginInfo", "GetPluginCapabilities") or name.endswith(("GetCapabilities", "GetInfo"))
    log.log(logging.DEBUG if quiet and not text else logging.INFO, "called", extra=extra)


def snake(name: str) -> str:
    """Return `create_volume` for `CreateVolume`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
