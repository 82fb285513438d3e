"""Starting and stopping the emulator of AWS (MiniStack), and knowing whether it kept its state.

It writes its state to disk only when it ends by SIGTERM. What it forgot after a crash cannot be seen from its health;
so a file beside its state says whether it runs or ended in order.
"""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from infra.local import clock
from infra.local.processes import Child, end_group, end_those_that_name
from infra.local.say import Trouble
from infra.local.settings import LOOPBACK, REGION

if TYPE_CHECKING:
    from pathlib import Path

    from infra.local.settings import Settings

HEALTH: Final = "/_ministack/health"
START_WITHIN: Final = 30.0


@dataclass(frozen=True)
class Past:
    """What became of the state of the last run."""

    crashed: bool
    saved_at: float | None
    """When state was saved last; None when it never was."""


class Emulator:
    """The emulator of one local system, in its own environment, bound to the loopback."""

    def __init__(self, settings: Settings, python: Path) -> None:
        self._settings = settings
        self._note = settings.state / "emulator.json"
        self.child = Child(
            name="emulator",
            command=[str(python), "-m", "ministack"],
            environment=settings.environment(
                GATEWAY_PORT=str(settings.emulator_port),
                BIND_HOST=LOOPBACK,
                PERSIST_STATE="1",
                STATE_DIR=str(settings.emulator_state),
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
        )

    def past(self) -> Past:
        """How the last run ended; to be asked before `start`."""
        try:
            note = json.loads(self._note.read_text())
        except FileNotFoundError:
            return Past(crashed=False, saved_at=None)
        except ValueError:
            return Past(crashed=True, saved_at=None)
        return Past(crashed=bool(note["running"]), saved_at=note["saved_at"])

    def ended_in_order(self) -> None:
        """Note that its state is on disk: whoever stopped it saw it end by itself."""
        self._write_note(running=False, saved_at=clock.now())

    def start(self) -> None:
        """Start it and wait until it answers; worker processes of an earlier one end first."""
        saved_at = self.past().saved_at
        end_those_that_name(self._settings.temporary)
        _empty(self._settings.temporary)
        self._settings.emulator_state.mkdir(parents=True, exist_ok=True)
        self._write_note(running=True, saved_at=saved_at)
        self.child.start()
        deadline = clock.monotonic() + START_WITHIN
        while not answers(self._settings.endpoint):
            if not self.child.runs:
                raise Trouble(
                    f"the emulator ended at its start: {self.child.last_words()} (log: {self.child.log}); "
                    "if its state cannot be read, make clean forgets it"
                )
            if clock.monotonic() > deadline:
                raise Trouble(f"the emulator did not answer within {START_WITHIN:.0f} s; its log: {self.child.log}")
            clock.sleep(0.05)

    def stop(self) -> bool:
        """Let it save its state and end, its worker processes too; whether it did save."""
        group = self.child.process.pid if self.child.process else None
        ended_before = self.child.exit_code is not None
        clean = self.child.stop() and not ended_before
        if group is not None:
            end_group(group)
        end_those_that_name(self._settings.temporary)
        if clean:
            self.ended_in_order()
        return clean

    def _write_note(self, *, running: bool, saved_at: float | None) -> None:
        unfinished = self._note.with_suffix(".unfinished")
        unfinished.write_text(json.dumps({"running": running, "saved_at": saved_at}))
        unfinished.replace(self._note)


def answers(endpoint: str) -> bool:
    """Whether an emulator answers there."""
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


def _empty(folder: Path) -> None:

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
