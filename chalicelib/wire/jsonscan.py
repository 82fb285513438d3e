"""Read JSON text into a tree, with the grammar, the limits and the error texts of Go's encoding/json.

A scalar is kept as the bytes that it was written with. So a value that is never used is never converted, and error
texts show a number as it was written. Nothing recurses, so nesting costs memory only. Each byte is read a bounded
number of times.
"""

import codecs
import re
from dataclasses import dataclass
from typing import TypeAlias

from chalicelib.wire.gotext import quote

MAX_DEPTH = 10_000  # Go's own limit


class BodyError(ValueError):
    """A request body that does not fit. `text` is the answer, in Go's words where Go has a text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclass(slots=True)
class Array:
    """A JSON list."""

    items: list["Node"]


@dataclass(slots=True)
class Object:
    """A JSON object: its members in order, repeated keys included. Keys are as written, with their quotes."""

    members: list[tuple[bytes, "Node"]]


Node: TypeAlias = bytes | Array | Object

_SPACE = re.compile(rb"[ \t\r\n]*+")
# All patterns are possessive, so a broken scalar fails after one pass over it.
_STRING_START = rb'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+'
_STRING = re.compile(_STRING_START + rb'"')
_BROKEN_STRING = re.compile(_STRING_START)
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+")
_BROKEN_NUMBER = re.compile(rb"-?(?:(?:0|[1-9][0-9]*+)(\.(?:[0-9]++)?+)?+([eE][+-]?)?+)?+")
_HEX = re.compile(rb"[0-9a-fA-F]{0,4}")
_WORDS = {b"t": b"true", b"f": b"false", b"n": b"null"}


def parse(body: bytes) -> Node:
    """Return the first JSON value of `body`. What follows it is not read. Raises BodyError."""
    return _Parser(body).run()


def unquote(literal: bytes) -> str:
    """Return the text of a string literal as Go reads it, with U+FFFD for broken UTF-8 and half surrogate pairs."""
    text = literal[1:-1].decode("utf-8", _BYTE_BY_BYTE)
    return _ESCAPE.sub(_unescape, text) if "\\" in text else text


class _Parser:
    """One pass over a body: `at` is the next byte, `open` the containers around it, `keys` their pending keys."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 0
        self.open: list[Array | Object] = []
        self.keys: list[bytes] = []

    def run(self) -> Node:
        if self._peek() == b"":
            raise BodyError("EOF")
        while True:
            node = self._value()
            if node is None:
                continue
            closed = self._attach(node)
            if closed is not None:
                return closed

    def _peek(self) -> bytes:
        """Move to the next byte that is not white space, and return it. At the end it is b""."""
        space = _SPACE.match(self.body, self.at)
        if space is not None:
            self.at = space.end()
        return self.body[self.at : self.at + 1]

    def _value(self) -> Node | None:
        """Return a whole value, or None when a container was opened whose first element is next."""
        byte = self._peek()
        if byte not in (b"[", b"{"):
            return self._scalar(byte)
        if len(self.open) == MAX_DEPTH:
            raise self._invalid(self.at, "exceeded max depth")
        self.at += 1
        following = self._peek()
        if byte == b"[":
            if following == b"]":
                self.at += 1
                return Array([])
            self.open.append(Array([]))
            self.keys.append(b"")
            return None
        if following == b"}":
            self.at += 1
            return Object([])
        self.open.append(Object([]))
        self.keys.append(self._key(following))
        return None

    def _key(self, byte: bytes) -> bytes:
        if byte != b'"':
            raise self._invalid(self.at, "looking for beginning of object key string")
        key = self._scalar(byte)
        if self._peek() != b":":
            raise self._invalid(self.at, "after object key")
        self.at += 1
        return key

    def _attach(self, node: Node) -> Node | None:
        """Put `node` into the container around it, and close what ends there. Return the outermost value once whole."""
        while self.open:
            container = self.open[-1]
            if isinstance(container, Array):
                container.items.append(node)
                end, context = b"]", "after array element"
            else:
                container.members.append((self.keys[-1], node))
                end, context = b"}", "after object key:value pair"
            byte = self._peek()
            if byte == b",":
                self.at += 1
                if isinstance(container, Object):
                    self.keys[-1] = self._key(self._peek())
                return None
            if byte != end:
                raise self._invalid(self.at, context)
            self.at += 1
            node = self.open.pop()
            self.keys.pop()
        return node

    def _scalar(self, byte: bytes) -> bytes:
        start = self.at
        if byte == b'"':
            found = _STRING.match(self.body, start)
            if found is None:
                raise self._broken_string(start)
        elif byte in _WORDS:
            return self._word(_WORDS[byte])
        else:
            found = _NUMBER.match(self.body, start)
            # A point or an exponent after the match means that the rest of the number is broken.
            if found is None or self.body[found.end() : found.end() + 1] in (b".", b"e", b"E"):
                self._check_number(start, byte)
        if found is None:
            raise self._invalid(start, "looking for beginning of value")
        self.at = found.end()
        return found.group()

    def _word(self, word: bytes) -> bytes:
        for offset in range(1, len(word)):
            if self.body[self.at + offset : self.at + offset + 1] != word[offset : offset + 1]:
                raise self._invalid(self.at + offset, f"in literal {word.decode()} (expecting '{chr(word[offset])}')")
        self.at += len(word)
        return word

    def _broken_string(self, start: int) -> BodyError:
        good = _BROKEN_STRING.match(self.body, start)
        at = good.end() if good else start
        if self.body[at : at + 1] != b"\\":
            return self._invalid(at, "in string literal")
        if self.body[at + 1 : at + 2] != b"u":
            return self._invalid(at + 1, "in string escape code")
        digits = _HEX.match(self.body, at + 2)
        return self._invalid(digits.end() if digits else at, "in \\u hexadecimal character escape")

    def _check_number(self, start: int, byte: bytes) -> None:
        """Raise BodyError for a number that breaks off. A whole number, or none, is left to the caller."""
        found = _BROKEN_NUMBER.match(self.body, start)
        if found is None or found.end() == start:
            return
        at, fraction, exponent = found.end(), found.group(1), found.group(2)
        if byte == b"-" and at == start + 1:
            raise self._invalid(at, "in numeric literal")
        if exponent is not None and not self.body[at : at + 1].isdigit() and fraction != b".":
            raise self._invalid(at, "in exponent of numeric literal")
        if fraction == b".":
            raise self._invalid(found.end(1), "after decimal point in numeric literal")

    def _invalid(self, at: int, context: str) -> BodyError:
        if at >= len(self.body):
            return BodyError("unexpected EOF")
        return BodyError(f"invalid character {_quote_byte(self.body[at])} {context}")


def _quote_byte(byte: int) -> str:
    """Return a byte as Go names it in an error: between single quotes, as the code point of that number."""
    if byte in b"'\"":
        return "'\\''" if byte == ord("'") else "'\"'"
    return f"'{quote(chr(byte))[1:-1]}'"


_BYTE_BY_BYTE = "moorage.byte-by-byte"
_PLAIN = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ESCAPE = re.compile(r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))")


def _unescape(escape: re.Match[str]) -> str:
    high, low, code, plain = escape.groups()
    if plain is not None:
        return _PLAIN[plain]
    if high is not None:
        return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + (int(low, 16) - 0xDC00))
    point = int(code, 16)
    return "\ufffd" if 0xD800 <= point <= 0xDFFF else chr(point)


def _one_mark_per_byte(error: UnicodeError) -> tuple[str, int]:
    """Replace each byte of a broken sequence, as Go does. Python's `replace` puts one mark for the whole sequence."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error(_BYTE_BY_BYTE, _one_mark_per_byte)
