"""Find the route of a request, by Go's rules for paths and Nomad's for methods.

Paths are matched as Go's http.ServeMux does: exactly, or below a path that ends in `/`, the longest first. A missing
last slash, `//` and dot segments are redirected. A path is unescaped before it is split, so an ID with a slash cannot
be reached, as in Nomad.

In a pattern, `:name` captures one segment, `:name?` one that may be empty, and `:name(word)` that word only. `:name+`
captures the rest of the path, which must not be empty, and `:name*` one that may be. A subtree begins at the first
capture: Go's mux knows `/v1/volume/host/:action(create)` as `/v1/volume/host/`, and a path without captures as itself.
"""

import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from chalicelib.errors import VolumesError
from chalicelib.routes.call import Answer, Call, NoRoute, method_not_allowed
from chalicelib.routes.requirements import Requirement

ANY: Final = "*"
"""Every method."""

Parse: TypeAlias = Callable[[Call], Any]
"""Reads what a request says, and raises the refusal of a malformed one. Returns None if it only checks."""
Handler: TypeAlias = Callable[..., Answer]
"""Called with the Call, with what `parse` returned if that is not None, and with what the pattern captured."""
Watch: TypeAlias = Callable[..., int]
"""Called with the Deps, the Call, the query's index and what the pattern captured. Returns the index to wait on."""
Condition: TypeAlias = Callable[[Call], bool]


def nothing(_call: Call) -> None:
    """Read nothing of a request."""


def always(_call: Call) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Rule:
    """Methods, separated by spaces, and a path pattern. `when` may add a condition."""

    methods: str
    pattern: str

    @property
    def mount(self) -> str:
        """The key of the rule in Go's mux: the path, or the subtree that the first capture is in."""
        return self.pattern.partition(":")[0]

    def captures(self, method: str, below: str) -> list[str] | None:
        """Return what the pattern captures in `below`, the path below its mount, or None if it does not fit."""
        if self.methods != ANY and method not in self.methods.split():
            return None
        tail = self.pattern[len(self.mount) :]
        if not tail:
            return [] if not below else None
        return _captured(tail.split("/"), below.split("/"))


@dataclass(frozen=True, slots=True)
class Route(Rule):
    """A row of the route table. `parse` comes first, then the check of `requirement`, then `watch`, then `handler`."""

    handler: Handler
    requirement: Requirement
    parse: Parse = nothing
    watch: Watch | None = None
    """Makes the route a blocking query, which waits as its options say: `parse` must be routes/options.py's."""
    when: Condition = always


@dataclass(frozen=True, slots=True)
class Refusal(Rule):
    """A row of the table of refusals: the error for a known path with a method that no route has."""

    error: Callable[[], VolumesError]
    when: Condition = always


class Redirect(Exception):
    """The request must be repeated at `path`."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class Mux:
    """The routes and refusals, by their keys in Go's mux."""

    def __init__(self, routes: Iterable[Route], refusals: Iterable[Refusal]) -> None:
        self._routes: dict[str, list[Route]] = defaultdict(list)
        self._refusals: dict[str, list[Refusal]] = defaultdict(list)
        for route in routes:
            self._routes[route.mount].append(route)
        for refusal in refusals:
            self._refusals[refusal.mount].append(refusal)

    def find(self, call: Call) -> tuple[Route, Sequence[str]]:
        """Return the route of a request and what its pattern captured.

        Raises Redirect, NoRoute, or Nomad's refusal of the method or of the path.
        """
        mount = self._mount(call.path)
        below = call.path[len(mount) :]
        for route in self._routes[mount]:
            captured = route.captures(call.method, below)
            if captured is not None and route.when(call):
                return route, captured
        for refusal in self._refusals.get(mount, ()):
            if refusal.captures(call.method, below) is not None and refusal.when(call):
                raise refusal.error()
        raise method_not_allowed()

    def _mount(self, path: str) -> str:
        cleaned = clean(path)
        if cleaned != path:
            raise Redirect(cleaned)
        if path in self._routes:
            return path
        subtree = path
        while subtree := subtree.rpartition("/")[0]:
            if subtree + "/" in self._routes:
                return subtree + "/"
        if path + "/" in self._routes:
            raise Redirect(path + "/")
        raise NoRoute


def clean(path: str) -> str:
    """Return the path without `//` and dot segments, as Go's mux does. The last slash is kept."""
    if "//" not in path and "/." not in path:
        return path
    cleaned = posixpath.normpath(path.lstrip("/").join(("/", "")))
    return cleaned + "/" if path.endswith("/") and cleaned != "/" else cleaned


def _captured(pattern: Sequence[str], path: Sequence[str]) -> list[str] | None:
    captured: list[str] = []
    for position, part in enumerate(pattern):
        if position == len(path):
            return None
        if part.endswith(("+", "*")):
            rest = "/".join(path[position:])
            return [*captured, rest] if rest or part.endswith("*") else None
        segment = path[position]
        if not _fits(part, segment):
            return None
        if part.startswith(":"):
            captured.append(segment)
    return captured if len(pattern) == len(path) else None


def _fits(part: str, segment: str) -> bool:
    if not part.startswith(":"):
        return segment == part
    if part.endswith(")"):
        return segment == part[part.index("(") + 1 : -1]
    return segment != "" or part.endswith("?")
