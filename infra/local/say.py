"""Tell a person what the local system does: steps with their time, and one clear line for a failure."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from infra.local import clock

SHOWN_EVERY: Final = 10.0
"""Seconds between two lines about a running step when the output is no terminal."""
DRAWN_EVERY: Final = 0.25
LONGEST_NOTE: Final = 60
INTERRUPTED: Final = 128 + signal.SIGINT
"""The exit code of a command that Ctrl-C ended."""


class Trouble(Exception):
    """Something that the person at the terminal must know and can act on. It is printed as one line, no traceback."""


def line(text: str = "") -> None:
    """Print `text` now, also when the output is a pipe."""
    _write(f"{text}\n")


def trouble(text: str) -> None:
    """Print what went wrong and what to do."""
    print(f"moorage: {text}", file=sys.stderr, flush=True)


def is_read() -> bool:
    """Return whether the standard output still has a reader. `make logs | head` has none after ten lines."""
    return _read


_read = True


def _write(text: str) -> None:
    """Write to the standard output.

    A reader that is gone (`make run | head`) must not keep a system from stopping, so it raises nothing.
    """
    global _read  # noqa: PLW0603 - the standard output is one for the whole process
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        _read = False
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at its end


@dataclass
class Step:
    """A step that runs: shows the seconds so far, and a note."""

    what: str
    _started: float = field(default_factory=clock.monotonic)
    _note: str = ""
    _over: threading.Event = field(default_factory=threading.Event)

    def note(self, text: str) -> None:
        """Show `text` beside the step until the next note."""
        self._note = text if len(text) <= LONGEST_NOTE else f"{text[:LONGEST_NOTE]}..."

    def seconds(self) -> float:
        """Return the seconds that it has taken so far."""
        return clock.monotonic() - self._started

    def show(self) -> None:
        """Show the step until it ends: in its own line on a terminal, or else every ten seconds."""
        terminal = sys.stdout.isatty()
        while not self._over.wait(DRAWN_EVERY if terminal else SHOWN_EVERY):
            words = f"{self.seconds():.0f} s{f', {self._note}' if self._note else ''} ... "
            _write(f"\r\x1b[K  {self.what} ... {words}" if terminal else words)
        if terminal:
            _write(f"\r\x1b[K  {self.what} ... ")

    def end(self) -> None:
        """Let `show` return."""
        self._over.set()


@contextmanager
def step(what: str) -> Iterator[Step]:
    """Print a step's name when it starts, show that it runs, and print its seconds when it ends."""
    _write(f"  {what} ... ")
    running = Step(what)
    shown = threading.Thread(target=running.show, daemon=True)
    shown.start()
    how = "failed"
    try:
        yield running
        how = f"{running.seconds():.1f} s"
    finally:
        running.end()
        shown.join()
        _write(f"{how}\n")


class Programs:
    """The programs that run now, in any thread. After Ctrl-C all are ended, and no thread starts another one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._ended = False

    def start(self, command: list[str], *, cwd: Path, env: Mapping[str, str]) -> subprocess.Popen[str]:
        """Start a program whose output is read. Raises Trouble after `end`."""
        with self._lock:
            if self._ended:
                raise Trouble("interrupted")
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self._running.add(process)
            return process

    def forget(self, process: subprocess.Popen[str]) -> None:
        """Forget a program that ended by itself."""
        with self._lock:
            self._running.discard(process)

    def end(self) -> None:
        """End the programs that run, and let no other start."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.terminate()


PROGRAMS: Final = Programs()


def run(command: list[str], step: Step, *, cwd: Path, env: Mapping[str, str]) -> None:
    """Run a program and note each line that it prints. Raises Trouble with its last lines when it fails."""
    said: deque[str] = deque(maxlen=25)
    with PROGRAMS.start(command, cwd=cwd, env=env) as process:
        for printed in process.stdout or ():
            said.append(printed.rstrip())
            if printed.strip():
                step.note(printed.strip())
    PROGRAMS.forget(process)
    if process.returncode == 0:
        return
    words = "\n".join(said)
    if "No space left on device" in words:
        raise Trouble(f"the disk that holds {cwd} is full: free some space and run this again")
    if "ensurepip is not available" in words:
        raise Trouble(f"{command[0]} cannot make virtual environments: install its venv package (Debian: python3-venv)")
    raise Trouble(f"{' '.join(command[:4])} failed; its last words:\n{words[-2000:]}")


def short(path: Path) -> str:
    """Return the path relative to the current folder if it is in it, else whole."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


@contextmanager
def readable_errors(where: str) -> Iterator[None]:
    """Turn errors of the operating system (a full disk, a missing right) into Trouble about `where`."""
    try:
        yield
    except OSError as exc:
        if exc.errno == errno.ENOSPC:
            raise Trouble(f"the disk that holds {where} is full: free some space and run this again") from exc
        if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            place = exc.filename or where
            raise Trouble(f"no right to write {place}: give yourself that right, or use another folder") from exc
        raise
