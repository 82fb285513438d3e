"""Read request bodies and write answers as Go's encoding/json does.

`decode` reads a body as Nomad does, down to the text of each refusal. It stops after the first value, finds keys in any
case, and ignores unknown ones. A repeated key is merged into the value of the first one, and null leaves a value as it
is. An error of syntax before the end of the first value is reported before any other. Then the first value of a wrong
type is reported, unless a time or duration cannot be read.

There are two differences. Null in a list of structs, which makes a Nomad agent crash, is refused with a text that names
the element. A number of more than 100 digits is cut short in the text that refuses it.
"""

import codecs
import json
from typing import Any

from chalicelib.wire import kinds
from chalicelib.wire.gotime import check_rfc3339, parse_duration
from chalicelib.wire.jsonscan import Array, BodyError, Node, Object, parse, unquote
from chalicelib.wire.kinds import Kind, Struct

__all__ = ["BodyError", "decode", "encode"]

_SHOWN_DIGITS = 100
_INT64_DIGITS = 20  # of the longest 64-bit integer, sign included: a longer text is out of range


def decode(body: bytes, shape: Struct) -> dict[str, Any]:
    """Return the body's first value as `shape`, with every declared field and nothing else. Raises BodyError."""
    if not body:
        raise BodyError("Request body is empty")
    decoder = _Decoder()
    value: dict[str, Any] = decoder.value(parse(body), shape, kinds.zero(shape))
    if decoder.refusal is not None:
        raise BodyError(decoder.refusal)
    return value


def encode(value: Any, *, pretty: bool = False) -> bytes:
    """Return JSON as Nomad writes it: sorted keys, `<>&` as they are, compact or with 4 spaces and a newline.

    Keep floats out, since Go's clients refuse `5.0` for an integer. The standard library raises TypeError for a
    Decimal.
    """
    separators = (",", ": ") if pretty else (",", ":")
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, sort_keys=True, indent=4 if pretty else None, separators=separators
    )
    # Both can only be in strings. Go escapes them, since they end a line in JavaScript.
    text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return text.encode("utf-8", _ESCAPE_SURROGATES) + (b"\n" if pretty else b"")


class _Slice(list[Any]):
    """A list that remembers the elements cut off its end.

    A repeated key that lengthens the list finds them again, as in Go, where the slice's array still has them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cut: list[Any] = []


class _Decoder:
    """One decoding: its place in the body, and the first refusal, which is reported at the end."""

    def __init__(self) -> None:
        self.refusal: str | None = None
        self.struct = ""
        self.where: list[str] = []

    def value(self, node: Node, kind: Kind, current: Any) -> Any:
        """Return `node` as `kind`. `current` is the value before, into which an object or a list is merged."""
        if isinstance(kind, kinds.Pointer):
            if node == b"null":
                return None
            return self.value(node, kind.target, kinds.zero(kind.target) if current is None else current)
        if node == b"null":
            return None if isinstance(kind, kinds.ListOf | kinds.MapOf) else current
        if isinstance(kind, kinds.Time):
            return self._time(node)
        if isinstance(node, Object):
            return self._object(node, kind, current)
        if isinstance(node, Array):
            return self._list(node, kind, current)
        return self._scalar(node, kind, current)

    def _object(self, node: Object, kind: Kind, current: Any) -> Any:
        if isinstance(kind, Struct):
            return self._struct(node, kind, current)
        if not isinstance(kind, kinds.MapOf):
            return self._refuse("object", kind, current)
        held: dict[str, Any] = {} if current is None else current
        for key, member in node.members:
            # A map is kept, but its elements begin anew, even where the key is there already.
            held[unquote(key)] = self.value(member, kind.element, kinds.zero(kind.element))
        return held

    def _struct(self, node: Object, kind: Struct, current: dict[str, Any]) -> dict[str, Any]:
        outer_struct, outer_depth = self.struct, len(self.where)
        for key, member in node.members:
            field = kind.find(unquote(key))
            if field is None:
                continue
            self.struct = kind.name
            if field.embedded:
                self.where.append(field.embedded)
            self.where.append(field.name)
            current[field.name] = self.value(member, field.kind, current[field.name])
            self.struct = outer_struct
            del self.where[outer_depth:]
        return current

    def _list(self, node: Array, kind: Kind, current: Any) -> Any:
        if not isinstance(kind, kinds.ListOf):
            return self._refuse("array", kind, current)
        if not node.items or current is None:
            current = _Slice()
        for index, item in enumerate(node.items):
            if index == len(current):
                current.append(current.cut.pop() if current.cut else kinds.zero(kind.element))
            self.where.append(f"[{index}]")
            if item == b"null" and not kind.null_elements and self.refusal is None:
                self.refusal = f"{self._place()} is null: give an object or leave the element out"
            current[index] = self.value(item, kind.element, current[index])
            self.where.pop()
        beyond = current[len(node.items) :]
        del current[len(node.items) :]
        current.cut.extend(reversed(beyond))
        return current

    def _scalar(self, node: bytes, kind: Kind, current: Any) -> Any:
        if isinstance(kind, kinds.Duration) and node.startswith(b'"'):
            return self._duration(unquote(node))
        if isinstance(kind, kinds.Integer | kinds.Duration) and _is_number(node):
            return self._integer(node, kind, current)
        if isinstance(kind, kinds.Text) and node.startswith(b'"'):
            return unquote(node)
        if isinstance(kind, kinds.Boolean) and node in (b"true", b"false"):
            return node == b"true"
        found = "string" if node.startswith(b'"') else "number" if _is_number(node) else "bool"
        return self._refuse(found, kind, current)

    def _integer(self, node: bytes, kind: kinds.Integer | kinds.Duration, current: int) -> int:
        low, high = (kind.low, kind.high) if isinstance(kind, kinds.Integer) else (kinds.INT64.low, kinds.INT64.high)
        # Go's parser of unsigned numbers accepts no sign at all, so it refuses -0, which the signed one accepts.
        plain = len(node) <= _INT64_DIGITS and node.removeprefix(b"-" if low < 0 else b"").isdigit()
        if plain and low <= int(node) <= high:
            return int(node)
        digits = node.decode()
        shown = digits if len(digits) <= _SHOWN_DIGITS else f"{digits[:_SHOWN_DIGITS]}..."
        return int(self._refuse(f"number {shown}", kind, current))

    def _time(self, node: Node) -> str:
        if not isinstance(node, bytes) or not node.startswith(b'"'):
            raise BodyError("Time.UnmarshalJSON: input is not a JSON string")
        try:
            check_rfc3339(node[1:-1])  # with its escapes, which Go does not resolve here
        except ValueError as exc:
            raise BodyError(str(exc)) from exc
        return node[1:-1].decode()

    def _duration(self, text: str) -> int:
        try:
            return parse_duration(text) if text else 0
        except ValueError as exc:
            raise BodyError(str(exc)) from exc

    def _refuse(self, found: str, kind: Kind, current: Any) -> Any:
        if self.refusal is None:
            path = ".".join(part for part in self.where if not part.startswith("["))
            place = f"struct field {self.struct}.{path}" if self.struct else "value"
            self.refusal = f"json: cannot unmarshal {found} into Go {place} of type {kind.go_type}"
        return current

    def _place(self) -> str:
        """Return the place with indices, for texts of our own: `Volumes[0].RequestedCapabilities[1]`."""
        return ".".join(self.where).replace(".[", "[")


def _is_number(node: bytes) -> bool:
    return node[:1] in b"-0123456789"


_ESCAPE_SURROGATES = "moorage.escape-surrogates"


def _escape_surrogates(error: UnicodeError) -> tuple[bytes, int]:
    """Replace half a surrogate pair, which a provider's text may have, by an escaped U+FFFD, as Go does."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return b"\\ufffd" * (error.end - error.start), error.end


codecs.register_error(_ESCAPE_SURROGATES, _escape_surrogates)
