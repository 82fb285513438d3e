"""Reads the pages docs/adding-*.md: numbered steps, each of which says what to insert into which file.

A step names its file by the first path in it. Before each block it says where the block goes: "New file:", "After `a
line`:" or "Replace `a line`:". Such a line must occur once in the file, leading spaces aside.
"""

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_STEP: Final = re.compile(r"^(\d+)\. (.*?)(?=^\d+\. |^Check: )", re.MULTILINE | re.DOTALL)
_PATH: Final = re.compile(r"`([\w.-]+(?:/[\w.-]+)+)`")
_BLOCK: Final = re.compile(
    r"(?:(New\s+file)|(After|Replace)\s+`([^`]+)`):\s*\n\s*\n(?P<indent> +)```\w*\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_CHECK: Final = re.compile(r"^Check: `pytest ([^`]+)`", re.MULTILINE)


@dataclass(frozen=True)
class Edit:
    """A block, and where it goes: after a line, in the place of a line, or into a new file (`line` is empty)."""

    file: str
    line: str
    block: str
    replaces: bool = False

    def applied(self, text: str) -> str:
        """Return the text with the block in it; raises ValueError when its place is not one line."""
        if not self.line:
            return self.block
        lines = text.splitlines(keepends=True)
        found = [n for n, line in enumerate(lines) if line.strip() == self.line]
        if len(found) != 1:
            raise ValueError(f"{self.file} has {len(found)} lines {self.line!r}")
        place = found[0]
        lines[place : place + 1] = [self.block] if self.replaces else [lines[place], self.block]
        return "".join(lines)


@dataclass(frozen=True)
class Page:
    """The steps of one page in order, and the arguments of pytest whose tests see each of them missing."""

    steps: tuple[tuple[Edit, ...], ...]
    checks: tuple[str, ...]


def read(page: Path) -> Page:
    """Return the steps of a page; raises ValueError when a step says nothing to do, or numbers have a gap."""
    text = page.read_text()
    checks = _CHECK.search(text)
    found = [(int(number), _edits(body)) for number, body in _STEP.findall(text)]
    if checks is None or [number for number, _ in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"{page.name} has no line of checks, or a gap in its numbers")
    if empty := [number for number, edits in found if not edits]:
        raise ValueError(f"{page.name}: steps {empty} insert nothing")
    return Page(tuple(edits for _, edits in found), tuple(shlex.split(checks[1])))


def made(page: Path) -> set[str]:
    """Return the files that the steps of a page make."""
    return {edit.file for edits in read(page).steps for edit in edits if not edit.line}


def _edits(step: str) -> tuple[Edit, ...]:
    path = _PATH.search(step)
    if path is None:
        return ()
    return tuple(
        Edit(path[1], _joined(m[3]), _outdented(m["code"], len(m["indent"])), replaces=m[2] == "Replace")
        for m in _BLOCK.finditer(step)
    )


def _joined(line: str | None) -> str:
    """A line of code that the page's wrapping may have broken."""
    return " ".join((line or "").split())


def _outdented(code: str, width: int) -> str:
    return "".join(line[width:] if line.strip() else "\n" for line in code.splitlines(keepends=True))


def apply(edits: tuple[Edit, ...], root: Path) -> None:
    """Carry out the edits in a tree."""
    for edit in edits:
        file = root / edit.file
        text = file.read_text() if edit.line else ""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(edit.applied(text))


def shown(edits: tuple[Edit, ...]) -> str:
    """Return what a step does, for a failed test."""
    return textwrap.shorten("; ".join(f"{edit.file}: {edit.block.strip()}" for edit in edits), 120)
