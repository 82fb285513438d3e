"""The whole local system in the foreground: start everything in order, watch it, stop all of it.

    plugins -> emulator -> stack, app and certificates -> proxy -> bridge

Each program is a child of this process, in a process group of its own. A child that ends is started again after a
pause (supervisor.py). One that cannot stay up ends the system with a line that says why.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import IO, TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from infra.local import certificates, children, clock, deployment, own, say
from infra.local.crash_audit import CrashAudit
from infra.local.emulator import KEPT_AFTER_A_KILL, Emulator, answers, api_address
from infra.local.next_steps import next_steps
from infra.local.plugins import usable_plugins
from infra.local.processes import ProcessId, end_leftovers, listens, require_free_port
from infra.local.settings import LOOPBACK, Settings
from infra.local.supervisor import TRIES, Role, Supervisor, pid_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

NEEDED_MEGABYTES: Final = 200
REGISTERED_WITHIN: Final = 20.0
LONGEST_LOG: Final = 20_000_000
"""Bytes. A larger log is set aside at the next start."""
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _StopRequest(Exception):
    """A signal asked the system to stop while it was starting."""


@dataclass
class System:
    """One local system of one state folder."""

    settings: Settings
    _children: Supervisor = field(default_factory=Supervisor)
    _emulator: Emulator | None = None
    _emulator_failures: int = 0
    _audit: CrashAudit = field(init=False)
    _stop: bool = False
    """Set by the signal handler. Not an Event: the handler may run while this thread holds a lock that `set` needs."""
    _api: str = ""
    """The API's address at the emulator."""

    def __post_init__(self) -> None:
        self._audit = CrashAudit(self.settings)

    def run(self) -> int:
        """Start everything, stay until a signal or a failure, stop everything, and return the exit code."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._ask_to_stop)
        os.umask(0o077)
        code = 0
        with say.readable_errors(str(self.settings.state)):
            own.folder(self.settings.state)
            own.folder(self.settings.run)
            with self._lock():
                try:
                    self._make_folders()
                    self._start()
                    self._watch()
                except _StopRequest:
                    pass
                except say.Trouble as exc:
                    if not self._stop:  # Ctrl-C also ends the programs that this process waits for
                        say.trouble(str(exc))
                        code = 1
                finally:
                    self._stop_everything()
        return code

    def _ask_to_stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stop = True

    def _check_for_stop(self) -> None:
        if self._stop:
            raise _StopRequest

    def _make_folders(self) -> None:
        settings = self.settings
        roots = [*map(settings.plugin_root, settings.plugin_ids)]
        # Volumes of plugins of earlier runs are left as they are, too: the rights in them are their users'.
        own.close(settings.state, but=[*roots, *(volumes.parent for volumes in settings.state.glob("*/volumes"))])
        for folder in (settings.logs, settings.sockets, *roots):
            own.folder(folder)
        for log in settings.logs.glob("*.log"):
            if log.stat().st_size > LONGEST_LOG:
                log.replace(log.with_suffix(".log.1"))
        free = shutil.disk_usage(settings.state).free // 1_000_000
        if free < NEEDED_MEGABYTES:
            raise say.Trouble(
                f"the disk of {settings.state} has {free} MB left and the local system needs {NEEDED_MEGABYTES}: "
                "free some space"
            )

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Let only one system run in one state folder."""
        settings = self.settings
        handle: IO[str]
        with (settings.run / "lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise say.Trouble(
                    f"the local system of {settings.state} runs already: make status says where, make stop ends it"
                ) from exc
            settings.ready_file.unlink(missing_ok=True)
            process_id = ProcessId.of(os.getpid())
            if process_id is not None:
                process_id.write(settings.supervisor_file)
            try:
                yield
            finally:
                settings.supervisor_file.unlink(missing_ok=True)
                settings.ready_file.unlink(missing_ok=True)

    def _start(self) -> None:
        started = clock.monotonic()
        say.line(f"Starting Moorage in {say.short(self.settings.state)}")
        self._end_leftovers()
        self._require_ports()
        for plugin in self.settings.plugins:
            self._children.start(children.plugin(self.settings, plugin))
        self._start_emulator()
        self._deploy()
        self._check_for_stop()
        self._children.start(children.proxy(self.settings, self._api))
        self._children.start(children.bridge(self.settings))
        self._wait_until_usable()
        self._audit.run_if_possible()
        self._write_ready_file()
        say.line(f"Ready after {clock.monotonic() - started:.1f} s.\n")
        say.line(next_steps(self.settings))

    def _end_leftovers(self) -> None:
        ended = end_leftovers(pid_files(self.settings))
        if ended:
            self._audit.needed = True
            say.line(f"  Ended what an earlier run left behind: {', '.join(ended)}")
            if ended.get("emulator"):
                Emulator(self.settings).mark_clean()

    def _require_ports(self) -> None:
        settings = self.settings
        require_free_port(LOOPBACK, settings.port, "the API", "MOORAGE_PORT")
        if settings.emulator_url is None:
            require_free_port(LOOPBACK, settings.emulator_port, "the emulator of AWS", "MOORAGE_EMULATOR_PORT")
        require_free_port(LOOPBACK, settings.bridge_port, "the bridge", "MOORAGE_BRIDGE_PORT")

    def _start_emulator(self) -> None:
        if self.settings.emulator_url is not None:
            if not answers(self.settings.emulator_url):
                raise say.Trouble(
                    f"AWS_ENDPOINT_URL is {self.settings.emulator_url}, and no emulator answers there: start it first, "
                    "or unset AWS_ENDPOINT_URL"
                )
            say.line(f"  Using the emulator at {self.settings.emulator_url}; its state is not ours to keep")
            return
        self._emulator = self._emulator or Emulator(self.settings)
        if self._emulator.was_killed:
            self._audit.needed = True
            say.line(f"  The emulator did not end in order last time. {KEPT_AFTER_A_KILL}")
        with say.step("Starting the emulator of AWS"):
            self._emulator.start()

    def _deploy(self) -> None:
        """Bring the certificates and what is deployed on the emulator up to date."""
        self._check_for_stop()
        certificates.ensure(self.settings)
        own.close(self.settings.certs)
        publish = partial(certificates.publish, self.settings)
        try:
            deployed = deployment.bring_up_to_date(self.settings, beside=publish)
        except (BotoCoreError, ClientError) as exc:
            raise say.Trouble(f"the emulator at {self.settings.endpoint} refused a call: {exc}") from exc
        self._check_for_stop()
        self._api = api_address(self.settings.endpoint, deployed.api_id, deployed.api_stage)

    def _wait_until_usable(self) -> None:
        """Wait until every plugin has answered: a create is refused before. If one does not, the system stays up."""
        wanted = set(self.settings.plugin_ids)
        deadline = clock.monotonic() + REGISTERED_WITHIN
        with say.step("Waiting for the bridge to register its plugins"):
            # Tables that were kept still list the plugins of the last run, so the bridge must listen, too.
            while clock.monotonic() < deadline and not (
                listens(LOOPBACK, self.settings.bridge_port) and wanted <= usable_plugins(self.settings.api_url)
            ):
                self._check_for_stop()
                self._children.restart_ended()
                clock.sleep(0.1)
        missing = wanted - usable_plugins(self.settings.api_url)
        if missing:
            words = " ".join(bridge.last_words() for bridge in self._children.children(Role.BRIDGE))
            say.trouble(
                f"no healthy {', '.join(sorted(missing))} is registered after {REGISTERED_WITHIN:.0f} s, "
                f"so no volume can be created there yet; the bridge says: {words or 'nothing'} "
                f"(logs: {self.settings.logs})"
            )

    def _watch(self) -> None:
        while True:
            clock.sleep(0.25)
            if self._stop:  # before anything is restarted: Ctrl-C reaches the children, too
                return
            self._restart_emulator()
            self._children.restart_ended()
            self._audit.run_if_possible()

    def _restart_emulator(self) -> None:
        """Start an emulator that ended again, at once, and deploy what it lost."""
        emulator = self._emulator
        if emulator is None or emulator.child.runs:
            return
        words = emulator.child.last_words()
        say.line(f"The emulator ended by itself (exit code {emulator.child.exit_code}): {words}")
        self._emulator_failures += 1
        if self._emulator_failures > TRIES:
            raise say.Trouble(f"the emulator ended {self._emulator_failures} times; its log: {emulator.child.log}")
        emulator.stop()
        before = self._api
        self._start_emulator()
        self._deploy()
        if self._api != before:  # the API was made anew, and its ID is part of its address
            self._children.stop(Role.PROXY)
            self._children.start(children.proxy(self.settings, self._api))
        say.line("The system is up again.")

    def _stop_everything(self) -> None:
        if not self._children.children() and self._emulator is None:
            return
        say.line("Stopping.")
        for role in Role:
            if role is Role.EMULATOR:
                self._stop_emulator()
            else:
                self._children.stop(role)
        if self.settings.sockets != self.settings.run:
            shutil.rmtree(self.settings.sockets, ignore_errors=True)
        state = say.short(self.settings.state)
        say.line(f"Stopped. {state} keeps its state: make run goes on from it, make forget removes it.")

    def _stop_emulator(self) -> None:
        if self._emulator is None or self._emulator.child.process is None:
            return
        with say.step("Saving the emulator's state"):
            saved = self._emulator.stop()
        if not saved:
            log = self._emulator.child.log
            say.trouble(f"the emulator did not end in order (log: {log}). {KEPT_AFTER_A_KILL}")

    def _write_ready_file(self) -> None:
        settings = self.settings
        running = self._children.children()
        if self._emulator is not None:
            running.append(self._emulator.child)
        content = {
            "api_url": settings.api_url,
            "endpoint": settings.endpoint,
            "stage": settings.stage,
            "bridge": f"{LOOPBACK}:{settings.bridge_port}",
            "plugins": {plugin_id: str(settings.plugin_root(plugin_id)) for plugin_id in settings.plugin_ids},
            "pids": {child.name: child.process.pid for child in running if child.process is not None},
        }
        # Whole or not at all: other processes read it as soon as it is there.
        unfinished = settings.ready_file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(content, indent=2))
        unfinished.replace(settings.ready_file)
