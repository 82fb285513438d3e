"""A request, an answer, and the refusals that every route may give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from chalicelib.errors import NotFound, RequestError

BODY_LIMIT: Final = 2 * 1024 * 1024
VALUES_LIMIT: Final = 50_000
"""Values in a body, with those under unknown keys. Reading a million would take longer than a request may."""
_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a route.

    `body` is JSON. Without one the answer is empty. Without an `index` there are no X-Nomad headers.
    """

    body: Any = _MISSING
    index: int | None = None
    known_leader: bool = True
    next_token: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    bare_index: bool = False
    """Only X-Nomad-Index, as Nomad answers writes that go through no query."""
    html: str = ""

    @property
    def has_body(self) -> bool:
        return self.body is not _MISSING


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `path` is unescaped once, as Nomad sees it."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    body: bytes
    started: float
    """When the request came in, on the monotonic clock of chalicelib/clock.py."""

    def parameter(self, name: str, default: str = "") -> str:
        """Return the first value of a query parameter."""
        values = self.query.get(name)
        return values[0] if values else default

    @property
    def namespace(self) -> str:
        return self.parameter("namespace") or "default"

    @property
    def pretty(self) -> bool:
        """Whether JSON is indented. `pretty` with any value but 0 switches it on."""
        return "pretty" in self.query and self.parameter("pretty") != "0"

    @property
    def extended(self) -> bool:
        """Whether the client asks for what Nomad does not show (`Moorage-Extended: true`). Nomad's clients do not."""
        return self.header("Moorage-Extended").strip().lower() == "true"

    @property
    def asynchronous(self) -> bool:
        """Whether the client wants the answer before the work is done (RFC 7240, respond-async)."""
        return "respond-async" in self._preferences

    @property
    def wait_preference(self) -> float | None:
        """The seconds that the client wants to wait at most (RFC 7240, wait). None if it does not say."""
        given = self._preferences.get("wait", "")
        return float(given) if given.isascii() and given.isdigit() and len(given) < 10 else None

    @property
    def _preferences(self) -> dict[str, str]:
        parts = [p.partition(";")[0].partition("=") for p in self.header("Prefer").lower().split(",")]
        return {name.strip(): value.strip().strip('"') for name, _, value in parts}

    def header(self, name: str) -> str:
        return self.headers.get(name.lower(), "")


class NoRoute(NotFound):
    """An unknown path: 404 without a body."""

    def __init__(self) -> None:
        super().__init__("")


class Missing(NotFound):
    """A 404 of a read. It has the index headers, since a client may wait for the thing to appear."""

    def __init__(self, text: str, *, index: int) -> None:
        super().__init__(text)
        self.index = index


def method_not_allowed() -> RequestError:
    """Return Nomad's refusal of a method."""
    return RequestError("Invalid method", status=405)


def resource_not_found() -> NotFound:
    """Return Nomad's refusal of a path below one that it knows."""
    return NotFound("resource not found")


def too_large(body: bytes, limit: int) -> None:
    """Raise RequestError 413 for a body over `limit` bytes or VALUES_LIMIT values, before it is decoded."""
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > VALUES_LIMIT:
        raise RequestError("request body has too many values: send fewer definitions at once", status=413)
    if len(body) > limit:
        raise RequestError(
            f"request body is larger than {limit // 1024} KB: send fewer or smaller definitions", status=413
        )
