"""Serve every request of the API: find its route, wait, turn errors into answers, set headers, write the log line.

API Gateway gives every path and method to one function (app.py). It cannot tell an unknown path from an undeclared
method, and clients depend on the difference.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

from chalice.app import Response

from chalicelib import log, wiring
from chalicelib.errors import OperationPending, RequestError, StoreError, VolumesError
from chalicelib.routes.call import Answer, Call, Missing, NoRoute
from chalicelib.routes.mux import Mux, Redirect, Watch
from chalicelib.routes.options import Options
from chalicelib.service import blocking
from chalicelib.wire.gojson import BodyError, encode

METHODS: Final = ("GET", "PUT", "POST", "DELETE", "HEAD", "PATCH", "OPTIONS")
TEXT: Final = "text/plain; charset=utf-8"
HTML: Final = "text/html; charset=utf-8"
JSON: Final = "application/json"


class Endpoint:
    """The function that answers API Gateway's events, by the routes of a mux."""

    def __init__(self, mux: Mux) -> None:
        self._mux = mux

    def __call__(self, event: Mapping[str, Any], raw_body: bytes) -> Response:
        """Answer one API Gateway event, and write one log line. Every exception becomes an answer."""
        from chalicelib.store.dynamo import ConsumedCapacity, consumed_capacity

        started, used = time.monotonic(), ConsumedCapacity()
        token = consumed_capacity.set(used)
        call = _call(event, raw_body)
        text = ""
        try:
            response = _respond(call, self._serve(call))
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

    def _serve(self, call: Call) -> Answer:
        """Find the route, read the request, wait if it is a blocking query, and let the handler answer."""
        try:
            route, captured = self._mux.find(call)
        except Redirect as exc:
            return _redirect(call, exc.path)
        given = route.parse(call)
        # Check `route.requirement` here: malformed requests are refused before, as in Nomad.
        if route.watch is not None:
            _wait(call, route.watch, given, captured)
            # Check it here again: the token may have lost its rights during the wait.
        return route.handler(call, *([] if given is None else [given]), *captured)


def _wait(call: Call, watch: Watch, given: Options, captured: Sequence[str]) -> None:
    deps = wiring.deps()

    def current() -> int:
        return watch(deps, call, given.index, *captured)

    blocking.until_changed(deps, index=given.index, wait=given.wait, current=current)


def _accepted(pending: OperationPending) -> Answer:
    """Return a 202 that names the recorded operations. `Location` is that of the first."""
    ids = pending.operation_ids
    headers = {"Location": f"/v1/operation/{ids[0]}", "Preference-Applied": "respond-async"}
    return Answer({"Operations": list(ids)}, status=202, headers=headers)


def _call(event: Mapping[str, Any], body: bytes) -> Call:
    query = event.get("multiValueQueryStringParameters") or {}
    headers = {str(k).lower(): str(v) for k, v in (event.get("headers") or {}).items() if v is not None}
    method = event.get("httpMethod") or event["requestContext"]["httpMethod"]
    path = event.get("path") or event["requestContext"]["path"]
    return Call(method, path, query, headers, body, started=wiring.clock().monotonic())


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
        # The answer of a Lambda function cannot be without a Content-Type. The edge drops the line of an empty one.
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
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return Response("" if call.method == "HEAD" else error.text, headers, error.status)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&#34;")


def _cause(error: VolumesError) -> str:
    """Return the error text of an AWS service, for the log. Clients get our own words only."""
    if not isinstance(error, StoreError) or error.__cause__ is None:
        return ""
    cause = error.__cause__
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
    return f" ({cause!r})"


def _trace() -> str:
    import traceback

    return traceback.format_exc(limit=-8)
