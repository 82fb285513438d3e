"""The whole control plane in one process, with the real handlers and engine.

DynamoDB and KMS are the emulator's, the provider and the clock are fakes. Every sleep delivers the queued messages, as
a worker would run while a request waits.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, unquote

import boto3

from chalicelib import wiring
from chalicelib.csi.calls import CsiCalls
from chalicelib.domain.plugin import Instance, Node
from chalicelib.operations import engine
from chalicelib.operations.context import StepContext
from chalicelib.plugin_queries.client import PluginQueries
from chalicelib.routes import endpoint
from chalicelib.sealing import Sealer
from chalicelib.service.deps import Budget, Deps
from chalicelib.settings import Settings
from chalicelib.store import tables
from chalicelib.store.turns import TurnStore
from chalicelib.store.waits import WaitStore
from chalicelib.sweeps import index, operations
from tests.emulated import STAGE, Place
from tests.fakes.clock import FakeClock
from tests.fakes.csi_server import FakeChannels
from tests.fakes.provider import FakeProvider

REGION = "us-east-1"
CAPABILITIES = frozenset({"CREATE_DELETE_VOLUME", "LIST_VOLUMES", "CREATE_DELETE_SNAPSHOT", "EXPAND_VOLUME"})

NODE_CAPABILITIES = frozenset({"STAGE_UNSTAGE_VOLUME"})


class Died(BaseException):
    """The process is killed: nothing after it runs, not even an `except Exception`."""


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


BUDGET = Budget(wait=25.0, answer_by=float("inf"))
"""The budget of a test that calls a service itself."""
OBSERVERS: list[Callable[[str, str, Reply], None]] = []
"""Called with every answer of `System.call`. tests/conftest.py compares each with docs/openapi.yaml."""


class FakeQueue:
    """A queue that keeps its messages in order. A test may lose or repeat them."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.fail: Exception | None = None
        self.tap: Any = None

    def send(self, operation_id: str, kind: str) -> None:
        if self.fail is not None:
            raise self.fail
        if self.tap is not None:
            self.tap.tap.before("SendMessage")
        self.messages.append(operation_id)
        if self.tap is not None:
            self.tap.tap.done()


class AgreeablePlugins(PluginQueries):
    """Plugins that confirm every volume, unless a test gives them other `answers`.

    An answer is called with the fields of the query. It returns the answer's JSON, or raises.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Callable[..., Any]] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.audits: list[tuple[str, str]] = []

    def start_audit(self, plugin_id: str, run: str) -> None:
        self.audits.append((plugin_id, run))

    def send(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        query = {name: value for name, value in event.items() if name not in ("ask", "deadline")}
        self.asked.append((event["ask"], query))
        answer = self.answers.get(event["ask"])
        return {"ok": answer(**query) if answer else None}


@dataclass
class System:
    """The control plane of one test, with its fakes."""

    clock: FakeClock
    queue: FakeQueue
    provider: FakeProvider
    plugin_queries: AgreeablePlugins
    sealer: Sealer
    deps: Deps
    context: StepContext
    rewire: Callable[[Deps], None]
    pumping: bool = field(default=True)

    def use(self, calls: CsiCalls) -> None:
        """Call plugins through this client, in operations and in queries."""
        from tests.plugin import DirectQueries

        self.context = replace(self.context, calls=calls)
        self.deps = replace(self.deps, plugin_queries=DirectQueries(calls, self.sealer))
        self.rewire(self.deps)

    def pump(self) -> None:
        """Deliver the queued messages, as SQS would to workers."""
        while self.pumping and self.queue.messages:
            engine.run(self.context, self.queue.messages.pop(0))

    def sweep(self) -> operations.Report:
        """Send the due operations, and publish for writers that died."""
        report = operations.sweep(self.deps)
        index.sweep(self.deps)
        return report

    def rest(self, rounds: int = 60) -> None:
        """Run the sweeper and the workers `rounds` times, a minute apart, so that nothing is due after it."""
        for _ in range(rounds):
            self.clock.moment += 60
            self.sweep()
            self.pump()

    def call(
        self, method: str, path: str, body: Any = None, *, query: str = "", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Make one request, with the event that API Gateway would send."""

        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        event = {
            "path": unquote(path),
            "httpMethod": method,
            "multiValueQueryStringParameters": parse_qs(query, keep_blank_values=True) or None,
            "headers": dict(headers or {}),
            "requestContext": {"httpMethod": method, "path": path},
        }
        response = endpoint(event, raw)
        reply = Reply(response.status_code, {k: str(v) for k, v in response.headers.items()}, response.body)
        for observer in OBSERVERS:
            observer(method, path, reply)
        return reply

    def add_plugin(self, plugin_id: str = "directory", **fields: Any) -> None:
        given: dict[str, Any] = {
            "node_id": "node-a",
            "address": "127.0.0.1:1",
            "healthy": True,
            "provider": "directory.csi.moorage",
            "provider_version": "1",
            "controller": True,
            "node": True,
            "controller_capabilities": CAPABILITIES,
            "node_capabilities": NODE_CAPABILITIES,
            "grace": 5.0,
        } | fields
        instance = Instance(plugin_id=plugin_id, **given)
        self.deps.plugins.change(plugin_id, instance.node_id, instance, now=self.clock.now())

    def add_node(self, node_id: str = "node-a", *, plugin_id: str = "directory", **fields: Any) -> None:
        """Add a machine with a bridge, and the plugin on it."""
        node = Node(
            id=node_id,
            name=node_id,
            address="127.0.0.1:1",
            key="k",
            instance_id="i",
            sequence=1,
            seen_at=self.clock.now(),
            plugin_ids=(plugin_id,),
        )
        assert self.deps.plugins.put_node(node, digest="", read=None)
        self.add_plugin(plugin_id, node_id=node_id, external_node_id=f"ext-{node_id}", **fields)

    def set_healthy(self, node_id: str, *, healthy: bool) -> None:
        """Mark the node down or up, as the sweep and a registration do, and do nothing that follows from it."""
        self.deps.dynamo.client.update_item(
            TableName="moorage-test-plugins",
            Key={"pk": {"S": "node"}, "sk": {"S": node_id}},
            UpdateExpression="SET healthy = :healthy",
            ExpressionAttributeValues={":healthy": {"BOOL": healthy}},
        )


def definition(volume_id: str = "data", **fields: Any) -> dict[str, Any]:
    """Return a body that creates one volume."""
    given = {
        "ID": volume_id,
        "Name": volume_id,
        "PluginID": "directory",
        "RequestedCapabilities": [{"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}],
    } | fields
    return {"Volumes": [given]}


def make_tables(settings: Settings, client: Any = None) -> None:
    client = client or boto3.client("dynamodb", region_name=REGION)
    for table in tables.definitions(settings.table("")):
        client.create_table(**table)


CACHED = (
    wiring.settings, wiring.clock, wiring.stores, wiring.queue, wiring.sealer, wiring.deps, wiring.csi_calls,
    wiring.step_context,
)  # fmt: skip


CHANNELS: list[FakeChannels] = []
"""The channels of the systems that were made since the last `forget`."""


def forget() -> None:
    """Stop the plugin, and forget what wiring built, so that the next test builds its own."""
    for cached in CACHED:
        cached.cache_clear()
    while CHANNELS:
        CHANNELS.pop().close()


def make_system(
    monkeypatch: Any, place: Place, *, wait_seconds: float = 25.0, clock: FakeClock | None = None
) -> System:
    """Build a system on the AWS that boto3 finds, and let wiring return it. Requests wait `wait_seconds`."""
    forget()
    settings = Settings(stage=STAGE, key_arn=place.key_arn)
    monkeypatch.setattr(wiring, "settings", lambda: settings)
    clock = clock or FakeClock()
    queue, provider, plugin_queries = FakeQueue(), FakeProvider(), AgreeablePlugins()
    channels = FakeChannels(provider, clock.monotonic)
    CHANNELS.append(channels)
    monkeypatch.setattr(wiring, "clock", lambda: clock)
    stores = wiring.stores()
    make_tables(settings, place.tables)
    sealer = wiring.sealer()
    deps = Deps(
        **stores.parts(),
        sealer=sealer,
        queue=queue,
        plugin_queries=plugin_queries,
        waits=WaitStore(stores.dynamo, limit=settings.max_waits),
        wait_seconds=wait_seconds,
    )
    calls = CsiCalls(stores.plugins.instances, stores.plugins.instance, channels, clock.jitter)
    context = StepContext(**stores.parts(), secrets=sealer, calls=calls, turns=TurnStore(stores.dynamo))

    def rewire(built: Deps) -> None:
        monkeypatch.setattr(wiring, "deps", lambda: built)

    rewire(deps)
    system = System(clock, queue, provider, plugin_queries, sealer, deps, context, rewire)
    clock.on_sleep.append(system.pump)
    return system
