"""The one way in and out of the API: routing, errors, headers and the log line.

API Gateway hands every path and method to one function (app.py), because it cannot tell an unknown path from an
undeclared method, and clients depend on both. Paths are matched as Go's http.ServeMux does: exactly, or below a path
that ends in `/`; a missing last slash, `//` and dot segments are redirected.
"""

import posixpath
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

from chalice.app import Response

from chalicelib import log
from chalicelib.errors import NotFound, OperationPending, RequestError, StoreError, VolumesError
from chalicelib.wire.gojson import BodyError, encode

METHODS: Final = ("GET", "PUT", "POST", "DELETE", "HEAD", "PATCH", "OPTIONS")
TEXT: Final = "text/plain; charset=utf-8"
HTML: Final = "text/html; charset=utf-8"
JSON: Final = "application/json"
BODY_LIMIT: Final = 2 * 1024 * 1024
VALUES_LIMIT: Final = 50_000
"""Values in a body, whether anybody knows their keys or not: reading a million takes longer than a request may."""
_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route says. `body` is JSON when given; without one the answer is empty. `index` None: no X-Nomad
    headers.
    """

    body: Any = _MISSING
    index: int | None = None
    known_leader: bool = True
    next_token: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    bare_index: bool = False
    """Only X-Nomad-Index, as Nomad answers writes that go through no query."""
    html: str = ""

    @property
    def has_body(self) -> bool:
        return self.body is not _MISSING


@dataclass(frozen=True, slots=True)
class Call:
    """One request: `rest` is the path below the route, unescaped once, as Nomad sees it."""

    method: str
    path: str
    rest: str
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    body: bytes

    def parameter(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        values = self.query.get(name)
        return values[0] if values else default

    @property
    def namespace(self) -> str:
        return self.parameter("namespace") or "default"

    @property
    def pretty(self) -> bool:
        """`pretty` in any form switches it on; only `pretty=0` does not."""
        return "pretty" in self.query and self.parameter("pretty") != "0"

    @property
    def asynchronous(self) -> bool:
        """Whether the client wants the answer before the work is done (RFC 7240, respond-async)."""
        return "respond-async" in self._preferences

    @property
    def wait_preference(self) -> float | None:
        """Seconds that the client wants to wait for the work at most (RFC 7240, wait); None: as long as may be."""
        given = self._preferences.get("wait", "")
        return float(given) if given.isascii() and given.isdigit() and len(given) < 10 else None

    @property
    def _preferences(self) -> dict[str, str]:
        parts = [p.partition(";")[0].partition("=") for p in self.header("Prefer").lower().split(",")]
        return {name.strip(): value.strip().strip('"') for name, _, value in parts}

    def header(self, name: str) -> str:
        return self.headers.get(name.lower(), "")


Handler = Callable[[Call], Answer]


class NoRoute(NotFound):
    """An unknown path: 404 without a body."""


class Missing(NotFound):
    """A 404 of a read, which has the index headers, since a client may wait for the thing to appear."""

    def __init__(self, text: str, *, index: int) -> None:
        super().__init__(text)
        self.index = index


def method_not_allowed() -> RequestError:
    return RequestError("Invalid method", status=405)


def resource_not_found() -> NotFound:
    return NotFound("resource not found")


class Endpoint:
    """All routes, and what happens around them."""

    def __init__(self, routes: Mapping[str, Handler]) -> None:
        self._routes = routes

    def __call__(self, event: Mapping[str, Any], raw_body: bytes) -> Response:
        """Answer one API Gateway event; whatever goes wrong is an answer too, and one log line is written."""
        from chalicelib.store.dynamo import ConsumedCapacity, consumed_capacity

        started, used = time.monotonic(), ConsumedCapacity()
        token = consumed_capacity.set(used)
        call = _call(event, raw_body)
        text = ""
        try:
            response = _respond(call, self._handle(call))
        except VolumesError as exc:
            if isinstance(exc, OperationPending) and call.asynchronous:
                response = _respond(call, _accepted(exc))
            else:
                text = exc.text + _cause(exc)
                response = _error(call, exc)
        except BodyError as exc:
            text = str(exc)
            response = _error(call, RequestError(text))
        except Exception as exc:  # noqa: BLE001 - the last line of defence: no stack trace, no AWS text reaches a client
            text = f"{type(exc).__name__}: {exc}"
            log.line("fault", path=call.path, method=call.method, error=text, trace=_trace())
            response = _error(call, VolumesError("internal error: the log of the control plane says what happened"))
        finally:
            consumed_capacity.reset(token)
        log.line(
            "request",
            method=call.method,
            path=call.path,
            namespace=call.parameter("namespace"),
            status=response.status_code,
            error=text if response.status_code >= 400 else None,
            milliseconds=round((time.monotonic() - started) * 1000, 1),
            capacity_units=round(used.units, 1),
            store_calls=used.calls,
        )
        return response

    def _handle(self, call: Call) -> Answer:
        clean = _clean(call.path)
        if clean != call.path:
            return _redirect(call, clean)
        handler = self._routes.get(call.path)
        if handler is not None:
            return handler(call if not call.path.endswith("/") else _below(call, call.path))
        below = max(
            (r for r in self._routes if r != "/" and r.endswith("/") and call.path.startswith(r)), key=len, default=""
        )
        if below:
            return self._routes[below](_below(call, below))
        if call.path + "/" in self._routes:
            return _redirect(call, call.path + "/")
        raise NoRoute("")


def _accepted(pending: OperationPending) -> Answer:
    """202: the operations are recorded and will be done; `Location` is the first one's."""
    ids = pending.operation_ids
    headers = {"Location": f"/v1/operation/{ids[0]}", "Preference-Applied": "respond-async"}
    return Answer({"Operations": list(ids)}, status=202, headers=headers)


def allow(call: Call, *methods: str) -> None:
    """Refuse other methods, in Nomad's words."""
    if call.method not in methods:
        raise method_not_allowed()


def too_large(body: bytes, limit: int) -> None:
    """Refuse a body before it is read; raises RequestError 413."""
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > VALUES_LIMIT:
        raise RequestError("request body has too many values: send fewer definitions at once", status=413)
    if len(body) > limit:
        raise RequestError(
            f"request body is larger than {limit // 1024} KB: send fewer or smaller definitions", status=413
        )


def _below(call: Call, prefix: str) -> Call:
    return Call(call.method, call.path, call.path[len(prefix) :], call.query, call.headers, call.body)


def _call(event: Mapping[str, Any], body: bytes) -> Call:
    query = event.get("multiValueQueryStringParameters") or {}
    headers = {str(k).lower(): str(v) for k, v in (event.get("headers") or {}).items() if v is not None}
    method = event.get("httpMethod") or event["requestContext"]["httpMethod"]
    path = event.get("path") or event["requestContext"]["path"]
    return Call(method, path, "", query, headers, body)


def _clean(path: str) -> str:
    """The path as Go's mux wants it: no `//`, no dot segments, the last slash kept."""
    if "//" not in path and "/." not in path:
        return path
    cleaned = posixpath.normpath(path.lstrip("/").join(("/", "")))
    return cleaned + "/" if path.endswith("/") and cleaned != "/" else cleaned


def _redirect(call: Call, path: str) -> Answer:
    query = urlencode([(name, value) for name, values in call.query.items() for value in values])
    location = quote(path, safe="/:@!$&'()*+,;=~") + ("?" + query if query else "")
    return Answer(status=307, headers={"Location": location})


def _respond(call: Call, answer: Answer) -> Response:
    headers: dict[str, str | list[str]] = dict(answer.headers)
    if answer.index is not None:
        headers["X-Nomad-Index"] = str(answer.index)
        if not answer.bare_index:
            headers["X-Nomad-Knownleader"] = "true" if answer.known_leader else "false"
            headers["X-Nomad-Lastcontact"] = "0"
        if answer.next_token:
            headers["X-Nomad-Nexttoken"] = answer.next_token
    headers["Vary"] = "Accept-Encoding"
    if answer.html:
        return Response("" if call.method == "HEAD" else answer.html, headers | {"Content-Type": HTML}, answer.status)
    if answer.status == 307 and call.method in ("GET", "HEAD"):
        headers["Content-Type"] = HTML
        link = f'<a href="{_escape(answer.headers["Location"])}">Temporary Redirect</a>.\n\n'
        return Response("" if call.method == "HEAD" else link, headers, answer.status)
    if not answer.has_body:
        # An empty Content-Type: the edge drops the line (a Lambda answer cannot be without one).
        headers["Content-Type"] = ""
        return Response("", headers, answer.status)
    headers["Content-Type"] = JSON
    body = "" if call.method == "HEAD" else encode(answer.body, pretty=call.pretty).decode()
    return Response(body, headers, answer.status)


def _error(call: Call, error: VolumesError) -> Response:
    headers: dict[str, str | list[str]] = {"Content-Type": TEXT, "Vary": "Accept-Encoding"}
    if isinstance(error, Missing) and call.method != "HEAD":
        headers |= {"X-Nomad-Index": str(error.index), "X-Nomad-Knownleader": "true", "X-Nomad-Lastcontact": "0"}
    if isinstance(error, NoRoute):
        headers["Content-Type"] = ""
    if error.retry_after is not None and isinstance(error, StoreError):
        headers["Retry-After"] = str(error.retry_after)
    return Response("" if call.method == "HEAD" else error.text, headers, error.status)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&#34;")


def _cause(error: VolumesError) -> str:
    """What an AWS service said, for the log: clients get our own words only."""
    if not isinstance(error, StoreError) or error.__cause__ is None:
        return ""
    cause = error.__cause__
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
    return f" ({cause!r})"


def _trace() -> str:
    import traceback

    return traceback.format_exc(limit=-8)
