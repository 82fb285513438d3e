"""Processes of the local system: known by pid and start time, and stopped with everything that they started."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import psutil

from infra.local import clock
from infra.local.say import Trouble

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SAME_START: Final = 2.0
"""Seconds by which two readings of one process's start time may differ, as after the clock was set."""

LONGEST_WORDS: Final = 400


@dataclass(frozen=True)
class ProcessId:
    """The pid and start time of a process, which no later process with the same pid shares."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """Return the ID of the process that has `pid` now, or None."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None

    def process(self) -> psutil.Process | None:
        """Return the process while it lives, or else None. A zombie does not live."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) <= SAME_START
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def write(self, path: Path) -> None:
        """Write it to a file."""
        path.write_text(json.dumps({"pid": self.pid, "started": self.started}))

    @classmethod
    def read(cls, path: Path) -> ProcessId | None:
        """Return what `write` wrote, or None if the file is missing or cannot be read."""
        try:
            data = json.loads(path.read_text())
            return cls(int(data["pid"]), float(data["started"]))
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None


@dataclass(kw_only=True)
class Child:
    """One program of the local system, in a process group of its own."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    pid_file: Path
    grace: float = 10.0
    """Seconds that it has to end after SIGTERM."""
    folder: Path | None = None
    """Its working directory, or this process's."""
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it, with its output in its log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=dict(self.environment),
                umask=0o077,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process_id = ProcessId.of(self.process.pid)
        if process_id is not None:
            process_id.write(self.pid_file)

    @property
    def exit_code(self) -> int | None:
        """Its exit code, or None while it runs."""
        return None if self.process is None else self.process.poll()

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> bool:
        """Stop it and its group. Return whether it ended within its grace."""
        if self.process is None:
            return True
        clean = True
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(self.grace)
            except subprocess.TimeoutExpired:
                clean = False
                self.process.kill()
                self.process.wait()
        end_group(self.process.pid)
        self.process = None
        self.pid_file.unlink(missing_ok=True)
        return clean

    def kill(self) -> None:
        """Kill it and its group at once, so that it cannot write anything."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            end_group(self.process.pid, wait=0.0)
        self.process = None
        self.pid_file.unlink(missing_ok=True)

    def last_words(self, lines: int = 3) -> str:
        """Return the last lines of its log, for a message."""
        try:
            text = self.log.read_bytes()[-4000:].decode(errors="replace")
        except FileNotFoundError:
            return ""
        said = " | ".join([line.strip() for line in text.splitlines() if line.strip()][-lines:])
        return said if len(said) <= LONGEST_WORDS else f"...{said[-LONGEST_WORDS:]}"


def end_group(group: int, wait: float = 3.0) -> None:
    """Wait until the process group `group` ends, and kill what is left of it after `wait` seconds."""
    if _wait_for_end(group, wait):
        return
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    _wait_for_end(group, wait)


def _wait_for_end(group: int, wait: float) -> bool:
    """Return whether the process group `group` ends within `wait` seconds."""
    deadline = clock.monotonic() + wait
    while members(group):
        if clock.monotonic() > deadline:
            return False
        clock.sleep(0.05)
    return True


def members(group: int) -> list[psutil.Process]:
    """Return the live processes of the process group `group`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError, PermissionError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill_processes_under(folder: Path) -> int:
    """Kill the processes whose command line names a file under `folder`, and return how many there were."""
    killed = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            if any(part.startswith(f"{folder}/") for part in process.cmdline()[:3]):
                process.kill()
                killed.append(process)
    psutil.wait_procs(killed, timeout=5)
    return len(killed)


def end_leftovers(pid_files: Iterable[Path], grace: float = 20.0) -> dict[str, bool]:
    """Stop the processes that a killed supervisor left, in the order of their `pid_files`.

    Returns for each name whether the process ended within `grace` seconds.
    """
    ended = {}
    for path in pid_files:
        process_id = ProcessId.read(path)
        process = process_id.process() if process_id else None
        if process is not None:
            process.terminate()
            try:
                process.wait(grace)
                ended[path.stem] = True
            except psutil.TimeoutExpired:
                process.kill()
                ended[path.stem] = False
            end_group(process.pid)
        path.unlink(missing_ok=True)
    return ended


def listens(host: str, port: int) -> bool:
    """Return whether a process accepts connections there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def require_free_port(host: str, port: int, purpose: str, variable: str) -> None:
    """Raise Trouble unless `port` is free. The text says which program has it, and what to do."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError as exc:
            raise Trouble(f"no right to listen on port {port} ({purpose}): choose another, {variable}=...") from exc
        except OSError as exc:
            raise Trouble(
                f"port {port} ({purpose}) is in use{_by_whom(port)}: stop that program, or choose another port, "
                f"for example {variable}={port + 1000 if port < 60000 else port - 1000} make run"
            ) from exc


def _by_whom(port: int) -> str:
    """Return ` by name (pid n)` if the operating system tells, or ""."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.AccessDenied, PermissionError):
        return ""
    for connection in connections:
        if (
            connection.status == psutil.CONN_LISTEN
            and connection.laddr
            and connection.laddr.port == port
            and connection.pid
        ):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""
