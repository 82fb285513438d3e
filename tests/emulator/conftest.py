"""The emulator of `make run` as a process, without the rest of a local system."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.local import environments
from infra.local.clients import EmulatorClients
from infra.local.dynamodb_local import free_port
from infra.local.emulator import Emulator
from infra.local.settings import Settings


class Running:
    """One emulator and its state folder. It can be killed and started again."""

    def __init__(self, state: Path) -> None:
        base = Settings.from_env().base_environment
        self.settings = Settings(state=state, emulator_port=free_port(), function_variables={}, base_environment=base)
        for folder in (self.settings.run, self.settings.logs):
            folder.mkdir(parents=True)
        environments.ensure(environments.EMULATOR)
        self.emulator = Emulator(self.settings)
        self.emulator.start()

    def kill(self) -> None:
        self.emulator.child.kill()

    def restart(self) -> None:
        self.emulator.start()

    def client(self, service: str) -> Any:
        return EmulatorClients(self.settings.endpoint, self.settings.key()).client(service)

    def written(self) -> int:
        """Bytes that the process had written so far (Linux counts them)."""
        process = self.emulator.child.process
        assert process is not None
        return int(psutil.Process(process.pid).io_counters().write_chars)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Running]]:
    """Start an emulator of the test's own, which ends with the test."""
    started: list[Running] = []

    def begin() -> Running:
        started.append(Running(tmp_path / f"state{len(started)}"))
        return started[-1]

    yield begin
    for running in started:
        running.emulator.child.kill()


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One for all tests of a module that leave it running."""
    running = Running(tmp_path_factory.mktemp("emulator") / "state")
    yield running
    running.emulator.child.kill()
