"""Each process of the local system is killed while a client creates and deletes: what was answered stays true.

The client believes every 200 at once: nothing of it may be lost, not even what was answered just before the kill.
"""

import contextlib
import http.client
import json
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from infra.local import clock, private
from tests.e2e.api import kill_workers, request, stored, wait_for
from tests.harness import definition

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

KILLED = ("proxy", "bridge", "plugin-directory", "run_operation", "emulator", "supervisor", "all")
SAMPLE = ("bridge", "all")
"""Those whose kills `make test` tries; `make conformance` (--many) tries each."""

SHORT_CALLS = "--deadline directory:CreateVolume=3 --deadline directory:DeleteVolume=3 --grace directory=1"
"""What a killed bridge or plugin was asked is in doubt until its call cannot land any more: 125 s without these."""


@dataclass
class Client:
    """Creates volumes, deletes every second one, until it is told to stop, and remembers what was answered."""

    system: private.System
    prefix: str
    over: threading.Event = field(default_factory=threading.Event)
    created: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    tried: set[str] = field(default_factory=set)
    """Volumes of which the last request got no answer, or one that says to look again."""

    def run(self) -> None:
        number = 0
        while not self.over.is_set():
            name, number = f"{self.prefix}-{number}", number + 1
            self.tried.add(name)
            if self._succeeds("PUT", name):
                self.tried.discard(name)
                self.created.add(name)
                if number % 2 == 0:
                    self.created.discard(name)
                    self.tried.add(name)
                    if self._succeeds("DELETE", name):
                        self.tried.discard(name)
                        self.deleted.add(name)

    def _succeeds(self, method: str, name: str) -> bool:
        """Send one request, whatever becomes of it: the proxy itself may be away, and answers in words of its own."""
        target, body = f"/v1/volume/csi/{name}/delete", b""
        if method == "PUT":
            target, body = f"/v1/volume/csi/{name}/create", json.dumps(definition(name)).encode()
        connection = http.client.HTTPConnection(urlsplit(self.system.api_url).netloc, timeout=20.0)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request(method, target, body)
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                return True
        clock.sleep(0.1)
        return False


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[private.System]:
    with private.running(tmp_path_factory.mktemp("durable") / "system", BRIDGE_ARGS=SHORT_CALLS) as running:
        yield running


def names_of(system: private.System) -> set[str]:
    return {volume["ID"] for volume in request(system, "GET", "/v1/volumes?type=csi").json}


def storage_of(system: private.System) -> dict[str, Path]:
    """Folders by the ID of their volume: the provider's name begins with it, and ends in two parts of its own."""
    return {path.name.rsplit("-", 2)[0]: path for path in stored(system)}


def kill(system: private.System, victim: str) -> None:
    if victim == "run_operation":
        kill_workers(system, victim)
    elif victim in ("supervisor", "all"):
        others = [] if victim == "supervisor" else ["emulator", "proxy", "bridge", "plugin-directory"]
        processes = [psutil.Process(system.pid_of(name)) for name in others]
        system.kill()
        for process in processes:
            process.send_signal(signal.SIGKILL)
    else:
        psutil.Process(system.pid_of(victim)).send_signal(signal.SIGKILL)


def serves(system: private.System) -> bool:
    with contextlib.suppress(OSError, ValueError, AssertionError):
        plugins = request(system, "GET", "/v1/plugins?type=csi", seconds=5.0)
        return plugins.status == 200 and [p["ControllersHealthy"] for p in plugins.json] == [1]
    return False


def open_operations(system: private.System) -> list[object]:
    targets = [f"/v1/operations?status={status}" for status in ("pending", "running", "in%20doubt")]
    return [operation for target in targets for operation in request(system, "GET", target).json["Operations"]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("victim", KILLED if metafunc.config.getoption("--many") else SAMPLE)


def test_what_was_answered_is_true_after_a_kill(system: private.System, victim: str) -> None:
    client = Client(system, f"kill-{victim.replace('_', '-')}")
    thread = threading.Thread(target=client.run)
    thread.start()
    wait_for(lambda: len(client.created) >= 3)
    kill(system, victim)
    if victim in ("supervisor", "all"):
        system.start()
    before = len(client.created)
    wait_for(lambda: serves(system))
    wait_for(lambda: len(client.created) > before)
    client.over.set()
    thread.join()
    wait_for(lambda: not open_operations(system), seconds=120.0)
    known, storage = names_of(system), storage_of(system)
    assert client.created <= known
    assert not client.deleted & known
    assert not client.deleted & storage.keys()
    # Of what got no answer either is true, but records and storage agree.
    mine = {name for name in known | storage.keys() if name.startswith(client.prefix)}
    assert {name for name in mine if (name in known) != (name in storage)} == set()
    assert mine <= client.created | client.tried
