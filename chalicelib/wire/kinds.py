"""The kinds of JSON values: the Go types of the API's requests, as data.

A kind has the name of its Go type, which the error texts show, and a zero value, to which an absent field decodes.
Absent and null maps, lists and pointers are None, so that they differ from empty ones.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

ZERO_TIME = "0001-01-01T00:00:00Z"


@dataclass(frozen=True)
class Text:
    """A string, or a named type of string."""

    go_type: str = "string"


@dataclass(frozen=True)
class Boolean:
    """A bool."""

    go_type: str = "bool"


@dataclass(frozen=True)
class Integer:
    """An integer from `low` to `high`. A decimal point or an exponent is refused, even if the value is whole."""

    go_type: str
    low: int
    high: int


@dataclass(frozen=True)
class Time:
    """A time.Time: its RFC 3339 text as it was sent, after a check."""

    go_type: str = "time.Time"


@dataclass(frozen=True)
class Duration:
    """A time.Duration in nanoseconds, given as an integer or as a text like `1h30m`. "" is 0."""

    go_type: str = "time.Duration"


@dataclass(frozen=True)
class ListOf:
    """A slice. In Go null may be any element. Where that would make Nomad crash, `null_elements` is False."""

    element: "Kind"
    null_elements: bool = True

    @property
    def go_type(self) -> str:
        return f"[]{self.element.go_type}"


@dataclass(frozen=True)
class MapOf:
    """A map with string keys. `name` is the name of the map type, if Go gives it one."""

    element: "Kind"
    name: str = ""

    @property
    def go_type(self) -> str:
        return self.name or f"map[string]{self.element.go_type}"


@dataclass(frozen=True)
class Pointer:
    """A pointer: null and absent are None."""

    target: "Struct | Time"

    @property
    def go_type(self) -> str:
        return f"*{self.target.go_type}"


@dataclass(frozen=True)
class Field:
    """A field of a struct. `embedded` names the struct that it is promoted from, which Go's error texts show."""

    name: str
    kind: "Kind"
    embedded: str = ""


@dataclass(frozen=True)
class Struct:
    """A struct. Fields are found by their exact name, or else in any case. Other keys are ignored."""

    go_type: str
    fields: tuple[Field, ...] = field(repr=False)

    @cached_property
    def name(self) -> str:
        """Return the type's name without its package."""
        return self.go_type.rpartition(".")[2]

    @cached_property
    def by_name(self) -> dict[str, Field]:
        return {each.name: each for each in self.fields}

    @cached_property
    def _by_folded_name(self) -> dict[str, Field]:
        return {each.name.translate(_FOLD): each for each in reversed(self.fields)}

    def find(self, key: str) -> Field | None:
        """Return the field into which Go would put the value of `key`, or None."""
        return self.by_name.get(key) or self._by_folded_name.get(key.translate(_FOLD))


Kind: TypeAlias = Text | Boolean | Integer | Time | Duration | ListOf | MapOf | Pointer | Struct

STRING = Text()
BOOL = Boolean()
INT = Integer("int", -(2**63), 2**63 - 1)
INT32 = Integer("int32", -(2**31), 2**31 - 1)
INT64 = Integer("int64", -(2**63), 2**63 - 1)
UINT64 = Integer("uint64", 0, 2**64 - 1)
TIME = Time()
DURATION = Duration()
STRINGS = ListOf(STRING)
STRING_MAP = MapOf(STRING)

# Go compares names by simple case folding. All declared names are ASCII, and besides the letters themselves only the
# long s and the Kelvin sign fold into ASCII.
_FOLD = {low: low - 32 for low in range(ord("a"), ord("z") + 1)} | {0x17F: ord("S"), 0x212A: ord("K")}

_ZEROES: dict[type, Callable[[], Any]] = {
    Text: str,
    Boolean: bool,
    Integer: int,
    Duration: int,
    Time: lambda: ZERO_TIME,
    ListOf: lambda: None,
    MapOf: lambda: None,
    Pointer: lambda: None,
}


def zero(kind: Kind) -> Any:
    """Return Go's zero value of this kind."""
    if isinstance(kind, Struct):
        return {each.name: zero(each.kind) for each in kind.fields}
    return _ZEROES[type(kind)]()
