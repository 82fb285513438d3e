"""`make logs`: merge the logs of functions, bridge, plugins and the rest of a local system by time."""

from __future__ import annotations

import heapq
import json
import re
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from infra.local import clock, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from infra.local.settings import Settings

LOOK_EVERY: Final = 0.3
TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,6}))?")
FUNCTION: Final = re.compile(r"\S+ moorage-[a-z0-9-]+?(?:-([a-z_]+))? (.*)")
"""A line of functions.log: time, name (moorage-STAGE is the API, moorage-STAGE-NAME another function), text."""


@dataclass(frozen=True, order=True)
class Line:
    """One line of one log. `at` is a time in UTC, as text that sorts."""

    at: str
    source: str
    text: str

    def __str__(self) -> str:
        return f"{self.at or '-':<26} {self.source:<18} {self.text}"


def show(settings: Settings, *, lines: int, follow: bool) -> int:
    """Print the last `lines` lines of all logs. Return the exit code.

    With `follow`, also print new lines until Ctrl-C, or until the output has no reader.
    """
    if not settings.logs.is_dir():
        raise say.Trouble(f"there are no logs in {settings.logs}: nothing was ever started there")
    with suppress(KeyboardInterrupt):
        ends = {path: path.stat().st_size for path in _files(settings)}
        _print(deque(merge(_files(settings)), maxlen=lines))
        while follow and say.is_read():
            clock.sleep(LOOK_EVERY)
            _print(sorted(_new(settings, ends)))
    return 0


def _print(lines: Iterable[Line]) -> None:
    for line in lines:
        say.line(str(line))
        if not say.is_read():
            break


def merge(files: Iterable[Path]) -> Iterator[Line]:
    """Yield all lines of the files in order of time. A line without a time follows the line before it."""
    return heapq.merge(*(_lines(path.stem, path.read_text(errors="replace")) for path in files))


def _files(settings: Settings) -> list[Path]:
    return sorted(settings.logs.glob("*.log"))


def _new(settings: Settings, ends: dict[Path, int]) -> Iterator[Line]:
    """Yield the whole lines that were added to the logs after `ends`, and move `ends` on.

    A log that became shorter was begun anew.
    """
    for path in _files(settings):
        start = ends.get(path, 0)
        with path.open("rb") as file:
            file.seek(start if start <= path.stat().st_size else 0)
            added = file.read()
            ends[path] = file.tell()
        whole, newline, _ = added.rpartition(b"\n")
        # A line that is still being written is left for the next time.
        ends[path] -= len(added) - len(whole) - len(newline)
        yield from _lines(path.stem, whole.decode(errors="replace"))


def _lines(source: str, text: str) -> Iterator[Line]:
    at = ""
    for raw in text.splitlines():
        found = TIME.search(raw[:80])
        if found is not None:
            day, time, fraction = found.groups()
            at = max(at, f"{day}T{time}.{(fraction or '0').ljust(3, '0')[:3]}Z")
        function = FUNCTION.fullmatch(raw) if source == "functions" else None
        yield Line(at, function[1] or "api", _readable(function[2])) if function else Line(at, source, _readable(raw))


def _readable(raw: str) -> str:
    """Return a line of JSON as `message name=value ...`, and any other line as it is."""
    try:
        fields = json.loads(raw)
    except ValueError:
        return raw
    if not isinstance(fields, dict):
        return raw
    fields.pop("time", None)
    words = [str(fields.pop(name)) for name in ("level", "message", "event") if name in fields]
    return " ".join([*words, *(f"{name}={value}" for name, value in fields.items())])
