"""Channels to bridges, and the one function that makes a call.

`invoke` sets the deadline, sends the attempt, records the trace, and raises each gRPC status as a PluginError. One
channel is kept per container and bridge. The certificate is read again after a minute and after UNAVAILABLE, since a
channel never learns of a new one by itself (docs/interfaces.md, section 3).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from chalicelib import tracing
from chalicelib.domain.call import CallOptions
from chalicelib.domain.outcome import GO_NAMES, Outcome, outcome
from chalicelib.domain.plugin import Instance
from chalicelib.errors import PluginError, PluginInDoubt, PluginRejected, PluginUnreachable

A = TypeVar("A", bound=Message)

REREAD_SECONDS: Final = 60
"""Seconds for which a certificate that was read is used."""
MESSAGE_LIMIT: Final = 16 * 1024 * 1024
CONNECT_SECONDS: Final = 5.0
SHORTEST_CALL: Final = 0.05
"""Seconds a call must have left to be sent."""
SHORTEST_SECRET: Final = 3
"""Characters a secret must have to be hidden: hiding a shorter one would hide half of the text."""
REDACTED: Final = "[REDACTED]"
_REQUEST_ID: Final = re.compile(r"(?i)\b(request[ _-]?id)\b[\s:=\"']*[0-9a-z][0-9a-z/+=-]{7,}[\"']?")
_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Despite its name, how long one try to connect may take, TLS included (gRPC core: min_connect_timeout).
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_SECONDS * 1000)),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.keepalive_time_ms", 30_000),
)


class Gone(PluginRejected):
    """The thing to be removed is not there, so nothing is left to do."""


@dataclass(frozen=True, slots=True)
class WorkerTls:
    """The worker's certificate and key, and the CA that signs the bridges' certificates, all in PEM."""

    ca: bytes
    certificate: bytes
    key: bytes
    serial: str
    refused: frozenset[str] = frozenset()
    """Serials (hexadecimal, lower case) of revoked certificates of bridges."""


class Channels(Protocol):
    """Opens channels to instances."""

    def of(self, instance: Instance) -> grpc.Channel:
        """Return the channel to an instance. Raises PluginUnreachable if there can be none."""

    def forget(self) -> None:
        """Read the certificate again before the next call, since an instance did not answer."""

    def monotonic(self) -> float:
        """Return the time that deadlines of calls are measured by, in seconds."""


class TlsChannels:
    """Channels with mutual TLS. The worker's certificate comes from `read_tls`."""

    def __init__(self, read_tls: Callable[[], WorkerTls | None], monotonic: Callable[[], float]) -> None:
        self._read_tls, self._monotonic = read_tls, monotonic
        self._tls: WorkerTls | None = None
        self._read_at = float("-inf")
        self._channels: dict[tuple[str, str, str], grpc.Channel] = {}

    def of(self, instance: Instance) -> grpc.Channel:
        tls = self._current_tls()
        if instance.serial in tls.refused:
            raise PluginUnreachable(
                f"the certificate of node {instance.node_id}'s bridge is on the list of refused serials: "
                "issue another with `moorage certs bridge`",
                code="UNAVAILABLE",
            )
        key = (instance.address, instance.node_id, tls.serial)
        channel = self._channels.get(key)
        if channel is None:
            # Others to this node have an older certificate of the worker, or an older address of the bridge.
            for old in [k for k in self._channels if k[1] == instance.node_id]:
                self._channels.pop(old).close()
            credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
            # The bridge's certificate names its node, not its address.
            name = ("grpc.ssl_target_name_override", f"{instance.node_id}.bridge.moorage")
            channel = grpc.secure_channel(instance.address, credentials, options=(*_OPTIONS, name))
            self._channels[key] = channel
        return channel

    def forget(self) -> None:
        self._read_at = float("-inf")

    def monotonic(self) -> float:
        return self._monotonic()

    def _current_tls(self) -> WorkerTls:
        if self._tls is None or self._monotonic() - self._read_at > REREAD_SECONDS:
            tls = self._read_tls()
            if tls is None:
                raise PluginUnreachable(
                    "the worker has no certificate yet: run `moorage certs publish-worker`", code="UNAVAILABLE"
                )
            self._tls, self._read_at = tls, self._monotonic()
        return self._tls


def invoke(
    channels: Channels, instance: Instance, request: Message, answer: type[A], call: CallOptions, *, service: str
) -> A:
    """Make one call and return the plugin's answer.

    Raises PluginRejected (final), Gone, PluginInDoubt (it may have happened) or PluginUnreachable (nothing was sent).
    """
    rpc = rpc_of(request)
    metadata: tuple[tuple[str, str], ...] = (("moorage-plugin", instance.plugin_id), ("moorage-protocol", "1"))
    annotations = {"plugin_id": instance.plugin_id}
    if call.attempt is not None:
        metadata += (("moorage-operation", call.attempt.operation_id), ("moorage-attempt", str(call.attempt.number)))
        annotations["operation_id"] = call.attempt.operation_id
    method = channels.of(instance).unary_unary(
        f"/csi.v1.{service}/{rpc}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=answer.FromString,
    )
    seconds = call.until - channels.monotonic()
    if seconds < SHORTEST_CALL:
        raise PluginUnreachable("the attempt's time was over before its call could be made", code="UNAVAILABLE")
    with tracing.subsegment(rpc, **annotations):
        try:
            found: A = method(request, timeout=seconds, metadata=metadata)
        except grpc.RpcError as exc:
            if exc.code() is grpc.StatusCode.UNAVAILABLE:
                channels.forget()
            raise _plugin_error(exc, request) from exc
    return found


def rpc_of(request: Message) -> str:
    """Return the RPC that a request is for: "CreateVolume" for a CreateVolumeRequest."""
    return request.DESCRIPTOR.name.removesuffix("Request")


_ERRORS: Final[Mapping[Outcome, type[PluginRejected | PluginInDoubt]]] = {
    Outcome.GONE: Gone,
    Outcome.REJECTED: PluginRejected,
    Outcome.IN_DOUBT: PluginInDoubt,
}


def _plugin_error(exc: grpc.RpcError, request: Message) -> PluginError:
    """Return the error that a gRPC status stands for, with the text that Go's gRPC would show."""
    code = exc.code().name
    text = f"rpc error: code = {GO_NAMES.get(code, code)} desc = {_redacted(exc.details() or '', request)}"
    return _ERRORS[outcome(rpc_of(request), code)](text, code=code)


def _redacted(details: str, request: Message) -> str:
    """Return a plugin's words without the secrets of its request and without AWS's request IDs.

    A plugin may repeat a secret that it was given. Clients search error texts for HTTP status codes, and a request ID
    may contain one.
    """
    hidden = [value for value in getattr(request, "secrets", {}).values() if len(value) >= SHORTEST_SECRET]
    capability = getattr(request, "volume_capability", None)
    if capability is not None:
        # Mount flags may be "password=...".
        hidden += [flag.partition("=")[2] for flag in capability.mount.mount_flags if "=" in flag]
    for value in sorted(filter(None, hidden), key=len, reverse=True):
        details = details.replace(value, REDACTED)
    return _REQUEST_ID.sub(r"\1 " + REDACTED, details)
