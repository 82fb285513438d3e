"""Forward calls byte for byte to the plugin that the metadata names (docs/interfaces.md, section 3).

A refusal by the bridge itself carries the trailing metadata `moorage-refused: 1` and says that nothing was forwarded.
Its code is one that the control plane never takes for the plugin's final answer. Only what the guard refuses for its
path is final: it proves that nothing was done.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import grpc

from moorage.bridge.admission import Admission
from moorage.bridge.fence import Fence
from moorage.bridge.guard import Call, Guard, NotBelieved, Passage
from moorage.bridge.refusal import Refusal
from moorage.spec import csi_pb2 as csi

LARGEST_MESSAGE: Final = 16 << 20
PROTOCOL: Final = 1
REFUSED: Final = (("moorage-refused", "1"),)
SERVICE_PREFIX: Final = "/csi.v1."
STREAMS: Final = frozenset(
    f"/{service.full_name}/{method.name}"
    for service in csi.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.server_streaming
)
"""Methods that answer with a stream. All others are unary, including those that a later CSI may add."""
_OURS: Final = ("moorage-", "grpc-", ":")
_TRANSPORT: Final = frozenset({"user-agent", "te", "content-type", "accept-encoding"})
_DETAILS: Final = "grpc-status-details-bin"
Metadata = tuple[tuple[str, str | bytes], ...]
Context = grpc.aio.ServicerContext[bytes, bytes]
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Route:
    """The way to one plugin."""

    plugin_id: str
    channel: grpc.aio.Channel
    trouble: Callable[[], None]
    """Called when the plugin's socket did not answer, so that its health is checked now."""


@dataclass
class Relay(grpc.GenericRpcHandler):
    """Serves every csi.v1 method."""

    routes: Mapping[str, Route]
    admission: Admission
    guard: Guard
    fence: Fence = field(default_factory=Fence)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        method = handler_call_details.method
        if not method.startswith(SERVICE_PREFIX):
            return None  # gRPC answers UNIMPLEMENTED
        if method in STREAMS:
            return grpc.unary_stream_rpc_method_handler(self._streamer(method))
        return grpc.unary_unary_rpc_method_handler(self._unary(method))

    def _unary(self, method: str) -> Callable[[bytes, Context], Awaitable[bytes]]:
        async def call(request: bytes, context: Context) -> bytes:
            call_log = _CallLog(method, context)
            try:
                route, metadata = self._find_route(call_log, context)
                self._check_time(call_log, context)  # a call that is too late leaves nothing in the journal
                async with self.guard.passing(Call(route.plugin_id, method, request, call_log.operation)) as passage:
                    remaining = self._check_time(call_log, context)
                    if passage.answered:
                        call_log.write("OK", "", message="answered")
                        return b""
                    multi: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = route.channel.unary_unary(method)
                    forward = multi(passage.request, timeout=remaining, metadata=grpc.aio.Metadata(*metadata))
                    return await self._answer(call_log, context, route, passage, forward)
            except Refusal as exc:
                await call_log.refuse(exc)

        return call

    async def _answer(
        self, call_log: "_CallLog", context: Context, route: Route, passage: Passage, forward: Any
    ) -> bytes:
        try:
            await _pass_initial(forward, context)
            response: bytes = await forward
            await self.guard.finish(passage, grpc.StatusCode.OK)
            context.set_trailing_metadata(strip_metadata(await forward.trailing_metadata()))
        except NotBelieved as exc:
            await call_log.fail(str(exc))
        except grpc.aio.AioRpcError as exc:
            try:
                await self.guard.finish(passage, exc.code())
            except NotBelieved as why:
                await call_log.fail(str(why))
            await call_log.pass_error(exc, route)
        except asyncio.CancelledError:
            call_log.write("CANCELLED", "")
            raise
        finally:
            forward.cancel()  # of no effect when it is over
        call_log.write("OK", "")
        return response

    def _streamer(self, method: str) -> Callable[[bytes, Context], AsyncIterator[bytes]]:
        async def call(request: bytes, context: Context) -> AsyncIterator[bytes]:
            call_log = _CallLog(method, context)
            try:
                route, metadata = self._find_route(call_log, context)
                remaining = self._check_time(call_log, context)
            except Refusal as exc:
                await call_log.refuse(exc)
            multi: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = route.channel.unary_stream(method)
            forward = multi(request, timeout=remaining, metadata=grpc.aio.Metadata(*metadata))
            try:
                await _pass_initial(forward, context)
                async for item in forward:
                    yield item
                context.set_trailing_metadata(strip_metadata(await forward.trailing_metadata()))
            except grpc.aio.AioRpcError as exc:
                await call_log.pass_error(exc, route)
            except asyncio.CancelledError:
                call_log.write("CANCELLED", "")
                raise
            finally:
                forward.cancel()  # of no effect when it is over
            call_log.write("OK", "")

        return call

    def _find_route(self, call_log: "_CallLog", context: Context) -> tuple[Route, Metadata]:
        """Check who calls and for which plugin, and return its route and the metadata to pass on. Raises Refusal."""
        metadata: Metadata = tuple(context.invocation_metadata() or ())
        ours = {key: _text(value) for key, value in metadata if key.startswith("moorage-")}
        call_log.operation, call_log.attempt = ours.get("moorage-operation", ""), ours.get("moorage-attempt", "")
        call_log.serial, reason = self.admission.reason_to_refuse(context.auth_context())
        if reason:
            raise Refusal(grpc.StatusCode.PERMISSION_DENIED, f"{reason}: this bridge takes calls from the worker only")
        if not understands(ours.get("moorage-protocol", "")):
            text = f"this bridge speaks protocol {PROTOCOL}, the call {ours.get('moorage-protocol') or 'none'}: update"
            raise Refusal(grpc.StatusCode.UNAVAILABLE, text)
        call_log.plugin = ours.get("moorage-plugin", "")
        route = self.routes.get(call_log.plugin)
        if route is None:
            known = ", ".join(sorted(self.routes)) or "none"
            text = f'no plugin "{call_log.plugin}" is behind this bridge: it has {known}'
            raise Refusal(grpc.StatusCode.UNAVAILABLE, text)
        return route, strip_metadata(metadata)

    def _check_time(self, call_log: "_CallLog", context: Context) -> float | None:
        """Check that the call is not too late, and return its remaining seconds. Raises Refusal.

        Nothing may wait between this and forwarding: else a later attempt could pass the fence in between.
        """
        remaining: float | None = context.time_remaining()  # None without a deadline, which the type stubs deny
        if remaining is not None and remaining <= 0:
            raise Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before the call was forwarded")
        self._check_attempt(call_log)
        return remaining

    def _check_attempt(self, call_log: "_CallLog") -> None:
        if not call_log.operation and not call_log.attempt:
            return
        if not call_log.operation or re.fullmatch("[0-9]{1,18}", call_log.attempt) is None:
            text = "moorage-operation and moorage-attempt belong together, and an attempt is a whole number"
            raise Refusal(grpc.StatusCode.UNAVAILABLE, text)
        later = self.fence.admit(call_log.operation, int(call_log.attempt))
        if later is not None:
            text = f"attempt {call_log.attempt} of operation {call_log.operation} is over: attempt {later} was seen"
            raise Refusal(grpc.StatusCode.ABORTED, text)


def understands(protocol: str) -> bool:
    """Return whether a worker of that protocol may call: this version, the one before, and the next, which knows it."""
    return re.fullmatch("[1-9][0-9]{0,8}", protocol) is not None and abs(int(protocol) - PROTOCOL) <= 1


def strip_metadata(metadata: Iterable[tuple[str, str | bytes]] | None) -> Metadata:
    """Return the metadata without our own keys and the transport's."""
    return tuple(
        (key, value)
        for key, value in metadata or ()
        if key == _DETAILS or not (key.startswith(_OURS) or key in _TRANSPORT)
    )


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


async def _pass_initial(forward: Any, context: Context) -> None:
    await context.send_initial_metadata(strip_metadata(await forward.initial_metadata()))


class _CallLog:
    """The log line about one call."""

    def __init__(self, method: str, context: Context) -> None:
        self.rpc = method.rpartition("/")[2]
        self.plugin = self.serial = self.operation = self.attempt = ""
        self._context = context
        self._started = time.monotonic()

    async def refuse(self, refusal: Refusal) -> NoReturn:
        self.write(refusal.code.name, refusal.text, message="refused")
        await self._context.abort(refusal.code, refusal.text, REFUSED)
        raise AssertionError("abort raises")

    async def pass_error(self, error: grpc.aio.AioRpcError, route: Route) -> NoReturn:
        code, text = error.code(), error.details() or ""
        if code is grpc.StatusCode.UNAVAILABLE:
            route.trouble()
        self.write(code.name, text)
        await self._context.abort(code, text, strip_metadata(error.trailing_metadata()))
        raise AssertionError("abort raises")

    async def fail(self, text: str) -> NoReturn:
        """Answer INTERNAL: the call was forwarded, and its answer is not believed."""
        self.write("INTERNAL", text)
        await self._context.abort(grpc.StatusCode.INTERNAL, text)
        raise AssertionError("abort raises")

    def write(self, code: str, text: str, message: str = "forwarded") -> None:
        extra = {"rpc": self.rpc, "code": code, "peer": self._context.peer()}
        extra["milliseconds"] = round((time.monotonic() - self._started) * 1000, 1)  # type: ignore[assignment]
        for name in ("plugin", "operation", "attempt"):
            if getattr(self, name):
                extra[name] = getattr(self, name)
        if message == "refused":
            extra |= {"reason": text, "serial": self.serial}
        log.log(logging.WARNING if message == "refused" else logging.INFO, message, extra=extra)
