"""Read times and durations as Go's time package does. Its error texts are raised as ValueError."""

import calendar
import re

_LAYOUT = "2006-01-02T15:04:05Z07:00"
_FRACTION = re.compile(rb"[.,][0-9]+")
_NUMBER = re.compile(r"([0-9]*)(?:(\.)([0-9]*))?")
_UNIT = re.compile(r"[^.0-9]*")
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_LIMIT = 1 << 63


def check_rfc3339(value: bytes) -> None:
    """Raise ValueError with Go's text unless Go accepts `value` as a time.

    Go accepts more than RFC 3339: a comma before the fraction, one digit for the hour, and an offset of 24 hours.
    """
    _TimeReader(value).read()


class _TimeReader:
    """A reader that follows the layout element by element, since the error texts name the element that did not fit."""

    def __init__(self, value: bytes) -> None:
        self.whole = value
        self.rest = value

    def read(self) -> None:
        year = self._digits("2006", 4)
        self._literal("-")
        month = self._digits("01", 2)
        self._within("month", month, 1, 12)
        self._literal("-")
        day = self._digits("02", 2)
        self._literal("T")
        self._within("hour", self._digits("15", 2 if self.rest[1:2].isdigit() else 1), 0, 23)
        self._literal(":")
        self._within("minute", self._digits("04", 2), 0, 59)
        self._literal(":")
        self._within("second", self._digits("05", 2), 0, 59)
        fraction = _FRACTION.match(self.rest)
        if fraction:
            self.rest = self.rest[fraction.end() :]
        self._zone()
        if self.rest:
            raise self._out_of_shape(f": extra text: {_quote(self.rest)}")
        self._within("day", day, 1, _days_in(month, year))

    def _digits(self, element: str, count: int) -> int:
        digits = self.rest[:count]
        if len(digits) < count or not digits.isdigit():
            raise self._does_not_fit(element)
        self.rest = self.rest[count:]
        return int(digits)

    def _literal(self, expected: str) -> None:
        if not self.rest.startswith(expected.encode()):
            raise self._does_not_fit(expected)
        self.rest = self.rest[1:]

    def _zone(self) -> None:
        if self.rest.startswith(b"Z"):
            self.rest = self.rest[1:]
            return
        zone = self.rest[:6]
        if len(zone) < 6 or zone[3:4] != b":":
            raise self._does_not_fit("Z07:00")
        hours = zone[1:3] if zone[1:3].isdigit() else None
        minutes = zone[4:6] if hours is not None and zone[4:6].isdigit() else None
        self._within("time zone offset hour", int(hours or 0), 0, 24)
        self._within("time zone offset minute", int(minutes or 0), 0, 60)
        if minutes is None or zone[:1] not in (b"+", b"-"):
            raise self._does_not_fit("Z07:00")
        self.rest = self.rest[6:]

    def _within(self, name: str, number: int, low: int, high: int) -> None:
        if not low <= number <= high:
            raise self._out_of_shape(f": {name} out of range")

    def _does_not_fit(self, element: str) -> ValueError:
        whole, rest = _quote(self.whole), _quote(self.rest)
        return ValueError(f'parsing time {whole} as "{_LAYOUT}": cannot parse {rest} as "{element}"')

    def _out_of_shape(self, message: str) -> ValueError:
        return ValueError(f"parsing time {_quote(self.whole)}{message}")


def parse_duration(text: str) -> int:
    """Return the nanoseconds of a Go duration like `1h30m` or `-1.5s`. Raises ValueError with Go's text."""
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    total, at = 0, 0
    while at < len(rest) or not rest:
        nanoseconds, at = _term(text, rest, at)
        total += nanoseconds
        if total > _LIMIT:
            raise _bad_duration("invalid duration", text)
    if text.startswith("-"):
        return -total
    if total == _LIMIT:
        raise _bad_duration("invalid duration", text)
    return total


def _term(text: str, rest: str, at: int) -> tuple[int, int]:
    """Return the nanoseconds of the number and unit at `at`, and where the next number starts."""
    number = _NUMBER.match(rest, at)
    if number is None or not (number[1] or number[3]):
        raise _bad_duration("invalid duration", text)
    significant = number[1].lstrip("0")
    # 2**63 has 19 digits. A longer number is not converted, since int() of a long text is slow.
    whole = int(significant or "0") if len(significant) <= 19 else _LIMIT + 1
    unit = _UNIT.match(rest, number.end())
    name = unit.group() if unit else ""
    if whole > _LIMIT:
        raise _bad_duration("invalid duration", text)
    if not name:
        raise _bad_duration("missing unit in duration", text)
    if name not in _UNITS:
        raise _bad_duration(f"unknown unit {_quote(name.encode())} in duration", text)
    if whole > _LIMIT // _UNITS[name]:
        raise _bad_duration("invalid duration", text)
    return whole * _UNITS[name] + _fraction(number[3] or "", _UNITS[name]), number.end() + len(name)


def _bad_duration(problem: str, text: str) -> ValueError:
    return ValueError(f"time: {problem} {_quote(text.encode())}")


def _fraction(digits: str, unit: int) -> int:
    """Return the nanoseconds of a fraction of a unit.

    They are computed in floating point, as in Go, since the last nanosecond depends on that.
    """
    value, scale = 0, 1.0
    for digit in digits:
        longer = value * 10 + int(digit)
        if value > (_LIMIT - 1) // 10 or longer > _LIMIT:
            break
        value, scale = longer, scale * 10
    return int(float(value) * (float(unit) / scale))


def _days_in(month: int, year: int) -> int:
    if month == 2:
        return 29 if calendar.isleap(year) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def _quote(value: bytes) -> str:
    """Return the bytes as Go's time package quotes them: each that is not printable ASCII in hexadecimal."""
    parts = []
    for byte in value:
        char = chr(byte)
        if char in '"\\':
            parts.append("\\" + char)
        else:
            # Go tests for < ' ' and >= 0x80 only, so DEL stays as it is.
            parts.append(char if 0x20 <= byte < 0x80 else f"\\x{byte:02x}")
    return '"' + "".join(parts) + '"'
