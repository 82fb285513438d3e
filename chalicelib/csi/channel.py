"""Channels to bridges, and one way to make a call: mutual TLS, deadline, attempt, and every gRPC status as a
PluginError.

One channel is kept per container and bridge. The certificate is read again after a minute and after UNAVAILABLE,
since a channel never learns of a new one by itself (docs/interfaces.md, section 3).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc

from chalicelib.domain.outcome import GO_NAMES, Outcome, outcome
from chalicelib.domain.plugin import Instance
from chalicelib.errors import PluginInDoubt, PluginRejected, PluginUnreachable

IDENTITY_SECONDS: Final = 60
MESSAGE_LIMIT: Final = 16 * 1024 * 1024
CONNECT_SECONDS: Final = 5.0
SHORTEST_CALL: Final = 0.05
"""Seconds: no use to begin a call with less."""
SHORTEST_SECRET: Final = 3
"""Characters: a shorter one is no secret, and hiding it would hide half of the text."""
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
    """What should be removed is not there: success, for whoever removes."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What the worker shows to bridges, in PEM."""

    ca: bytes
    certificate: bytes
    key: bytes
    serial: str
    refused: frozenset[str] = frozenset()
    """Serials of bridges' certificates (hexadecimal, lower case) that are not spoken to."""


class Channels(Protocol):
    """Where a channel to an instance comes from."""

    def of(self, instance: Instance) -> grpc.Channel: ...

    def forget(self) -> None: ...

    def monotonic(self) -> float: ...


class TlsChannels:
    """Channels with mutual TLS; `identity` is asked at most once a minute."""

    def __init__(self, identity: Callable[[], Identity | None], monotonic: Callable[[], float]) -> None:
        self._read, self._monotonic = identity, monotonic
        self._identity: Identity | None = None
        self._read_at = float("-inf")
        self._channels: dict[tuple[str, str, str], grpc.Channel] = {}

    def of(self, instance: Instance) -> grpc.Channel:
        identity = self._current()
        if instance.serial in identity.refused:
            raise PluginUnreachable(
                f"the certificate of node {instance.node_id}'s bridge is on the list of refused serials: "
                "issue another with `moorage certs bridge`",
                code="UNAVAILABLE",
            )
        key = (instance.address, instance.node_id, identity.serial)
        channel = self._channels.get(key)
        if channel is None:
            # Of an older certificate of ours, or to where the bridge was before.
            for old in [k for k in self._channels if k[1] == instance.node_id]:
                self._channels.pop(old).close()
            credentials = grpc.ssl_channel_credentials(identity.ca, identity.key, identity.certificate)
            # The name, not the address, is what the bridge's certificate proves.
            name = ("grpc.ssl_target_name_override", f"{instance.node_id}.bridge.moorage")
            channel = grpc.secure_channel(instance.address, credentials, options=(*_OPTIONS, name))
            self._channels[key] = channel
        return channel

    def forget(self) -> None:
        """The bridge did not answer: read the certificate again before the next call."""
        self._read_at = float("-inf")

    def monotonic(self) -> float:
        return self._monotonic()

    def _current(self) -> Identity:
        if self._identity is None or self._monotonic() - self._read_at > IDENTITY_SECONDS:
            found = self._read()
            if found is None:
                raise PluginUnreachable(
                    "the worker has no certificate yet: run `moorage certs publish-worker`", code="UNAVAILABLE"
                )
            self._identity, self._read_at = found, self._monotonic()
        return self._identity


@dataclass(frozen=True, slots=True)
class Attempt:
    """What fences a call at the bridge: the operation, and which of its attempts this is."""

    operation_id: str
    number: int


def invoke(  # noqa: PLR0913 - a call has this many parts, and each is named
    channels: Channels,
    instance: Instance,
    *,
    service: str,
    rpc: str,
    request: Any,
    answer: Any,
    until: float,
    attempt: Attempt | None = None,
) -> Any:
    """One CSI call, over at `until` on the channels' monotonic clock: what was done before it was made is taken off.

    Raises PluginRejected (final), Gone, PluginInDoubt (it may have happened) or PluginUnreachable (nothing was sent).
    """
    metadata: tuple[tuple[str, str | bytes], ...] = (("moorage-plugin", instance.plugin_id), ("moorage-protocol", "1"))
    if attempt is not None:
        metadata += (("moorage-operation", attempt.operation_id), ("moorage-attempt", str(attempt.number)))
    channel = channels.of(instance)
    call = channel.unary_unary(
        f"/csi.v1.{service}/{rpc}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=answer.FromString,
    )
    seconds = until - channels.monotonic()
    if seconds < SHORTEST_CALL:
        raise PluginUnreachable("the attempt's time was over before its call could be made", code="UNAVAILABLE")
    try:
        return call(request, timeout=seconds, metadata=metadata)
    except grpc.RpcError as exc:
        code = exc.code().name
        text = f"rpc error: code = {GO_NAMES.get(code, code)} desc = {_shown(exc.details() or '', request)}"
        if code == "UNAVAILABLE":
            channels.forget()
        meaning = outcome(rpc, code)
        kinds: Mapping[Outcome, type[PluginRejected | PluginInDoubt]] = {
            Outcome.GONE: Gone,
            Outcome.REJECTED: PluginRejected,
            Outcome.IN_DOUBT: PluginInDoubt,
        }
        raise kinds[meaning](text, code=code) from exc


def _shown(details: str, request: Any) -> str:
    """A plugin's words without the secrets it was given, should it repeat them, and without AWS's request IDs: clients
    look for status codes in error texts.
    """
    hidden = [value for value in getattr(request, "secrets", {}).values() if len(value) >= SHORTEST_SECRET]
    capability = getattr(request, "volume_capability", None)
    if capability is not None and hasattr(capability, "mount"):
        hidden += [flag.partition("=")[2] for flag in capability.mount.mount_flags if "=" in flag]
    for value in sorted(filter(None, hidden), key=len, reverse=True):
        details = details.replace(value, REDACTED)
    return _REQUEST_ID.sub(r"\1 " + REDACTED, details)
