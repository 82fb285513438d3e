"""The parts of a story: a clock with known IDs, the API over HTTP, real bridges' messages, and ways to fail."""

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from moorage.bridge.registration import ANSWER_SECONDS, Registration
from moorage.bridge.settings import PluginSettings
from moorage.bridge.tls import BridgeTls
from moorage.bridge.watch import Fingerprint, Health, plugin_json
from moorage.certificates import Certificate
from moorage.mounts.api import ControlPlane, connected
from tests.baseline.files import Exchange
from tests.fakes.clock import FakeClock
from tests.fakes.provider import FakeProvider
from tests.harness import Died, Reply, System

HEADERS: Final = ("X-Moorage-Signature", "Content-Type", "Prefer")
"""The headers that bridges set themselves. The others are their HTTP library's."""


class StoryClock(FakeClock):
    """A clock whose IDs are the same in every run."""

    def __init__(self) -> None:
        super().__init__()
        self._ids = itertools.count()  # its own, not that of all clocks

    def new_id(self) -> str:
        made = super().new_id()
        return f"{made[:9]}moorage{made[16:]}"


def exchange(
    system: System,
    method: str,
    path: str,
    *,
    query: str = "",
    headers: Mapping[str, str] | None = None,
    body: str = "",
) -> Exchange:
    """Make a request, and return it with its answer."""
    at, given = system.clock.now(), dict(headers or {})
    reply = system.call(method, path, body.encode(), query=query, headers=given)
    return noted(reply, at=at, method=method, path=path, query=query, headers=given, body=body)


def noted(reply: Reply, **request: Any) -> Exchange:
    shown = {"json": reply.json} if reply.headers.get("Content-Type") == "application/json" else {"text": reply.body}
    return Exchange(
        **request,
        **shown,
        status=reply.status,
        index=reply.headers.get("X-Nomad-Index", ""),
        next_token=reply.headers.get("X-Nomad-Nexttoken", ""),
    )


class Front:
    """The API over HTTP on the loopback, for clients that need HTTP. It records every exchange."""

    def __init__(self, system: System) -> None:
        self.system, self.noted = system, list[Exchange]()
        self.url = ""

    @contextmanager
    def serving(self) -> Iterator["Front"]:
        front = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                try:
                    found = front.answer(self.command, self.path, dict(self.headers), body)
                except Died:
                    found = Reply(502, {}, "what API Gateway says when the function died")
                content = found.body.encode()
                self.send_response(found.status)
                for name, value in found.headers.items():
                    if value:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_DELETE = _answer  # noqa: N815 - the names that the base calls

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that the base has
                """Log nothing."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
            thread.start()
            self.url = f"http://127.0.0.1:{server.server_address[1]}"
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        at, parts = self.system.clock.now(), urlsplit(target)
        said = {name: value for name in HEADERS if (value := headers.get(name))}
        reply = self.system.call(method, parts.path, body, query=parts.query, headers=said)
        self.noted.append(
            noted(reply, at=at, method=method, path=parts.path, query=parts.query, headers=said, body=body.decode())
        )
        return reply

    def mounting(self, ask: Callable[[ControlPlane], Any]) -> Any:
        """Make a request with the client of `moorage mount` and its bridge, and return the result."""

        async def asked() -> Any:
            async with connected(self.url) as api:
                return await ask(api)

        return asyncio.run(asked())


@dataclass
class Watched:
    """A plugin behind a bridge, as a watch sees it."""

    settings: PluginSettings
    health: Health

    def falls_ill(self, description: str) -> None:
        """Make the plugin unhealthy, with this description, or healthy with an empty one."""
        self.health = Health(not description, description, self.health.fingerprint)


def watched(
    plugin_id: str,
    *,
    controller: tuple[str, ...] | None = (),
    node: tuple[str, ...] | None = ("STAGE_UNSTAGE_VOLUME",),
    zone: str = "",
    external_node_id: str = "",
    services: tuple[str, ...] = ("CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS"),
    **settings: Any,
) -> Watched:
    """Return a healthy plugin. `controller` and `node` are its services' capabilities, None without the service."""
    found = Fingerprint(
        provider=f"{plugin_id}.csi.example",
        provider_version="1.4",
        plugin_capabilities=services,
        controller_capabilities=controller or (),
        node_capabilities=node or (),
        controller=controller is not None,
        node=node is not None,
        external_node_id=external_node_id if node is not None else "",
        max_volumes=16 if zone else 0,
        segments=(("topology.example/zone", zone),) if zone else (),
    )
    return Watched(PluginSettings(plugin_id, "unix:///run/csi.sock", **settings), Health(True, "", found))


@dataclass
class Bridge:
    """The part of a bridge's own code that sends messages to the control plane."""

    front: Front
    node_id: str
    number: int
    certs: Path
    plugins: list[Watched]
    starts: int = 0
    registration: Registration = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Replace the bridge, which ended without a message, by another."""
        self.starts += 1
        ca, certificate, key = ((self.certs / name).read_bytes() for name in ("ca.pem", "bridge.pem", "bridge-key.pem"))
        tls = BridgeTls(ca, certificate, key, Certificate.read(self.certs / "bridge.pem"))
        self.registration = Registration(
            api=self.front.url,
            node_id=self.node_id,
            node_name=f"host-of-{self.node_id}",
            address=f"10.0.0.{self.number}:7443",
            tls=lambda: tls,
            plugins=lambda: [plugin_json(plugin) for plugin in self.plugins],  # type: ignore[arg-type]
            refuse=lambda _: None,
            jitter=lambda: 0.5,
            instance_id=f"00000000-0000-4000-8000-{self.number:06}{self.starts:06}",
        )

    def say(self) -> Exchange | None:
        """Send a registration, which is also the heartbeat. Return None when there was no answer."""

        async def tell() -> None:
            async with self.registration._session(ANSWER_SECONDS) as session:
                await self.registration._send(session)

        return self._exchange(tell)

    def leave(self) -> Exchange | None:
        """Stop in order."""
        return self._exchange(self.registration.farewell)

    def _exchange(self, speak: Callable[[], Any]) -> Exchange | None:
        before = len(self.front.noted)
        asyncio.run(speak())
        return self.front.noted[-1] if len(self.front.noted) > before else None


@dataclass
class Strike:
    """What happens to the next `times` calls of an RPC, before or after their effect."""

    rpc: str
    act: Callable[[], None]
    after: bool = False
    times: float = 1


class Strikes:
    """Strikes in order. Each begins when the one before it is used up."""

    def __init__(self, *strikes: Strike) -> None:
        self.left = deque(strikes)

    @contextmanager
    def at(self, provider: FakeProvider) -> Iterator["Strikes"]:
        before, after = (lambda rpc, _: self._strike(rpc, False)), (lambda rpc, _: self._strike(rpc, True))
        provider.before.append(before)
        provider.after.append(after)
        try:
            yield self
        finally:
            provider.before.remove(before)
            provider.after.remove(after)

    def _strike(self, rpc: str, after: bool) -> None:
        if self.left and (self.left[0].rpc, self.left[0].after) == (rpc, after):
            strike = self.left[0]
            strike.times -= 1
            if strike.times <= 0:
                self.left.popleft()
            strike.act()


@contextmanager
def dying(system: System, call: str, number: int, *, after: bool = False) -> Iterator[None]:
    """Kill the process in this block at one call of DynamoDB, before or after it. `number` counts from 1."""
    with at_call(system, call, number, after=after, act=_die) as used, suppress(Died):
        yield
    assert used, f"there was no {call} number {number}"


@contextmanager
def at_call(
    system: System, call: str, number: int, *, act: Callable[[], None], after: bool = False
) -> Iterator[list[bool]]:
    """Call `act` at one call of DynamoDB in this block. The list that is yielded is empty until then."""
    count, used = itertools.count(1), list[bool]()
    events, moment = system.deps.dynamo.client.meta.events, "after" if after else "before"

    def look(**_: Any) -> None:
        if next(count) == number:
            used.append(True)
            act()

    events.register(f"{moment}-call.dynamodb.{call}", look)
    try:
        yield used
    finally:
        events.unregister(f"{moment}-call.dynamodb.{call}", look)


def _die() -> None:
    raise Died
