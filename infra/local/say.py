"""What the local system tells a person: steps with their time, and one clear line for a failure."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from infra.local import clock


class Trouble(Exception):
    """Something the person at the terminal must know and can act on: one line, no traceback."""


def line(text: str = "") -> None:
    """Say `text` now, also when the output is a pipe."""
    print(text, flush=True)


def trouble(text: str) -> None:
    """Say what went wrong and what to do."""
    print(f"moorage: {text}", file=sys.stderr, flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Name a step when it starts and say how long it took when it ends."""
    started = clock.monotonic()
    print(f"  {what} ... ", end="", flush=True)
    try:
        yield
    except BaseException:
        print("failed", flush=True)
        raise
    print(f"{clock.monotonic() - started:.1f} s", flush=True)


@contextmanager
def plain_words(where: str) -> Iterator[None]:
    """Turn what the operating system refuses (a full disk, a missing right) into one line about `where`."""
    try:
        yield
    except OSError as exc:
        if exc.errno == errno.ENOSPC:
            raise Trouble(f"the disk that holds {where} is full: free some space and run this again") from exc
        if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            place = exc.filename or where
            raise Trouble(f"no right to write {place}: give yourself that right, or use another folder") from exc
        raise
