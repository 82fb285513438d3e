"""Convert the text in an expression to a value of the field's type, and compile regular expressions.

The texts of errors are those of Go's strconv and regexp.
"""

import functools
import importlib
import re
from collections.abc import Callable
from typing import Any

from chalicelib.wire.gotext import quote

COMPARABLE = frozenset({"bool", "int", "int32", "int64", "uint64", "float64", "string"})
_MAX_MEMORY = 8 << 20  # for one compiled regular expression, RE2's own default

_BASES = (
    (16, re.compile(r"0[xX]((?:_?[0-9a-fA-F])+)")),
    (2, re.compile(r"0[bB]((?:_?[01])+)")),
    (8, re.compile(r"0[oO]?((?:_?[0-7])+)")),
    (10, re.compile(r"(0|[1-9](?:_?[0-9])*)")),
)
_BITS = {"int": 64, "int32": 64, "int64": 64, "uint64": 64}  # go-bexpr reads 64 bits, also for a smaller field
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?:inf|infinity)|nan", re.IGNORECASE)

# RE2 and Go's regexp find the same faults, but word them differently.
_FAULTS = {
    "missing )": "missing closing )",
    "missing ]": "missing closing ]",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid repetition size": "invalid repeat count",
    "no argument for repetition operator": "missing argument to repetition operator",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid named capture group": "invalid named capture",
    "trailing \\": "trailing backslash at end of expression",
}


class FilterProblem(ValueError):
    """A comparison that cannot be made, in go-bexpr's words."""


def convert(sort: str, text: str) -> Any:
    """Return `text` as a value of a field of that sort. Raises FilterProblem."""
    readers: dict[str, Callable[[str], Any]] = {"bool": _bool, "float64": _float, "uint64": _unsigned}
    reader = readers.get(sort, _signed if sort in _BITS else str)
    try:
        return reader(text)
    except ValueError as exc:
        raise FilterProblem(f"error getting match value in expression: {exc}") from exc


def _bool(text: str) -> bool:
    if text not in _TRUE | _FALSE:
        raise ValueError(f"strconv.ParseBool: parsing {quote(text)}: invalid syntax")
    return text in _TRUE


def _float(text: str) -> float:
    if not _FLOAT.fullmatch(text):
        raise ValueError(f"strconv.ParseFloat: parsing {quote(text)}: invalid syntax")
    return float(text)


def _signed(text: str) -> int:
    sign, digits = (text[0], text[1:]) if text[:1] in ("+", "-") else ("", text)
    value = _magnitude(digits, "ParseInt", text)
    value = -value if sign == "-" else value
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: value out of range")
    return value


def _unsigned(text: str) -> int:
    value = _magnitude(text, "ParseUint", text)
    if value >= 2**64:
        raise ValueError(f"strconv.ParseUint: parsing {quote(text)}: value out of range")
    return value


def _magnitude(digits: str, function: str, text: str) -> int:
    """Return a number without a sign: decimal, or with 0x, 0b, 0o or a leading 0. Digits may be separated by `_`."""
    for base, pattern in _BASES:
        found = pattern.fullmatch(digits)
        if found:
            return int(found[1].replace("_", ""), base)
    raise ValueError(f"strconv.{function}: parsing {quote(text)}: invalid syntax")


@functools.lru_cache(maxsize=64)
def regex(pattern: str) -> Any:
    """Return the compiled expression, whose `search` takes bytes. Raises FilterProblem."""
    # Imported by name: the module has no types, and only a filter with `matches` needs it.
    re2 = importlib.import_module("re2")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_MEMORY
    try:
        return re2.compile(pattern.encode("utf-8", "surrogateescape"), options)
    except re2.error as exc:
        fault, _, part = _said(exc).partition(": ")
        told = f"error parsing regexp: {_FAULTS.get(fault, fault)}: `{part}`"
        raise FilterProblem(f"failed to compile regular expression {quote(pattern)}: {told}") from exc


def _said(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
