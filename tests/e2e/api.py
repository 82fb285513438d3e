"""Requests to a whole local system, as any HTTP client would send them."""

import contextlib
import http.client
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psutil

from infra.local import clock, private
from tests import harness
from tests.openapi import contract

BAD_GATEWAY = 502
"""What the gateway itself answers when a function died; it is in no document of ours."""
STILL_RUNNING = 504
PATIENCE = 120.0
"""Seconds for which a request waits for its answer. The API itself takes 29 at most; before them a busy machine may
have to start sixteen functions anew.
"""


@dataclass(frozen=True)
class Reply:
    """An answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def request(
    system: private.System,
    method: str,
    target: str,
    body: Any = None,
    *,
    headers: Mapping[str, str] | None = None,
    seconds: float = PATIENCE,
) -> Reply:
    """One request; `target` is the path with its query, escaped. Redirects are answers here.

    Every answer must be as docs/openapi.yaml says.
    """
    connection = http.client.HTTPConnection(urlsplit(system.api_url).netloc, timeout=seconds)
    try:
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, target, raw, dict(headers or {}))
        answer = connection.getresponse()
        text = answer.read().decode()
        headers = {k.lower(): v for k, v in answer.getheaders()}
        if answer.status != BAD_GATEWAY:
            contract.check(method, urlsplit(target).path, harness.Reply(answer.status, headers, text))
        return Reply(answer.status, headers, text)
    finally:
        connection.close()


def answered(send: Callable[[], Reply], *, tries: int = 3) -> Reply:
    """Send a request until it is answered with an outcome, as its client is told to: on a busy machine an operation
    whose worker died may take longer than one request may last.
    """
    reply = send()
    for _ in range(tries - 1):
        if reply.status != STILL_RUNNING:
            break
        reply = send()
    return reply


def create(system: private.System, volume_id: str, *, seconds: float = PATIENCE, **fields: Any) -> Reply:
    """Create one volume of the directory plugin."""
    capability = {"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}
    volume = {"ID": volume_id, "Name": volume_id, "PluginID": "directory", "RequestedCapabilities": [capability]}
    path = f"/v1/volume/csi/{quote(volume_id, safe='')}/create"
    return request(system, "PUT", path, {"Volumes": [volume | fields]}, seconds=seconds)


def stored(system: private.System, plugin_id: str = "directory") -> list[Path]:
    """The storage of every volume that the plugin has."""
    return sorted((system.plugin_root(plugin_id) / "volumes").iterdir())


def wait_for(what: Callable[[], object], *, seconds: float = 60.0) -> None:
    """Return when it is true; fails after `seconds`."""
    deadline = clock.monotonic() + seconds
    while not what():
        assert clock.monotonic() < deadline, "it never came true"
        clock.sleep(0.05)


def kill_workers(system: private.System, function: str | None = None) -> int:
    """SIGKILL to every process that runs the function, or any, as a lost machine would; answers how many there were."""
    name, killed = f"moorage-{system.stage}-{function}", 0
    for process in system.workers():
        # One that ends at this moment, or ended and was not waited for, is not one to be killed.
        with contextlib.suppress(psutil.NoSuchProcess):
            if function is None or process.environ().get("AWS_LAMBDA_FUNCTION_NAME") == name:
                process.kill()
                killed += 1
    return killed
