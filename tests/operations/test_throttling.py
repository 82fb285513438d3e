"""AWS services that are busy, slow, or do not say that they did it: at every call of every route that writes.

Neither emulator throttles, so it is played at boto3's client: `before-call` stands for an error that outlasted
botocore's own retries, `after-call` for an answer that was lost with them, `before-send` for one lost answer that
botocore repeats by itself, the write having happened.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import boto3
import botocore.endpoint
import botocore.exceptions
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config
from moto import mock_aws

from chalicelib import wiring
from chalicelib.domain.deadlines import GATEWAY_TIMEOUT
from chalicelib.domain.external import Page
from chalicelib.domain.operation import Status
from chalicelib.errors import StoreError, StoreUnavailable, Throttled
from chalicelib.operations import engine
from chalicelib.plugin_queries.client import THROTTLE_TRIES, PluginQueries
from chalicelib.sealing import Sealer
from chalicelib.sqs import OperationQueue
from tests import harness
from tests.emulated import aws
from tests.harness import Died, Reply, System, definition, forget, make_system
from tests.operations.invariants import all_operations, unpublished, violations
from tests.operations.kinds import CASES, CLAIM_CASES, Case
from tests.operations.test_faults import WAIT, Tapped

MOST_CALLS = 120
FEWEST_CALLS = {"request": 3, "worker": 4}
BUSY = ("ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded")
CONFLICT = ("TransactionConflictException", "TransactionInProgressException")
"""A transaction that meets another one, and a single write that meets a transaction, end in one of these."""
TROUBLES = ("busy", "in conflict", "broken", "unreachable", "answer lost", "answer lost and repeated")
WRITING = ("PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems")
REPEATS = 6


def answer(code: str, status: int = 400) -> tuple[AWSResponse, dict[str, Any]]:
    """What a `before-call` handler answers instead of the service."""
    error = {"Code": code, "Message": "Request ABCDEF failed"}
    parsed = {"Error": error, "ResponseMetadata": {"HTTPStatusCode": status}}
    return AWSResponse("http://aws", status, HTTPHeaders(), None), parsed


def timeout() -> botocore.exceptions.ReadTimeoutError:
    return botocore.exceptions.ReadTimeoutError(endpoint_url="http://aws")


@dataclass
class Trouble:
    """Strikes one side's calls of DynamoDB from the n-th on, `times` of them."""

    kind: str = ""
    at: int = -1
    times: int = 1
    on: bool = False
    calls: int = 0
    struck: int = 0
    _now: bool = field(default=False, init=False)

    def before(self, call: str) -> Any:
        """`before-call`: counts, and answers in the place of the service."""
        if not self.on:
            return None
        self._now = self.at <= self.calls < self.at + self.times
        self.calls += 1
        self.struck += self._now
        if not self._now or self.kind.startswith("answer lost"):
            return None
        if self.kind == "busy":
            return answer(BUSY[self.at % len(BUSY)])
        if self.kind == "in conflict":
            return answer(CONFLICT[call.startswith("Transact")]) if call in WRITING else None
        if self.kind == "broken":
            return answer("InternalServerError", 500)
        raise botocore.exceptions.ConnectTimeoutError(endpoint_url="http://aws")

    def sent(self) -> None:
        """`before-send`, after the emulator has done it: botocore is told of a timeout and sends it again."""
        if self.on and self._now and self.kind == "answer lost and repeated":
            self._now = False
            raise timeout()

    def after(self) -> None:
        """`after-call`: it happened, and nobody is told."""
        if self.on and self._now and self.kind == "answer lost":
            raise timeout()


class Troubled(Tapped):
    """A system whose request side or worker side has trouble with its tables."""

    def __init__(self, system: System) -> None:
        super().__init__(system)
        self.troubles = {"request": Trouble(), "worker": Trouble()}
        events = system.deps.dynamo.client.meta.events
        events.register("before-call.dynamodb.*", lambda model, **_: self.troubles[self.side].before(model.name))
        events.register("after-call.dynamodb.*", lambda **_: self.troubles[self.side].after())
        events.register_last("before-send.dynamodb.*", lambda **_: self.troubles[self.side].sent())

    def pump(self) -> None:
        """A worker whose tables fail ends, and its message comes back later."""
        queue = self.system.queue
        while queue.messages:
            message = queue.messages.pop(0)
            with self.as_worker():
                try:
                    engine.run(self.system.context, message)
                except (StoreError, Died):
                    self.late.append(message)

    def rest(self) -> None:
        for trouble in self.troubles.values():
            trouble.on = False
        super().rest()


@contextmanager
def troubled() -> Iterator[Troubled]:
    with aws() as place, pytest.MonkeyPatch.context() as monkeypatch:
        # botocore's own pauses between its tries; the fake clock has all others.
        monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=lambda _: None))
        system = make_system(monkeypatch, place, wait_seconds=WAIT)
        system.add_plugin()
        yield Troubled(system)
        forget()


def polite(reply: Reply) -> list[str]:
    """What is wrong with an answer that says that something did not work."""
    if reply.status in (200, 202, 404):
        return []
    if reply.status == 504:
        return [] if "repeat the request" in reply.body else [f"504 without advice: {reply.body}"]
    if reply.status not in (429, 503):
        return [f"{reply.status}: {reply.body}"]
    found = [] if reply.headers.get("Retry-After", "").isdecimal() else ["no Retry-After"]
    found += [] if "try again" in reply.body else [f"no advice: {reply.body}"]
    return found + (["AWS's words"] if "ABCDEF" in reply.body or "Exception" in reply.body else [])


@pytest.mark.parametrize("side", ["request", "worker"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_trouble_at_any_call_of_an_operation_leaves_nothing_half_done(case: Case, side: str, many: bool) -> None:
    for at in range(MOST_CALLS):
        # Each call has one of the troubles; with --many those of kinds with few calls have a lost answer as well.
        one = case in CLAIM_CASES or not many
        kinds = (TROUBLES[at % len(TROUBLES)],) if one else (TROUBLES[at % 4], TROUBLES[4 + at % 2])
        struck = [try_operation(case, side, Trouble(kind, at, on=True)) for kind in kinds]
        if not any(struck):
            break
    else:
        raise AssertionError("it never ended")
    assert at >= FEWEST_CALLS[side]


def try_operation(case: Case, side: str, trouble: Trouble) -> bool:
    """One trouble in one operation; whether there was such a call."""
    with troubled() as tried:
        case.prepare(tried.system)
        tried.troubles[side] = trouble
        reply = case.start(tried.system)
        trouble.on = False
        wrong = polite(reply)
        tried.rest()
        wrong += violations(tried.system)
        tried.side = "request"
        if not case.done(tried.system):
            wrong += [] if case.start(tried.system).status == 200 else ["the repeated request did not work"]
            tried.rest()
            wrong += violations(tried.system)
        tried.side = "request"
        wrong += [] if case.done(tried.system) else ["not done"]
        assert wrong == [], f"{trouble.kind} at call {trouble.at} of the {side}"
        return trouble.struck > 0


@pytest.mark.parametrize("kind", ["busy", "in conflict", "unreachable"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_tables_that_are_away_for_long_are_told_to_the_client_and_outlived_by_the_operation(
    case: Case, kind: str
) -> None:
    """Everything fails from some call on, first for the request, then for the workers; afterwards all is well."""
    for side in ("request", "worker"):
        with troubled() as tried:
            case.prepare(tried.system)
            tried.troubles[side] = Trouble(kind, at=1 if side == "request" else 3, times=10_000, on=True)
            began = tried.system.clock.now()
            reply = case.start(tried.system)
            assert tried.system.clock.now() - began < GATEWAY_TIMEOUT
            assert polite(reply) == []
            assert reply.status == (504 if side == "worker" else 429 if kind == "busy" else 503)
            tried.rest()
            tried.side = "request"
            if not case.done(tried.system):
                assert case.start(tried.system).status == 200
                tried.rest()
            tried.side = "request"
            assert violations(tried.system) == []
            assert case.done(tried.system)


CAPABILITY = {"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}


def _registration(**fields: Any) -> dict[str, Any]:
    known = {"ID": "known", "PluginID": "directory", "ExternalID": "vol-1", "RequestedCapabilities": [CAPABILITY]}
    return {"Volumes": [known | fields]}


def _register(system: System) -> Reply:
    return system.call("PUT", "/v1/volume/csi/known", _registration())


def _update(system: System) -> Reply:
    return system.call("PUT", "/v1/volume/csi/known", _registration(MountOptions={"FSType": "ext4"}))


def _deregister(system: System) -> Reply:
    reply = system.call("DELETE", "/v1/volume/csi/known")
    gone = reply.status == 500 and reply.body == "volume not found: known"
    return Reply(200, {}, "") if gone else reply


def _namespace(system: System) -> Reply:
    return system.call("PUT", "/v1/namespace/prod", {"Name": "prod", "Description": "production"})


def _no_namespace(system: System) -> Reply:
    reply = system.call("DELETE", "/v1/namespace/prod")
    gone = reply.status in (404, 500) and "not found" in reply.body
    return Reply(200, {}, "") if gone else reply


def _done_once(system: System, start: Callable[[System], Reply]) -> None:
    assert start(system).status == 200


@dataclass(frozen=True)
class Write:
    """A route that writes without an operation."""

    name: str
    prepare: tuple[Callable[[System], Reply], ...]
    start: Callable[[System], Reply]
    done: Callable[[System], bool]


def _shown(system: System, target: str) -> Reply:
    return system.call("GET", target)


WRITES = (
    Write("register", (), _register, lambda s: _shown(s, "/v1/volume/csi/known").status == 200),
    Write(
        "update",
        (_register,),
        _update,
        lambda s: _shown(s, "/v1/volume/csi/known").json["MountOptions"]["FSType"] == "ext4",
    ),
    Write("deregister", (_register,), _deregister, lambda s: _shown(s, "/v1/volume/csi/known").status == 404),
    Write("namespace", (), _namespace, lambda s: _shown(s, "/v1/namespace/prod").status == 200),
    Write("no namespace", (_namespace,), _no_namespace, lambda s: _shown(s, "/v1/namespace/prod").status == 404),
)


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("write", WRITES, ids=lambda w: w.name)
def test_trouble_at_any_call_of_a_write(write: Write, trouble: str) -> None:
    """Told politely, or not at all; the same request again does it; every index is published in the end."""
    for at in range(MOST_CALLS):
        with troubled() as tried:
            system = tried.system
            for step in write.prepare:
                _done_once(system, step)
            struck = tried.troubles["request"] = Trouble(trouble, at, on=True)
            wrong = polite(write.start(system))
            struck.on = False
            system.clock.moment += 2  # Retry-After
            again = [write.start(system)]
            while again[-1].status in (429, 503) and len(again) < REPEATS:
                again.append(write.start(system))
            system.clock.moment += 2000
            system.sweep()
            wrong += [] if again[-1].status == 200 else [f"again: {again[-1].status} {again[-1].body}"]
            wrong += [] if write.done(system) else ["not done"]
            wrong += unpublished(system)
            assert wrong == [], f"{trouble} at call {at}"
            if not struck.struck:
                break
    else:
        raise AssertionError("it never ended")
    assert at >= 3


def test_a_queue_that_does_not_answer_delays_and_loses_nothing() -> None:
    for case in CASES:
        with troubled() as tried:
            case.prepare(tried.system)
            tried.system.queue.fail = Throttled("the queue is busy")
            assert case.start(tried.system).status == 504
            assert "SendMessage" not in tried.tap.names
            assert tried.system.sweep().sent == 0
            tried.system.queue.fail = None
            tried.rest()
            tried.side = "request"
            assert violations(tried.system) == []
            assert case.done(tried.system)


@pytest.mark.parametrize("code", ["ThrottlingException", "KMSInternalException", "unreachable"])
def test_a_key_service_that_does_not_seal_is_told_before_anything_is_stored(code: str) -> None:
    with troubled() as tried:
        system = tried.system
        with kms_in_trouble(system.sealer, "GenerateDataKey", code):
            reply = system.call("PUT", "/v1/volume/csi/data/create", definition(Secrets={"password": "hunter"}))
            assert (reply.status, polite(reply)) == (503, [])
            assert all_operations(system) == []
        assert (
            system.call("PUT", "/v1/volume/csi/data/create", definition(Secrets={"password": "hunter"})).status == 200
        )
        assert violations(system) == []


@pytest.mark.parametrize("code", ["ThrottlingException", "AccessDeniedException", "unreachable"])
def test_a_key_service_that_does_not_open_delays_the_operation(code: str) -> None:
    with troubled() as tried:
        system = tried.system
        with kms_in_trouble(system.sealer, "Decrypt", code):
            reply = system.call("PUT", "/v1/volume/csi/data/create", definition(Secrets={"password": "hunter"}))
            assert (reply.status, polite(reply)) == (504, [])
            assert system.provider.log == [], "the plugin was called without its secrets"
        tried.rest()
        assert [o.status for o in all_operations(system)] == [Status.SUCCEEDED]
        assert system.provider.secrets == [{"password": "hunter"}]
        assert violations(system) == []


@contextmanager
def kms_in_trouble(sealer: Sealer, call: str, code: str) -> Iterator[None]:
    """Every `call` of the key service ends in `code` (or in nothing)."""

    def fail(**_: Any) -> Any:
        if code == "unreachable":
            raise botocore.exceptions.ConnectTimeoutError(endpoint_url="http://aws")
        return answer(code)

    sealer.open(sealer.seal(b"warm", {}), {})
    sealer.session.get_component("event_emitter").register(f"before-call.kms.{call}", fail, unique_id="trouble")
    handlers = [c.meta.events for c in kms_clients(sealer)]
    for events in handlers:
        events.register(f"before-call.kms.{call}", fail, unique_id="trouble")
    yield
    for events in [sealer.session.get_component("event_emitter"), *handlers]:
        events.unregister(f"before-call.kms.{call}", fail, unique_id="trouble")


def kms_clients(sealer: Sealer) -> list[Any]:
    """The KMS clients that the SDK has built so far."""
    providers = (sealer._sealing, sealer._opening)
    return [client for provider in providers for client in provider._regional_clients.values()]


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[OperationQueue]:
    """On moto: the emulator's queues need its server."""
    with mock_aws():
        monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", f"https://sqs.{harness.REGION}.amazonaws.com")
        made = OperationQueue("operations", region=harness.REGION)
        boto3.client("sqs", region_name=harness.REGION).create_queue(QueueName="operations")
        made.send("warm", "create")
        yield made


@pytest.mark.parametrize("code", ["OverLimit", "RequestThrottled", "unreachable", "answer lost"])
def test_messages_that_cannot_be_sent_are_told_as_such(queue: OperationQueue, code: str) -> None:
    def fail(**_: Any) -> Any:
        if code == "unreachable":
            raise botocore.exceptions.ConnectTimeoutError(endpoint_url="http://aws")
        if code == "answer lost":
            raise timeout()
        return answer(code)

    moment = "after-call" if code == "answer lost" else "before-call"
    queue._client.meta.events.register(f"{moment}.sqs.SendMessage", fail)
    with pytest.raises(StoreUnavailable, match="the operation is recorded and will be run"):
        queue.send("op", "create")


class BusyLambda:
    """Refuses so many invocations before it accepts one."""

    def __init__(self, refusals: int, code: str) -> None:
        self.refusals, self.code, self.calls = refusals, code, 0

    def invoke(self, **_: Any) -> dict[str, Any]:
        self.calls += 1
        if self.calls <= self.refusals:
            raise botocore.exceptions.ClientError({"Error": {"Code": self.code, "Message": "ABCDEF"}}, "Invoke")
        return {"Payload": Body()}


class Body:
    def read(self) -> bytes:
        return json.dumps({"ok": {"entries": [], "next_token": ""}}).encode()


@pytest.mark.parametrize(
    ("refusals", "code", "raised", "calls"),
    [
        (THROTTLE_TRIES - 1, "TooManyRequestsException", None, THROTTLE_TRIES),
        (THROTTLE_TRIES, "TooManyRequestsException", Throttled, THROTTLE_TRIES),
        (1, "ResourceNotFoundException", StoreUnavailable, 1),
    ],
)
def test_a_question_is_repeated_while_too_many_functions_run(
    system: System, refusals: int, code: str, raised: type[StoreError] | None, calls: int
) -> None:
    client, began = BusyLambda(refusals, code), system.clock.now()
    queries = PluginQueries("ask", "audit", region=harness.REGION, sleep=system.clock.sleep, jitter=system.clock.jitter)
    queries._client = client
    if raised is None:
        assert queries.list_volumes("p", per_page=1, next_token="") == Page([], "")
    else:
        with pytest.raises(raised, match="try again in a moment"):
            queries.list_volumes("p", per_page=1, next_token="")
    assert client.calls == calls
    assert system.clock.now() - began < 3


def test_every_client_has_timeouts_and_retries_that_fit_into_a_request(system: System, queue: OperationQueue) -> None:
    sealer = wiring.sealer()
    sealer.open(sealer.seal(b"warm", {}), {})
    queries = PluginQueries("ask", "audit", region=harness.REGION, sleep=system.clock.sleep, jitter=system.clock.jitter)
    clients = [wiring.stores().dynamo.client, queue._client, queries._lambda(), *kms_clients(sealer)]
    names = {client.meta.service_model.service_name for client in clients}
    assert names == {"dynamodb", "sqs", "lambda", "kms"}
    for client in clients:
        config: Config = client.meta.config
        given: dict[str, Any] = config.retries  # type: ignore[attr-defined]
        assert given["mode"] == "standard"
        assert config.connect_timeout <= 2  # type: ignore[attr-defined]
        one_try = config.connect_timeout + config.read_timeout  # type: ignore[attr-defined]
        assert one_try * given["total_max_attempts"] < GATEWAY_TIMEOUT, client.meta.service_model.service_name
        assert config.read_timeout < GATEWAY_TIMEOUT  # type: ignore[attr-defined]
