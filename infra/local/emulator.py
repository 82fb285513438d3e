"""Starting and stopping the emulator of AWS (infra/emulator), and knowing whether it ended in order."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Final

from infra.local import clock
from infra.local.processes import Child, end_group, kill_processes_under
from infra.local.say import Trouble
from infra.local.settings import LOOPBACK, REGION, ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from infra.local.settings import Settings

HEALTH: Final = "/_ministack/health"
START_WITHIN: Final = 30.0


class Emulator:
    """The emulator of one local system, in its own environment, bound to the loopback."""

    def __init__(self, settings: Settings, python: Path) -> None:
        self._settings = settings
        self._runs = settings.emulator_state / "running"
        """A file that is there while it runs, and stays when it is killed."""
        settings.key()
        command = [str(python), "-m", "infra.emulator", "--host", LOOPBACK, "--port", str(settings.emulator_port)]
        command += ["--key", str(settings.key_file), "--name", settings.domain]
        command += ["--state", str(settings.emulator_state), "--log", str(settings.logs / "functions.log")]
        self.child = Child(
            name="emulator",
            command=command,
            environment=settings.environment(
                GATEWAY_PORT=str(settings.emulator_port),
                TMPDIR=str(settings.temporary),
                AUTH="true",
                IOT_MTLS_ENABLED="0",
                SFTP_ENABLED="0",
                MINISTACK_REGION=REGION,
                LOG_LEVEL="WARNING",
            ),
            log=settings.logs / "emulator.log",
            pid_file=settings.run / "emulator.json",
            grace=30.0,
            folder=ROOT,
        )

    @property
    def was_killed(self) -> bool:
        """Whether it did not end in order the last time; to be asked before `start`."""
        return self._runs.exists()

    def ended_in_order(self) -> None:
        """Note that it ended by itself, and wrote all that it had to write."""
        self._runs.unlink(missing_ok=True)

    def start(self) -> None:
        """Start it and wait until it answers; worker processes of an earlier one end first."""
        kill_processes_under(self._settings.temporary)
        shutil.rmtree(self._settings.temporary, ignore_errors=True)
        for folder in (self._settings.temporary, self._settings.emulator_state):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._runs.touch(mode=0o600)
        self.child.start()
        deadline = clock.monotonic() + START_WITHIN
        while not answers(self._settings.endpoint):
            if not self.child.runs:
                raise Trouble(
                    f"the emulator ended at its start: {self.child.last_words()} (log: {self.child.log}); "
                    "if its state cannot be read, make forget removes it"
                )
            if clock.monotonic() > deadline:
                raise Trouble(f"the emulator did not answer within {START_WITHIN:.0f} s; its log: {self.child.log}")
            clock.sleep(0.05)

    def stop(self) -> bool:
        """Let it write its state and end, its worker processes too; whether it did."""
        process, ended_before = self.child.process, self.child.exit_code is not None
        in_time = self.child.stop()
        if process is not None:
            end_group(process.pid)
        kill_processes_under(self._settings.temporary)
        clean = in_time and not ended_before and (process is None or process.returncode == 0)
        if clean:
            self.ended_in_order()
        return clean


def answers(endpoint: str) -> bool:
    """Tell whether an emulator answers there."""
    for path in (HEALTH, "/_localstack/health"):
        try:
            with urllib.request.urlopen(endpoint + path, timeout=2) as response:  # noqa: S310 - an http address of ours
                if response.status == 200:
                    return True
        except urllib.error.HTTPError:
            continue
        except (OSError, ValueError):
            return False
    return False
