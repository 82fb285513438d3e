"""The `filter` of a list: HashiCorp's go-bexpr, as Nomad uses it.

    wanted = compile_filter('Name matches "^db" and Parameters.tier != "gold"', CSI_VOLUME)
    [each for each in volumes if wanted.matches(each)]

The text of a FilterError is the whole body of a 400: Nomad's prefix, then go-bexpr's words.

A datum is a mapping as it is sent to a client. Its declared shape says which values are maps and which are structs. A
missing key of a map is no error and equals nothing, and a missing field of a struct is an error. The shape also says to
which type a value in the expression is converted, and that null is an empty list or map. Without a shape the datum is a
struct, all mappings in it are maps, and null is empty and nil. A client that may filter can probe every field, so a
datum must not hold secrets.

RE2 runs the regular expressions, in time linear in the text. Go's have its syntax.
"""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from chalicelib.wire import bexpr_grammar as grammar
from chalicelib.wire import kinds
from chalicelib.wire.bexpr_values import COMPARABLE, FilterProblem, convert, regex
from chalicelib.wire.gotext import quote
from chalicelib.wire.kinds import Kind, Struct

__all__ = ["MAX_STEPS", "Filter", "FilterError", "compile_filter"]

MAX_STEPS = 20_000  # elements and comparisons for one datum: only nested `any` and `all` come near it

_SYNTAX = "failed to create result paginator: failed to read filter expression: "
_READING = "failed to read result page: "


class FilterError(ValueError):
    """A filter that cannot be read, or cannot be applied to the data. `text` is the answer of a 400."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def compile_filter(text: str, shape: Struct | None = None) -> "Filter":
    """Return the filter that `text` expresses, for data of that shape. Raises FilterError if it cannot be read."""
    try:
        return Filter(grammar.parse(text), shape)
    except grammar.SyntaxProblem as exc:
        raise FilterError(f"{_SYNTAX}{exc}") from exc


@dataclass(frozen=True)
class Filter:
    """An expression that was read. It may be used for any number of data."""

    expression: grammar.Expression
    shape: Struct | None = None

    def matches(self, datum: Mapping[str, Any]) -> bool:
        """Return whether `datum` matches. Raises FilterError for an unknown field or an impossible comparison."""
        try:
            return _Evaluation(_Value(datum, self.shape, top=True)).holds(self.expression, ())
        except FilterProblem as exc:
            raise FilterError(f"{_READING}{exc}") from exc


@dataclass(frozen=True)
class _Value:
    """A value, with the kind that it is declared as, if that is known."""

    raw: Any
    kind: Kind | None = None
    top: bool = False  # the datum itself, which is a struct even if undeclared

    @functools.cached_property
    def sort(self) -> str:
        """The name of its kind in Go's reflect, with pointers followed."""
        if self.kind is None:
            return "struct" if self.top else _sort_of(self.raw)
        return "invalid" if self.raw is None and isinstance(self.kind, kinds.Pointer) else _sort_of_kind(self.kind)

    @property
    def shape(self) -> Struct | None:
        """The struct that it is declared as, if it is one."""
        kind = self.kind.target if isinstance(self.kind, kinds.Pointer) else self.kind
        return kind if isinstance(kind, Struct) else None

    def inner(self, raw: Any) -> "_Value":
        """Return one element of a list or map, with its declared kind."""
        return _Value(raw, self.kind.element if isinstance(self.kind, kinds.ListOf | kinds.MapOf) else None)

    def items(self) -> Sequence[Any]:
        return self.raw or ()

    def keys(self) -> Mapping[str, Any]:
        return self.raw or {}


_SORTS: dict[type, str] = {
    kinds.Text: "string",
    kinds.Boolean: "bool",
    kinds.Duration: "int64",
    kinds.Time: "struct",
    kinds.ListOf: "slice",
    kinds.MapOf: "map",
    kinds.Struct: "struct",
}


_SORTS_OF_RAW: tuple[tuple[type, str], ...] = (
    (bool, "bool"),  # before int, which it is too
    (int, "int64"),
    (float, "float64"),
    (str, "string"),
    (Mapping, "map"),
    (list, "slice"),
    (tuple, "slice"),
)


def _sort_of_kind(kind: Kind) -> str:
    if isinstance(kind, kinds.Pointer):
        kind = kind.target
    return kind.go_type if isinstance(kind, kinds.Integer) else _SORTS[type(kind)]


def _sort_of(raw: Any) -> str:
    return next((sort for kind, sort in _SORTS_OF_RAW if isinstance(raw, kind)), "invalid")


@dataclass(frozen=True)
class _Name:
    """A name that `any` or `all` binds: to a key or an index, which is a value, or to an element, which is a path."""

    name: str
    value: str | int | None = None
    path: tuple[str, ...] = ()


_Names: TypeAlias = tuple[_Name, ...]


@dataclass
class _Evaluation:
    """One expression applied to one datum."""

    datum: _Value
    steps: int = 0

    def holds(self, expression: grammar.Expression, names: _Names) -> bool:
        match expression:
            case grammar.Match():
                return self._match(expression, names)
            case grammar.Not():
                return not self.holds(expression.operand, names)
            case grammar.Combination():
                answers = (self.holds(each, names) for each in expression.operands)
                return all(answers) if expression.every else any(answers)
            case grammar.Quantified():
                answers = (self.holds(expression.inner, inner) for inner in self._bindings(expression, names))
                return all(answers) if expression.every else any(answers)

    def _match(self, match: grammar.Match, names: _Names) -> bool:
        self._spend_step()
        negated = match.operator.startswith("NOT_")
        value = self._find(match.selector.path, names)
        if value is None:  # a missing key of a map is empty and nil, and nothing else
            return (match.operator in ("EMPTY", "NIL")) or (negated and match.operator not in ("NOT_EMPTY", "NOT_NIL"))
        return _compare(match, match.operator.removeprefix("NOT_"), value) is not negated

    def _spend_step(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise FilterProblem(f"the filter takes more than {MAX_STEPS} steps for one item")

    def _bindings(self, expression: grammar.Quantified, names: _Names) -> Iterator[_Names]:
        found = self._find(expression.selector.path, names)
        if found is None:
            return
        if found.sort not in ("slice", "map"):
            raise FilterProblem(f"{expression.selector} is not a list or a map")
        elements = found.keys() if found.sort == "map" else range(len(found.items()))
        for key in elements:
            self._spend_step()
            if expression.index_name and expression.index_name == expression.value_name:
                name = quote(expression.index_name)
                raise FilterProblem(f"{name} cannot be used as a placeholder for both the index and the value")
            yield names + tuple(_bound(expression, found.sort == "map", key))

    def _find(self, path: tuple[str, ...], names: _Names) -> _Value | None:
        """Return the value at a path, or None for a key that is not in its map."""
        for name in reversed(names):
            if path[0] != name.name:
                continue
            if name.value is not None:
                if len(path) > 1:
                    go_type = "string" if isinstance(name.value, str) else "int"
                    raise FilterProblem(f"{_pointer(path[:1])} references a {go_type} so {_pointer(path)} is invalid")
                return _Value(name.value, kinds.INT if isinstance(name.value, int) else kinds.STRING)
            path = name.path + path[1:]
        value = self.datum
        for part, name_of_part in enumerate(path):
            found = _step(value, name_of_part, path, part)
            if found is None:
                return None
            value = found
        return value


def _bound(expression: grammar.Quantified, in_map: bool, key: str | int) -> Iterator[_Name]:
    """Yield the names, bound at one key. A single name is bound to the key of a map, but to the element of a list."""
    path = (*expression.selector.path, str(key))
    if expression.default_name:
        yield _Name(expression.default_name, value=key) if in_map else _Name(expression.default_name, path=path)
    if expression.index_name:
        yield _Name(expression.index_name, value=key)
    if expression.value_name:
        yield _Name(expression.value_name, path=path)


def _step(value: _Value, name: str, path: tuple[str, ...], part: int) -> _Value | None:
    """Return what `value` holds under `name`, or None if it is a map without it and the path ends there."""
    where = f"error finding value in datum: {_pointer(path)}"
    match value.sort:
        case "struct":
            found = _field(value, name)
            if found is not None:
                return found
            raise FilterProblem(f"{where} at part {part}: couldn't find key: struct field with name {quote(name)}")
        case "map":
            if name in value.keys():  # noqa: SIM118  # ours: null is a map without keys
                return value.inner(value.keys()[name])
            if part == len(path) - 1:
                return None
            raise FilterProblem(f"{where} at part {part}: couldn't find key {quote(name)}")
        case "slice":
            index, count = _index(name, where, part), len(value.items())
            if 0 <= index < count:
                return value.inner(value.items()[index])
            raise FilterProblem(f"{where} at part {part}: index {index} is out of range (length = {count})")
        case sort:
            raise FilterProblem(f"{where}: at part {part}, invalid value kind: {sort}")


def _field(value: _Value, name: str) -> _Value | None:
    if value.shape is None:
        # Either a datum without a shape, or a time, whose fields Go does not export.
        return _Value(value.raw[name]) if value.top and name in value.raw else None
    declared = value.shape.by_name.get(name)
    if declared is None:
        return None
    raw = value.raw.get(name)
    nothing = raw is None and not isinstance(declared.kind, kinds.Pointer)
    return _Value(kinds.zero(declared.kind) if nothing else raw, declared.kind)


def _index(name: str, where: str, part: int) -> int:
    digits = re.fullmatch(r"[+-]?[0-9]{1,18}", name or "0")
    if digits is None:
        raise FilterProblem(f"{where} at part {part}: couldn't convert value {quote(name)} to type int")
    return int(name or "0")


def _pointer(path: Sequence[str]) -> str:
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)


def _compare(match: grammar.Match, operator: str, value: _Value) -> bool:
    match operator:
        case "EQUAL":
            if value.sort not in COMPARABLE:
                raise FilterProblem("unable to find suitable primitive comparison function for matching")
            return bool(convert(value.sort, match.value) == value.raw)
        case "IN" | "CONTAINS":
            return _contains(match, value)
        case "MATCHES":
            if value.sort != "string":
                raise FilterProblem(f"value of type {_go_type(value)} is not convertible to []byte")
            return regex(match.value).search(value.raw.encode("utf-8", "surrogatepass")) is not None
        case "EMPTY":
            if value.sort in ("map", "slice", "string") or (value.kind is None and value.raw is None):
                return not value.raw
            raise FilterProblem(f"cannot perform is-empty operations on type {_on(match, value)}")
        case _:
            if value.sort in ("map", "slice", "struct", "invalid"):
                return value.raw is None
            raise FilterProblem(f"cannot perform is-nil operations on type {_on(match, value)}")


def _contains(match: grammar.Match, value: _Value) -> bool:
    match value.sort:
        case "string":
            return match.value in value.raw
        case "map":
            return match.value in value.keys()  # noqa: SIM118  # ours: null is a map without keys
        case "slice" if isinstance(value.kind, kinds.ListOf):
            sort = _sort_of_kind(value.kind.element)
            wanted = convert(sort, match.value)
            if sort not in COMPARABLE:
                raise FilterProblem('unable to find suitable primitive comparison function for "in" comparison')
            return wanted in value.items()
        case "slice":
            return any(_equal_if_comparable(match.value, value.inner(item)) for item in value.items())
        case sort:
            convert(sort, match.value)
            raise FilterProblem(f"cannot perform in/contains operations on type {_on(match, value)}")


def _equal_if_comparable(text: str, item: _Value) -> bool:
    """Return whether the element equals the text. One to whose type the text cannot be converted is not equal."""
    try:
        return item.sort in COMPARABLE and bool(convert(item.sort, text) == item.raw)
    except FilterProblem:
        return False


def _on(match: grammar.Match, value: _Value) -> str:
    return f"{value.sort} for selector: {quote(str(match.selector))}"


def _go_type(value: _Value) -> str:
    kind = value.kind.target if isinstance(value.kind, kinds.Pointer) else value.kind
    if value.sort == "invalid" or kind is None:
        return value.sort
    return kind.go_type
