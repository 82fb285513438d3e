"""What a JSON value may be declared as: the Go types that the API's requests are made of, as data.

A kind knows its Go type's name, which the error texts show, and its zero value, which is what an absent field decodes
to. Absent and null maps, lists and pointers are None, so that they differ from empty ones.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

ZERO_TIME = "0001-01-01T00:00:00Z"


@dataclass(frozen=True)
class Text:
    """A string, or a named type of one."""

    go_type: str = "string"


@dataclass(frozen=True)
class Boolean:
    """A bool."""

    go_type: str = "bool"


@dataclass(frozen=True)
class Integer:
    """An integer from `low` to `high`; a decimal point or an exponent is refused whatever the value."""

    go_type: str
    low: int
    high: int


@dataclass(frozen=True)
class Time:
    """A time.Time: the RFC 3339 text as it was sent, checked."""

    go_type: str = "time.Time"


@dataclass(frozen=True)
class Duration:
    """A time.Duration in nanoseconds, given as an integer or as a text like `1h30m`; "" is 0."""

    go_type: str = "time.Duration"


@dataclass(frozen=True)
class ListOf:
    """A slice. In Go null may stand for any element; where Nomad would go down over that, `null_elements` is False."""

    element: "Kind"
    null_elements: bool = True

    @property
    def go_type(self) -> str:
        return f"[]{self.element.go_type}"


@dataclass(frozen=True)
class MapOf:
    """A map with string keys; `name` if Go gives the map type one."""

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
    """A field of a struct; `embedded` names the struct it is promoted from, which Go's error texts show."""

    name: str
    kind: "Kind"
    embedded: str = ""


@dataclass(frozen=True)
class Struct:
    """A struct: fields are found by their exact name, or else whatever the case; other keys are ignored."""

    go_type: str
    fields: tuple[Field, ...] = field(repr=False)

    @cached_property
    def name(self) -> str:
        """The type's name without its package."""
        return self.go_type.rpartition(".")[2]

    @cached_property
    def by_name(self) -> dict[str, Field]:
        return {each.name: each for each in self.fields}

    @cached_property
    def _by_folded_name(self) -> dict[str, Field]:
        return {each.name.translate(_FOLD): each for each in reversed(self.fields)}

    def find(self, key: str) -> Field | None:
        """The field that Go would put the value of `key` into."""
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
    """The value of something of this kind that was never set."""
    if isinstance(kind, Struct):
        return {each.name: zero(each.kind) for each in kind.fields}
    return _ZEROES[type(kind)]()
