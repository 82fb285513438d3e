"""A whole local system for tests, with free ports, a folder and a stage of its own.

with private.running(tmp_path / "system") as system:
    requests to system.api_url ...
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from infra.local import clock, rootkey
from infra.local.clients import EmulatorClients
from infra.local.dynamodb_local import free_port
from infra.local.settings import LOOPBACK, ROOT, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

READY_WITHIN: Final = 180.0
STOPPED_WITHIN: Final = 60.0


class NotUpError(Exception):
    """The system did not come up, or did not end. The text holds its output."""


@dataclass(kw_only=True)
class System:
    """One private system, as its test sees it."""

    state: Path
    stage: str
    port: int
    emulator_port: int
    bridge_port: int
    variables: Mapping[str, str]
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def api_url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def endpoint(self) -> str:
        """Where AWS's services answer."""
        return f"http://{LOOPBACK}:{self.emulator_port}"

    def client(self, service: str) -> Any:
        """Return a boto3 client of the emulator's `service`, as its root."""
        return EmulatorClients(self.endpoint, rootkey.load_or_make(self.state / "emulator-key.json")).client(service)

    def plugin_root(self, plugin_id: str = "directory") -> Path:
        """Return the folder in which the directory plugin keeps its volumes."""
        return self.state / plugin_id

    @property
    def output(self) -> str:
        """The output of `make run` so far, of all starts."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def pid(self) -> int:
        """Process ID of the supervisor."""
        return self._running().pid

    def pid_of(self, name: str) -> int:
        """Return the process ID of a child: emulator, proxy, bridge or plugin-<id>."""
        return int(json.loads((self.state / "run" / f"{name}.json").read_text())["pid"])

    def workers(self) -> list[psutil.Process]:
        """Return the emulator's worker processes, one for each warm or running function."""
        return psutil.Process(self.pid_of("emulator")).children(recursive=True)

    def start(self) -> None:
        """Start it and wait until it serves. Raises NotUpError."""
        environment = {
            **Settings.from_env().base_environment,
            "MOORAGE_STATE": str(self.state),
            "MOORAGE_STAGE": self.stage,
            "MOORAGE_PORT": str(self.port),
            "MOORAGE_EMULATOR_PORT": str(self.emulator_port),
            "MOORAGE_BRIDGE_PORT": str(self.bridge_port),
            **self.variables,
        }
        (self.state / "run" / "ready.json").unlink(missing_ok=True)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "infra.local", "run"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until it serves (again). Raises NotUpError."""
        deadline = clock.monotonic() + READY_WITHIN
        while not (self.state / "run" / "ready.json").exists():
            if self._running().poll() is not None:
                raise NotUpError(f"the local system ended with {self._running().returncode}:\n{self.output[-4000:]}")
            if clock.monotonic() > deadline:
                self.kill()
                raise NotUpError(f"the local system was not up within {READY_WITHIN:.0f} s:\n{self.output[-4000:]}")
            clock.sleep(0.1)

    def stop(self) -> int:
        """Stop it in order, and return its exit code. Its state stays. Raises NotUpError."""
        process = self._running()
        process.terminate()
        try:
            return process.wait(STOPPED_WITHIN)
        except subprocess.TimeoutExpired as exc:
            self.kill()
            raise NotUpError(
                f"the local system did not stop within {STOPPED_WITHIN:.0f} s:\n{self.output[-4000:]}"
            ) from exc

    def kill(self) -> None:
        """Kill the supervisor as a crash would. Its children stay until the next start finds them."""
        self._running().kill()
        self._running().wait()

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def _log(self) -> Path:
        return self.state.with_name(f"{self.state.name}.log")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise NotUpError("the local system was not started")
        return self._process


def prepare(state: Path, *, stage: str = "e2e", **variables: str) -> System:
    """Return a system on free ports that is not started yet.

    `variables` go to its environment (PLUGIN_ARGS, MOORAGE_PLUGINS, ...).
    """
    ports = {free_port() for _ in range(8)}
    port, emulator_port, bridge_port = sorted(ports)[:3]
    return System(
        state=state.resolve(),
        stage=stage,
        port=port,
        emulator_port=emulator_port,
        bridge_port=bridge_port,
        variables=variables,
    )


@contextmanager
def running(state: Path, *, stage: str = "e2e", **variables: str) -> Iterator[System]:
    """Run a system in this block. After it, no process of the system is left."""
    system = prepare(state, stage=stage, **variables)
    try:
        system.start()
        yield system
    finally:
        if system.runs:
            system.stop()
        else:
            forget_processes(system)


def forget_processes(system: System) -> None:
    """Run `make stop` for `system`, which ends what a killed supervisor left behind."""
    environment = {**Settings.from_env().base_environment, "MOORAGE_STATE": str(system.state)}
    command = [sys.executable, "-m", "infra.local", "stop"]
    subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)
