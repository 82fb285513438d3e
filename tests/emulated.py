"""AWS for systems that a test builds in this process: the services of the emulator of `make run`, without its server.

A request of boto3 to `ENDPOINT` is answered where botocore would open a connection. The emulator's own handler of the
service, loaded from its environment, answers it. One call costs a third of one over HTTP, and there is no process to
start. The work of the server (signatures, policies, HTTP) is tested with whole local systems, in tests/e2e and
tests/infra. The stores' own tests run on moto and on DynamoDB Local (tests/store). The few that need a queue use
moto's.
"""

import importlib
import importlib.util
import io
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
import botocore.handlers
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse

from chalicelib.settings import Settings as ProductSettings
from infra.local import environments
from infra.local.settings import REGION

STAGE: Final = "test"
ENDPOINT: Final = "http://emulator.invalid"
SERVICES: Final = {"DynamoDB_20120810": "dynamodb", "TrentService": "kms"}
"""The services by the first part of X-Amz-Target."""


@dataclass(frozen=True)
class Place:
    """What a system is built on: a client of DynamoDB, and the ARN of a key."""

    tables: Any
    key_arn: str

    @classmethod
    def at(cls, endpoint: str | None = None) -> "Place":
        tables = boto3.client("dynamodb", region_name=REGION, endpoint_url=endpoint)
        kms = boto3.client("kms", region_name=REGION, endpoint_url=endpoint)
        key = kms.create_key()["KeyMetadata"]
        kms.create_alias(AliasName=ProductSettings(stage=STAGE).key_alias, TargetKeyId=key["KeyId"])
        return cls(tables, key["Arn"])


class _Body(io.BytesIO):
    """The body of an answer, as botocore reads it."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


class Emulator:
    """The emulator's services in this process. They handle one request at a time, as in the emulator's own process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def answer(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
        """Return the response for botocore's event `before-send`, or None for other addresses."""
        if not request.url.startswith(ENDPOINT):
            return None
        headers = {name.lower(): _text(value) for name, value in request.headers.items()}
        target = headers.get("x-amz-target", "")
        name = SERVICES.get(target.partition(".")[0])
        assert name is not None, f"no test has needed {request.url} ({target or 'no target'}) before: add its service"
        body: Any = request.body or b""
        raw = body.encode() if isinstance(body, str) else body
        path = urlsplit(request.url).path or "/"
        with self._lock:
            handled = self.service(name).handle_request(request.method, path, headers, raw, {})
            status, answered, text = _finished(handled)
        return AWSResponse(request.url, status, answered, _Body(text if isinstance(text, bytes) else text.encode()))

    def forget_tables(self) -> None:
        """Delete all tables. The key stays."""
        with self._lock:
            self.service("dynamodb").reset()

    def service(self, name: str) -> Any:
        """Return the emulator's module for the service."""
        _load()
        return importlib.import_module(f"ministack.services.{name}")


def _finished(handled: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a handler that awaits nothing. Those of tables and keys await nothing."""
    try:
        handled.send(None)
    except StopIteration as done:
        return done.value
    handled.close()
    raise AssertionError("this handler of the emulator waits for something: it needs an event loop")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


@cache
def _load() -> None:
    """Let this process import the package `ministack` from the emulator's environment, and nothing else from there."""
    python = environments.ensure(environments.EMULATOR)
    places = [str(path) for path in python.parent.parent.glob("lib/python3*/site-packages")]
    spec = PathFinder.find_spec("ministack", places)
    assert spec is not None, f"{python} has no ministack: make emulator"
    assert spec.loader is not None
    module = sys.modules["ministack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


EMULATOR: Final = Emulator()
# As in moto, every session that is made from now on has this handler.
botocore.handlers.BUILTIN_HANDLERS.append(("before-send", EMULATOR.answer))


@cache
def place() -> Place:
    """Return the one place for all systems, since making a client takes as long as ten calls."""
    return Place.at(ENDPOINT)


@contextmanager
def aws() -> Iterator[Place]:
    """Serve an AWS without tables in this block. The clients of boto3 find it by environment variables."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", ENDPOINT)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        try:
            yield place()
        finally:
            EMULATOR.forget_tables()
