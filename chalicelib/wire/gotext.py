"""Quote and unquote text as Go's strconv does."""

import re

_SHORT = {
    '"': '\\"',
    "\\": "\\\\",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}
_LONG = {short[1]: char for char, short in _SHORT.items()}
_ESCAPE = re.compile(r'\\(?:([abfnrtv\\"])|([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))')


def quote(text: str) -> str:
    """Return the text between double quotes, with everything escaped that does not print (Go: `%q`)."""
    return '"' + "".join(_quoted(char) for char in text) + '"'


def _quoted(char: str) -> str:
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if char.isprintable():
        return char
    if code < 0x80 or 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code & 0xFF:02x}"  # from 0xDC80 on: Python's surrogateescape for a byte that is not UTF-8
    if 0xD800 <= code <= 0xDFFF:
        return "\\ufffd"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def unquote(literal: str) -> str:
    """Return the text of a literal between double quotes or backquotes. Raises ValueError where Go refuses it."""
    inner = literal[1:-1]
    if literal[:1] == "`":
        return inner.replace("\r", "")
    if "\\" not in inner and "\n" not in inner:
        return inner
    # In bytes, since \x and octal escapes may give UTF-8 byte by byte, or bytes that are not UTF-8.
    parts, at = bytearray(), 0
    while at < len(inner):
        if inner[at] != "\\":
            end = inner.find("\\", at)
            end = len(inner) if end < 0 else end
            parts += inner[at:end].encode("utf-8", "surrogatepass")
            at = end
            continue
        found = _ESCAPE.match(inner, at)
        if found is None:
            raise ValueError("invalid syntax")
        parts += _unescaped(*found.groups())
        at = found.end()
    if "\n" in inner:
        raise ValueError("invalid syntax")
    return parts.decode("utf-8", "surrogateescape")


def _unescaped(short: str | None, octal: str | None, byte: str | None, *points: str | None) -> bytes:
    if short is not None:
        return _LONG[short].encode()
    if octal is not None or byte is not None:
        value = int(octal, 8) if octal is not None else int(byte or "", 16)
        if value > 0xFF:
            raise ValueError("invalid syntax")
        return bytes([value])
    code = int(points[0] or points[1] or "", 16)
    if 0xD800 <= code <= 0xDFFF or code > 0x10FFFF:
        raise ValueError("invalid syntax")
    return chr(code).encode()
