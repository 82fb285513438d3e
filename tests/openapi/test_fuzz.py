"""schemathesis makes requests up from docs/openapi.yaml, good ones and bad ones, and sends them through the handlers.

Nomad answers 500 when a rule says no, so a status is no proof of a fault. A fault is an exception in a handler, which
the endpoint answers with `internal error`, and any answer that the document does not describe.
"""

import contextlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.generation.case import Case
from werkzeug.test import Client

from tests import harness
from tests.emulated import aws
from tests.harness import System, definition
from tests.openapi.contract import document

EXAMPLES = 8
"""Made-up requests of each kind for each operation; all of them together take well under a minute."""
DOCUMENT: Any = schemathesis.openapi.from_dict(dict(document().content))
GOOD, BAD = GenerationMode.POSITIVE, GenerationMode.NEGATIVE


def kinds() -> Iterator[tuple[str, GenerationMode]]:
    """Operations with the kinds of requests that can be made for them: none is bad if any text will do everywhere."""
    for operation in document().operations:
        yield operation.id, GOOD
        given = [p for p in document().parameters(operation) if p["in"] == "query"]
        if given or "requestBody" in operation.body:
            yield operation.id, BAD


class Gateway:
    """A WSGI application in front of the handlers, as API Gateway is; schemathesis checks what it passes on."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.statuses: Counter[int] = Counter()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length else None
        headers = {k[5:].replace("_", "-"): v for k, v in environ.items() if k.startswith("HTTP_")}
        path = quote(environ["PATH_INFO"].encode("latin-1"))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            reply = self.system.call(
                environ["REQUEST_METHOD"], path, body, query=environ["QUERY_STRING"], headers=headers
            )
        assert not reply.body.startswith("internal error"), printed.getvalue()
        assert '"event": "fault"' not in printed.getvalue(), printed.getvalue()
        self.statuses[reply.status] += 1
        start_response(f"{reply.status} -", [(k, v.encode().decode("latin-1")) for k, v in reply.headers.items()])
        return [reply.body.encode("utf-8", "surrogatepass")]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """One system for all requests: they meet what earlier ones left behind, as they would outside."""
    with aws() as place, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        system = harness.make_system(patch, place)
        system.add_plugin(controller_capabilities=harness.CAPABILITIES | {"LIST_SNAPSHOTS"})
        for question in ("list_volumes", "list_snapshots"):
            system.plugin_queries.answers[question] = lambda **_: {"entries": [], "next_token": ""}
        system.call("PUT", "/v1/namespace", {"Name": "team"})
        system.call("PUT", "/v1/volume/csi/data/create", definition())
        yield Gateway(system)
        harness.forget()


@pytest.mark.parametrize(("operation_id", "mode"), [pytest.param(i, m, id=f"{i}-{m.value}") for i, m in kinds()])
def test_no_made_up_request_meets_a_fault_or_gets_an_answer_that_is_not_described(
    gateway: Gateway, operation_id: str, mode: GenerationMode
) -> None:
    DOCUMENT.app = gateway
    cases = DOCUMENT.find_operation_by_id(operation_id).as_strategy(generation_mode=mode)

    @seed(20261124)
    @settings(
        max_examples=EXAMPLES,
        deadline=timedelta(seconds=20),
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def send(case: Case[Any]) -> None:
        aim(case.body)
        case.call(app=gateway)

    send()


def aim(body: Any) -> None:
    """Half of the definitions are of the plugin that is there: an unknown one is refused before all else."""
    volumes = body.get("Volumes") if isinstance(body, dict) else None
    for volume in volumes if isinstance(volumes, list) else ():
        if isinstance(volume, dict) and len(str(volume)) % 2:
            volume["PluginID"] = "directory"


def test_requests_of_every_kind_were_made(gateway: Gateway) -> None:
    """Successes, missing things, refusals, malformed requests: else the tests above showed little."""
    assert gateway.statuses.keys() >= {200, 400, 404, 500}, gateway.statuses
    assert gateway.statuses[200] > len(document().operations) // 2, gateway.statuses


def test_a_fault_in_a_handler_is_noticed(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setitem(gateway.system.plugin_queries.answers, "list_volumes", broken)
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        Client(gateway).get("/v1/volumes/external?plugin_id=directory")
