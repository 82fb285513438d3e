"""The proxy against a real upstream server that records the bytes it gets."""

import asyncio
import gzip
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web

from infra.local import proxy
from infra.local.dynamodb_local import free_port

NAME = "api.test.moorage.internal"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi"


@dataclass
class Upstream:
    """A server that answers every request with `answer` and keeps what it was sent."""

    port: int
    answer: bytes = PLAIN
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        self.heads.append(head)
        self.bodies.append(await reader.readexactly(length))
        writer.write(self.answer)
        writer.close()

    @property
    def request_line(self) -> bytes:
        return self.heads[-1].split(b"\r\n")[0]

    def sent(self, name: str) -> list[str]:
        lines = [line.decode() for line in self.heads[-1].split(b"\r\n")[1:]]
        return [line.partition(": ")[2] for line in lines if line.lower().startswith(f"{name.lower()}:")]


@dataclass
class Pair:
    """An upstream and a proxy before it."""

    upstream: Upstream
    port: int

    def ask(self, request: bytes) -> tuple[bytes, bytes]:
        """Head and body of the answer to raw request bytes."""
        return asyncio.run(self._ask(request))

    async def _ask(self, request: bytes) -> tuple[bytes, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        async with asyncio.timeout(20):
            answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        head, _, body = answer.partition(b"\r\n\r\n")
        return head, body

    def get(self, target: str, *headers: str, host: str = "127.0.0.1", method: str = "GET") -> tuple[bytes, bytes]:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
        return self.ask(("\r\n".join(lines) + "\r\n\r\n").encode())


@pytest.fixture
def pair() -> Iterator[Pair]:
    upstream, port = Upstream(free_port()), free_port()
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = await asyncio.start_server(upstream.serve, "127.0.0.1", upstream.port)
        runner = web.AppRunner(
            proxy.application(f"http://127.0.0.1:{upstream.port}/restapis/x/api/_user_request_", NAME)
        )
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        ready.set()
        await stop.wait()
        await runner.cleanup()
        server.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(10)
    yield Pair(upstream, port)
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/v1/volumes?type=csi",
        "/v1/volume/csi/a%2Fb",
        "/v1/volume/csi/a%252Fb",
        "/v1/volume/csi/x[0]",
        "/v1/volume/csi/x%5B0%5D/../y/%2e%2e/z",
        "/v1//volumes/",
        "/v1/volumes?a=%20+x&a=&b&c=%FF;d",
        "/_ministack/reset",
        "/_localstack/health",
        "/health",
        "/_aws/execute-api/other/api/",
        "/oauth2/authorize",
    ],
)
def test_path_and_query_reach_the_api_byte_for_byte(pair: Pair, target: str) -> None:
    pair.get(target)
    assert pair.upstream.request_line == f"GET /restapis/x/api/_user_request_{target} HTTP/1.1".encode()


def test_the_api_sees_its_own_name_and_no_header_of_the_connection(pair: Pair) -> None:
    pair.get("/", "X-Nomad-Token: t", "TE: trailers", "Keep-Alive: 5", host="localhost:4646")
    assert pair.upstream.sent("Host") == [NAME]
    assert pair.upstream.sent("X-Nomad-Token") == ["t"]
    assert pair.upstream.sent("TE") == pair.upstream.sent("Keep-Alive") == []
    assert pair.upstream.sent("Accept-Encoding") == ["identity"]


def test_nothing_is_added_to_a_request_that_says_little(pair: Pair) -> None:
    pair.get("/")
    for name in ("Content-Type", "Accept", "User-Agent"):
        assert pair.upstream.sent(name) == []


def test_a_repeated_header_arrives_in_one_line_however_it_is_spelled(pair: Pair) -> None:
    pair.get("/", "X-Nomad-Csi-Secrets: a=b", "x-nomad-csi-secrets: c=d")
    assert pair.upstream.sent("X-Nomad-Csi-Secrets") == ["a=b, c=d"]


def test_a_body_arrives_whole_with_the_type_that_the_client_gave(pair: Pair) -> None:
    body = bytes(range(256)) * 4096
    head = f"PUT /v1/volumes HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    pair.ask(head.encode() + b"Content-Type: application/x-www-form-urlencoded\r\n\r\n" + body)
    assert pair.upstream.bodies == [body]
    assert pair.upstream.sent("Content-Type") == ["application/x-www-form-urlencoded"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:4646", "localhost", "LOCALHOST:80", "[::1]:4646", "127.1.2.3"]
)
def test_a_loopback_name_is_served(pair: Pair, host: str) -> None:
    head, body = pair.get("/", host=host)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b"hi"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:4646",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "[::2]",
        "::1",
        "",
    ],
)
def test_any_other_name_is_refused_with_a_text_and_never_asked_about(pair: Pair, host: str) -> None:
    head, body = pair.get("/v1/volumes", host=host)
    assert head.startswith(b"HTTP/1.1 421 ")
    assert b"loopback names only" in body
    assert pair.upstream.heads == []


def test_status_and_headers_come_back_as_they_are(pair: Pair) -> None:
    pair.upstream.answer = (
        b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /ui/\r\nX-Nomad-Index: 7\r\n"
        b"X-Two: a\r\nX-Two: b\r\nContent-Length: 0\r\n\r\n"
    )
    head, body = pair.get("/")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 307 Temporary Redirect"
    assert {b"Location: /ui/", b"X-Nomad-Index: 7", b"X-Two: a", b"X-Two: b"} <= set(lines)
    assert not any(line.lower().startswith(b"server:") for line in lines)
    assert body == b""


@pytest.mark.parametrize("line", [b"Content-Type: application/json\r\n", b"Content-Type: \r\n", b""])
def test_an_empty_body_has_no_content_type(pair: Pair, line: bytes) -> None:
    pair.upstream.answer = b"HTTP/1.1 200 OK\r\n" + line + b"Content-Length: 0\r\n\r\n"
    head, body = pair.get("/")
    assert b"content-type" not in head.lower()
    assert body == b""


def test_a_head_answer_has_no_body(pair: Pair) -> None:
    pair.upstream.answer = b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n"
    head, body = pair.get("/v1/volumes", method="HEAD")
    assert head.startswith(b"HTTP/1.1 405 ")
    assert body == b""


def test_a_large_answer_is_compressed_for_who_asks_and_only_then(pair: Pair) -> None:
    text = b"x" * 5000
    pair.upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n" + text
    head, body = pair.get("/", "Accept-Encoding: deflate, gzip;q=0.8")
    assert b"Content-Encoding: gzip" in head
    assert b"Vary: Accept-Encoding" in head
    assert gzip.decompress(body) == text
    for offer in ("Accept-Encoding: identity", "Accept-Encoding: gzip;q=0", "X-None: 1"):
        head, body = pair.get("/", offer)
        assert b"Content-Encoding" not in head
        assert body == text


def test_a_small_answer_is_not_compressed(pair: Pair) -> None:
    head, body = pair.get("/", "Accept-Encoding: gzip")
    assert b"Content-Encoding" not in head
    assert body == b"hi"


def test_an_upstream_that_does_not_answer_is_told_so(pair: Pair) -> None:
    async def ask() -> tuple[int, str]:
        runner = web.AppRunner(proxy.application(f"http://127.0.0.1:{free_port()}/x", NAME))
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/") as answer:
            status, text = answer.status, await answer.text()
        await runner.cleanup()
        return status, text

    status, text = asyncio.run(ask())
    assert status == 503
    assert "emulator does not answer" in text


def test_an_upstream_that_breaks_off_is_told_so(pair: Pair) -> None:
    pair.upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
    head, body = pair.get("/")
    assert head.startswith(b"HTTP/1.1 502 ")
    assert b"broke off" in body


def test_a_body_above_the_gateways_limit_is_refused(pair: Pair) -> None:
    length = proxy.LARGEST_REQUEST + 1
    head = f"PUT /v1/volumes HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    answer, _ = pair.ask(head.encode() + b"x" * length)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert pair.upstream.heads == []


def test_a_request_line_without_a_path_is_refused(pair: Pair) -> None:
    head, _ = pair.get("http://127.0.0.1/v1/volumes")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert pair.upstream.heads == []
