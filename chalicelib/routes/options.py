"""Read the query options of every read, with Nomad's errors, in the order in which Nomad checks them."""

from dataclasses import dataclass
from typing import Final

from chalicelib.domain.deadlines import WAIT_LIMIT
from chalicelib.errors import Refused, RequestError
from chalicelib.routes.call import Call
from chalicelib.service.deps import Budget, Deps
from chalicelib.wire.gotime import parse_duration

REGION: Final = "global"
TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_INT32: Final = 2**31
_UINT64: Final = 2**64


@dataclass(frozen=True, slots=True)
class Options:
    """`index` and `wait` (seconds) of a blocking query, and the page."""

    index: int
    wait: float
    per_page: int
    next_token: str


def options(call: Call) -> Options:
    """Return the options of a read. Raises RequestError in Nomad's words."""
    wait = _wait(call)
    index = _index(call)
    stale = call.parameter("stale")
    if stale and stale not in TRUE | FALSE:
        raise RequestError("Expect `true` or `false` for `stale` query string parameter")
    per_page = _per_page(call)
    region(call)
    return Options(index, wait, per_page, call.parameter("next_token"))


def region(call: Call) -> None:
    """Raise Refused for a region that is not ours, as a server does that has no path to the region."""
    wanted = call.parameter("region")
    if wanted and wanted != REGION:
        raise Refused("No path to region")


def budget(call: Call, deps: Deps) -> Budget:
    """Return how long a write may wait: as long as the client's `Prefer: wait` says (RFC 7240), within the limits."""
    wait = call.wait_preference
    if wait is None:
        wait = 0.0 if call.asynchronous else deps.wait_seconds
    return Budget(min(wait, deps.wait_seconds), deps.clock.monotonic() + WAIT_LIMIT)


def _wait(call: Call) -> float:
    text = call.parameter("wait")
    if not text:
        return -1.0
    try:
        return max(parse_duration(text) / 1e9, 0.0)
    except ValueError as exc:
        raise RequestError("Invalid wait time") from exc


def _index(call: Call) -> int:
    text = call.parameter("index")
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or int(text) >= _UINT64:
        raise RequestError("Invalid index")
    return int(text)


def _per_page(call: Call) -> int:
    text = call.parameter("per_page")
    if not text:
        return 0
    digits = text[1:] if text[0] in "+-" else text
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 20 or not -_INT32 <= int(text) < _INT32:
        raise RequestError("Expect a number for `per_page` query string parameter")
    return int(text)
