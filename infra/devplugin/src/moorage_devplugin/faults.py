"""Inject faults: delays, errors and deaths per RPC, and death at any step of a write.

A rule reads `RPC=WHAT[@after][*TIMES]`. WHAT is a delay in seconds (`2.5s`), `hold` (until the file of rules changes),
a gRPC code (`UNAVAILABLE`) or `die`. Without `@after` it takes effect before the RPC does anything, with it when the
answer is ready. `*` means every RPC.
"""

import os
import re
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc

from moorage_devplugin.refusal import Refused

POINTS: Final = (
    "write-temporary",
    "write-renamed",
    "made-data",
    "placed-data",
    "trashed-data",
    "forgot-record",
    "published-target",
    "unpublished-target",
)
"""Steps at which `--die-at` can end the process, as SIGKILL would."""
LOOK_EVERY: Final = 0.05
"""Seconds between two looks at the file while a call is held."""

_RULE: Final = re.compile(
    r"(?P<rpc>\*|[A-Za-z]+)=(?:(?P<seconds>\d+(?:\.\d+)?)s|(?P<die>die)|(?P<hold>hold)|(?P<code>[A-Z_]+))"
    r"(?P<after>@after)?(?:\*(?P<times>\d+))?"
)


@dataclass
class Rule:
    """One fault. `times` counts down, and None means every time."""

    rpc: str
    after: bool
    seconds: float = 0.0
    code: grpc.StatusCode | None = None
    die: bool = False
    hold: bool = False
    times: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """Parse a rule. Raises ValueError, which says how to write one."""
        found = _RULE.fullmatch(text.strip())
        if found is None:
            raise ValueError(
                f"{text!r} is no fault: write RPC=2.5s, RPC=hold, RPC=UNAVAILABLE or RPC=die, then @after, then *TIMES"
            )
        code = found["code"]
        if code is not None and (code not in grpc.StatusCode.__members__ or code == "OK"):
            raise ValueError(
                f"{code} in {text!r} is no gRPC error: one of {', '.join(list(grpc.StatusCode.__members__)[1:])}"
            )
        return cls(
            rpc=found["rpc"],
            after=found["after"] is not None,
            seconds=float(found["seconds"] or 0),
            code=None if code is None else grpc.StatusCode[code],
            die=found["die"] is not None,
            hold=found["hold"] is not None,
            times=None if found["times"] is None else int(found["times"]),
        )


@dataclass
class Faults:
    """Rules from the command line, and from a file that is read again whenever it changes."""

    rules: list[Rule] = field(default_factory=list)
    file: Path | None = None
    die_at: str | None = None
    stopping: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _from_file: list[Rule] = field(default_factory=list)
    _seen: tuple[int, int] | None = None

    def strike(self, rpc: str, *, after: bool) -> None:
        """Do what the rules say for this moment of `rpc`. Raises Refused for an error code."""
        for rule in self._due(rpc, after=after):
            if rule.die:
                die()
            if rule.seconds:
                self.stopping.wait(rule.seconds)
            while rule.hold and self._stands(rule) and not self.stopping.wait(LOOK_EVERY):
                pass
            if rule.code is not None:
                moment = "after the effect" if after else "before any effect"
                raise Refused(rule.code, f"failure on purpose, {moment}")

    def reach(self, point: str) -> None:
        """Note that a step of a write is done, and end the process if `die_at` names the step."""
        if point == self.die_at:
            die()

    def _due(self, rpc: str, *, after: bool) -> list[Rule]:
        with self._lock:
            self._read_file()
            due = [
                rule
                for rule in (*self.rules, *self._from_file)
                if rule.rpc in ("*", rpc) and rule.after is after and rule.times != 0
            ]
            for rule in due:
                if rule.times is not None:
                    rule.times -= 1
            return due

    def _stands(self, rule: Rule) -> bool:
        """Return whether the rule still applies. The file's rules end when the file changes."""
        with self._lock:
            self._read_file()
            return any(rule is one for one in (*self.rules, *self._from_file))

    def _read_file(self) -> None:
        if self.file is None:
            return
        try:
            status = self.file.stat()
            seen = (status.st_mtime_ns, status.st_size)
            if seen != self._seen:
                lines = [line.partition("#")[0].strip() for line in self.file.read_text().splitlines()]
                self._from_file, self._seen = [Rule.parse(line) for line in lines if line], seen
        except FileNotFoundError:
            self._from_file, self._seen = [], None
        except ValueError as exc:
            raise Refused(grpc.StatusCode.INTERNAL, f"{self.file.name}: {exc}") from exc


def die() -> None:
    """End this process as SIGKILL from outside would, without flushing anything."""
    os.kill(os.getpid(), signal.SIGKILL)
