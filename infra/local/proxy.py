"""Serve the emulator's API at the root of http://127.0.0.1:4646.

The proxy does what an edge in front of API Gateway does, and no more: it finds the API behind its stage path,
compresses, and leaves out the Content-Type of an empty body (a Lambda function cannot, since API Gateway would put
application/json there). It answers by itself only when it must not or cannot ask the emulator: a request of a web page
of another origin (guard.py), a request line without a path, and an emulator that does not answer.

Every request goes upstream under the API's own path, so no path of the emulator itself can be reached through it.
"""

import argparse
import asyncio
import re
import sys
from typing import Final

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from infra.local import guard

HOP_BY_HOP: Final = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
OURS_ON_THE_WAY_UP: Final = frozenset({
    "host", "content-length", "accept-encoding", "expect", "origin", "sec-fetch-site",
})  # fmt: skip
"""The proxy has checked the last two. Under another Host, the emulator would take the API's own page for foreign."""
OURS_ON_THE_WAY_DOWN: Final = frozenset({"content-length", "content-encoding", "server"})
COMPRESS_FROM: Final = 1024
"""Bytes. `.chalice/config.json` says the same to API Gateway (minimum_compression_size)."""
LARGEST_REQUEST: Final = 10 * 1024 * 1024
"""API Gateway's own limit."""
LONGEST_ANSWER: Final = 60.0

UPSTREAM: Final = web.AppKey("upstream", str)
HOST: Final = web.AppKey("host", str)
CLIENT: Final = web.AppKey("client", aiohttp.ClientSession)


def application(upstream: str, host: str) -> web.Application:
    """Return the proxy to `upstream` (an address with the path of the API's stage), called under the name `host`."""
    app = web.Application(client_max_size=LARGEST_REQUEST)
    app[UPSTREAM] = upstream.rstrip("/")
    app[HOST] = host
    app.cleanup_ctx.append(_client)
    app.on_response_prepare.append(_remove_added_headers)
    app.router.add_route("*", "/{path:.*}", _serve)
    return app


async def _serve(request: web.Request) -> web.StreamResponse:
    given = request.headers
    refused = guard.refusal(given.get("Host", ""), given.get("Origin"), given.get("Sec-Fetch-Site"))
    if refused is not None:
        return _say(refused.status, refused.text)
    if not request.raw_path.startswith("/"):
        return _say(400, "the request line must name a path that starts with /")
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        return _say(413, f"a request body ends at {LARGEST_REQUEST} bytes, as it does behind API Gateway")
    try:
        async with request.app[CLIENT].request(
            request.method,
            URL(request.app[UPSTREAM] + request.raw_path.replace("#", "%23"), encoded=True),
            headers=_upward(request),
            data=body or None,
            allow_redirects=False,
            skip_auto_headers=("Content-Type", "Accept", "User-Agent"),
        ) as answer:
            return _downward(request, answer.status, answer.headers, await answer.read())
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        return _say(503, "the local emulator does not answer: it may be starting; see make status")
    except TimeoutError:
        return _say(502, f"the local emulator gave no answer within {LONGEST_ANSWER:.0f} s")
    except aiohttp.ClientError as exc:
        return _say(502, f"the local emulator broke off: {type(exc).__name__}")


def _upward(request: web.Request) -> CIMultiDict[str]:
    """Return the request's headers for upstream, repeated ones joined as API Gateway would pass them on."""
    joined: CIMultiDict[str] = CIMultiDict()
    dropped = HOP_BY_HOP | OURS_ON_THE_WAY_UP | _named_by_connection(request)
    for name in dict.fromkeys(key.lower() for key in request.headers):
        if name not in dropped:
            separator = "; " if name == "cookie" else ", "
            joined[name] = separator.join(request.headers.getall(name))
    joined["Host"] = request.app[HOST]
    joined["Accept-Encoding"] = "identity"
    return joined


def _named_by_connection(request: web.Request) -> frozenset[str]:
    values = ",".join(request.headers.getall("Connection", []))
    return frozenset(name.strip().lower() for name in values.split(","))


def _downward(request: web.Request, status: int, headers: "aiohttp.typedefs.LooseHeaders", body: bytes) -> web.Response:
    kept = CIMultiDict(headers)
    for name in [*kept]:
        if name.lower() in HOP_BY_HOP | OURS_ON_THE_WAY_DOWN:
            kept.popall(name, None)
    if not body or not kept.get("Content-Type", "x"):
        kept.popall("Content-Type", None)
    response = web.Response(status=status, headers=kept, body=body)
    response.headers.setdefault("Vary", "Accept-Encoding")
    if len(body) >= COMPRESS_FROM and _takes_gzip(request.headers.get("Accept-Encoding", "")):
        response.enable_compression(web.ContentCoding.gzip)
    return response


def _takes_gzip(accepted: str) -> bool:
    for offer in accepted.split(","):
        coding, _, parameters = offer.strip().lower().partition(";")
        if coding.strip() in ("gzip", "x-gzip", "*"):
            quality = re.fullmatch(r"\s*q=([0-9.]+)\s*", parameters)
            return quality is None or quality[1].strip("0.") != ""
    return False


def _say(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text + "\n")


async def _remove_added_headers(_request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Remove the Content-Type and Server that aiohttp adds and the API did not send."""
    response.headers.popall("Server", None)
    if isinstance(response, web.Response) and not response.body:
        response.headers.popall("Content-Type", None)


async def _client(app: web.Application):  # type: ignore[no-untyped-def]  # noqa: ANN202 - aiohttp's own shape
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=LONGEST_ANSWER, sock_connect=5),
        auto_decompress=False,
    )
    app[CLIENT] = session
    yield
    await session.close()


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m infra.local.proxy")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--name", required=True)
    given = parser.parse_args(arguments)
    web.run_app(
        application(given.upstream, given.name),
        host=given.host,
        port=given.port,
        shutdown_timeout=1.0,
        handler_cancellation=True,
        access_log=None,
        print=None,
        loop=asyncio.new_event_loop(),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
