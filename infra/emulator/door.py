"""Let signed requests into the emulator, and calls of the API that it serves.

MiniStack takes any request that names a root key without checking its signature, and answers paths of its own
(/_ministack/reset) to any client. Door passes a request only if it is
- a question for its health;
- a call of a deployed API by its path, as the proxy makes it: the proxy has checked who may call the API;
- signed by Signature Version 4 with this emulator's root key, or with the credentials of a function's role.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs

from ministack.core import sigv4
from ministack.core.iam_evaluator import CredentialResolutionError, is_root_access_key, resolve_credential

from infra.emulator.calls import Call
from infra.local import guard
from infra.local.rootkey import Key

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CALL: Final = "moorage.call"
"""Key in a signed request's scope under which its Call is."""
HEALTH: Final = "/_ministack/health"
OWN_PATHS: Final = re.compile(r"/_|/health$")
CALL_OF_THE_API: Final = re.compile(r"/restapis/[a-z0-9]+/[A-Za-z0-9_-]+/_user_request_(?:/.*)?", re.DOTALL)
LARGEST_BODY: Final = 100 * 1024 * 1024
"""Bytes. The largest request has a function's package: Lambda takes 50 MB, which base64 makes 67."""


@dataclass(frozen=True)
class Door:
    """An ASGI application that stands in front of another one."""

    app: App
    root: Key
    names: frozenset[str]
    """Hosts that are served beside the loopback's own names: the custom domain of the API."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http":
            # A websocket has no signature that could be checked here. ASGI wants its connect received before its close.
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._request(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers(scope)
        refused = guard.refusal(
            headers.get("host", ""), headers.get("origin"), headers.get("sec-fetch-site"), names=self.names
        )
        if refused is not None:
            await refuse(send, refused.status, "Forbidden", refused.text)
            return
        path = scope["path"]
        asks_for_health = path == HEALTH and scope["method"] in ("GET", "HEAD")
        # The decoded path and the path as it was sent must both match, so that an encoded slash cannot make an unsigned
        # request look like a call of the API.
        calls_the_api = CALL_OF_THE_API.fullmatch(path) and CALL_OF_THE_API.fullmatch(_raw_path(scope))
        if asks_for_health or calls_the_api:
            await self.app(scope, receive, send)
        elif OWN_PATHS.match(path):
            await refuse(send, 403, "Forbidden", "the emulator's own paths are closed, except for its health")
        else:
            await self._signed(scope, headers, receive, send)

    async def _signed(self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send) -> None:
        body = await _body(receive)
        if body is None:
            await refuse(send, 413, "RequestTooLarge", f"a request to the emulator ends at {LARGEST_BODY} bytes")
            return
        failure = self.failure(scope, headers, body)
        if failure is not None:
            await refuse(send, 403, *failure)
            return
        # The service of the credential's scope is part of what was signed, so the caller cannot claim another.
        service = headers["authorization"].partition("Credential=")[2].split("/")[3]
        call = Call.of(service, scope["method"], scope["path"], headers.get("x-amz-target", ""), body)
        await self.app({**scope, CALL: call}, _replay(body, receive), send)

    def failure(self, scope: Scope, headers: dict[str, str], body: bytes) -> tuple[str, str] | None:
        """Check a request's signature. Return AWS's code and text for what is wrong with it, or None."""
        if not headers.get("authorization", "").startswith("AWS4-HMAC-SHA256 "):
            return "MissingAuthenticationToken", "sign requests to the emulator with the key of this state folder"
        signature = sigv4.parse_header_signature(headers)
        if isinstance(signature, tuple):
            return signature[0], signature[1]
        secret = self._secret(signature.access_key_id, headers.get("x-amz-security-token", ""))
        if secret is None:
            return "UnrecognizedClientException", "The security token included in the request is invalid."
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        signed = (scope["method"], _raw_path(scope), query, headers, body)
        wrong: tuple[str, str] | None = sigv4.request_time_failure(signature)
        return wrong or sigv4.header_signature_failure(signature, secret, *signed)

    def _secret(self, access_key_id: str, session_token: str) -> str | None:
        """Return the secret of an access key: the root's, or that of a role's session. None for any other key."""
        if access_key_id == self.root.access_key_id:
            return self.root.secret
        if is_root_access_key(access_key_id):  # MiniStack's own root keys are public
            return None
        credential = resolve_credential(access_key_id, session_token=session_token)
        return None if isinstance(credential, CredentialResolutionError) else str(credential.secret_access_key)


def _headers(scope: Scope) -> dict[str, str]:
    """Return the headers with names in lower case, repeated ones joined as Signature Version 4 signs them."""
    joined: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), sigv4.decode_header_value(value)
        joined[key] = f"{joined[key]},{text}" if key in joined else text
    return joined


def _raw_path(scope: Scope) -> str:
    return str((scope.get("raw_path") or scope["path"].encode()).decode("latin-1"))


async def _body(receive: Receive) -> bytes | None:
    """Return the whole body, or None if it is larger than LARGEST_BODY."""
    parts, size = [], 0
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > LARGEST_BODY:
            return None
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body that was read already, and then what comes after it."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message


async def refuse(send: Send, status: int, code: str, text: str) -> None:
    """Answer a request with an error in the form that AWS's SDKs read."""
    body = json.dumps({"__type": code, "message": text}).encode()
    headers = [(b"content-type", b"application/x-amz-json-1.0"), (b"content-length", str(len(body)).encode())]
    headers.append((b"x-amzn-errortype", code.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
