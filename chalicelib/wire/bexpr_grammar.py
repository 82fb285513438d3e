"""The language of list filters: its grammar, its tree, and the errors for expressions that do not follow it.

The grammar is LALR(1) for lark. White space separates words here, so it belongs to the tokens: an `and` is white space,
the word, white space. Each token is declared as the pieces it is made of. They give its pattern. They also give what
go-bexpr lists as expected when an expression breaks off inside or before the token.
"""

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from chalicelib.wire.gotext import unquote

if TYPE_CHECKING:
    from lark import Lark, Token

MAX_LENGTH = 4096  # characters of an expression
MAX_DEPTH = 100  # `and`, `or`, `not`, `any` and `all` inside each other


SHOWN_PLACES = 400


class SyntaxProblem(ValueError):
    """A text that is not an expression. The message begins with `line:column (offset)`, as go-bexpr's does."""


@dataclass(frozen=True)
class Selector:
    """The way to a value: field names, map keys and list indices."""

    path: tuple[str, ...]
    pointer: bool = False  # written as "/a/b"

    def __str__(self) -> str:
        return ("/" if self.pointer else ".").join(self.path)


@dataclass(frozen=True)
class Match:
    """One comparison. `value` is "" for the operators that take none."""

    selector: Selector
    operator: str
    value: str = ""
    depth: int = 1


@dataclass(frozen=True)
class Not:
    """The opposite of `operand`."""

    operand: "Expression"
    depth: int


@dataclass(frozen=True)
class Combination:
    """All (`and`) or any (`or`) of the operands, evaluated from left to right and no further than needed."""

    every: bool
    operands: tuple["Expression", ...]
    depth: int


@dataclass(frozen=True)
class Quantified:
    """`any` or `all` elements of a list or keys of a map. A name that is "" is not bound."""

    every: bool
    selector: Selector
    default_name: str
    index_name: str
    value_name: str
    inner: "Expression"
    depth: int


Expression: TypeAlias = Match | Not | Combination | Quantified


@dataclass(frozen=True)
class _Piece:
    """A part of a token: what `pattern` matches, repeated as in a regex. `shown` is go-bexpr's name for one of it."""

    pattern: str
    shown: str
    repeat: str = ""

    @property
    def regex(self) -> str:
        # Possessive: a match is never given back. Otherwise `not  in` would look ahead from between its two spaces.
        return f"(?:{self.pattern}){self.repeat}{self.repeat and '+'}"


def _word(text: str, repeat: str = "") -> _Piece:
    return _Piece(re.escape(text), '"' + text.replace('"', '\\"') + '"', repeat)


_SPACE = _Piece(r"[ \t\r\n]", r"[ \t\r\n]", "+")
_MAYBE_SPACE = _Piece(r"[ \t\r\n]", r"[ \t\r\n]", "*")
_LETTER = _Piece("[a-zA-Z]", "[a-zA-Z]")
_NAME_REST = _Piece("[a-zA-Z0-9_/]", "[a-zA-Z0-9_/]", "*")
_DIGITS = _Piece("[0-9]", "[0-9]", "+")
_FRACTION = _Piece(r"\.[0-9]+", '"."', "?")
_END = _Piece(r"\Z", "EOF")
_Pieces: TypeAlias = tuple[_Piece, ...]


def _words(*words: str) -> _Pieces:
    """Return the pieces of words with white space before, between and behind them."""
    return (_SPACE, *(piece for each in words for piece in (_word(each), _SPACE)))


# The ways in which each token may be written.
_TOKENS: dict[str, tuple[_Pieces, ...]] = {
    "_LEAD": ((_SPACE,),),
    "_TRAIL": ((_SPACE,),),
    "_NOT": ((_word("not"), _SPACE),),
    "ANY": ((_word("any"), _SPACE),),
    "ALL": ((_word("all"), _SPACE),),
    "_OPEN": ((_word("("), _MAYBE_SPACE),),
    "_CLOSE": ((_MAYBE_SPACE, _word(")")),),
    "_BRACE": ((_MAYBE_SPACE, _word("{"), _MAYBE_SPACE),),
    "_UNBRACE": ((_MAYBE_SPACE, _word("}")),),
    "_COMMA": ((_MAYBE_SPACE, _word(","), _MAYBE_SPACE),),
    "UNDERSCORE": ((_word("_"),),),
    "_AND": (_words("and"),),
    "_OR": (_words("or"),),
    "_AS": (_words("as"),),
    "EQUAL": ((_MAYBE_SPACE, _word("=="), _MAYBE_SPACE),),
    "NOT_EQUAL": ((_MAYBE_SPACE, _word("!="), _MAYBE_SPACE),),
    "IN": (_words("in"),),
    "NOT_IN": (_words("not", "in"),),
    "CONTAINS": (_words("contains"),),
    "NOT_CONTAINS": (_words("not", "contains"),),
    "MATCHES": (_words("matches"),),
    "NOT_MATCHES": (_words("not", "matches"),),
    "EMPTY": (_words("is", "empty")[:-1],),
    "NOT_EMPTY": (_words("is", "not", "empty")[:-1],),
    "NIL": (_words("is", "nil")[:-1],),
    "NOT_NIL": (_words("is", "not", "nil")[:-1],),
    "_INDEX": ((_word("["), _MAYBE_SPACE),),
    "_UNINDEX": ((_MAYBE_SPACE, _word("]")),),
    "NAME": ((_LETTER, _NAME_REST),),
    "DOT_NAME": ((_word("."), _LETTER, _NAME_REST),),
    "DOT_NUMBER": ((_word("."), _DIGITS),),
    # Letters and numbers of any script are \w, which has the underscore too, as go-bexpr allows.
    "POINTER": ((_word('"'), _Piece(r"/[\w\-.~:|]+", '"/"', "*"), _word('"')),),
    "STRING": (
        (_word('"'), _Piece('[^"]', ".", "*"), _word('"')),
        (_word("`"), _Piece("[^`]", ".", "*"), _word("`")),
    ),
    "NUMBER": (
        (_word("-", "?"), _word("0"), _FRACTION),
        (_word("-", "?"), _Piece("[1-9]", "[1-9]"), _Piece("[0-9]", "[0-9]", "*"), _FRACTION),
    ),
}

# `not`, `any` and `all` may also be the left side of a comparison. What follows decides: for `any` and `all` a
# comparison is tried first, for `not` it is tried last, so `not in x` compares and `not in == x` negates.
_S = r"[ \t\r\n]++"
_TESTS = rf"is{_S}(?:not{_S})?(?:empty|nil)"
_COMPARES = rf"[=!]=|(?:not{_S})?(?:in|contains|matches){_S}\S|{_TESTS}"
_COMPARES_LAST = rf"[=!]=|(?:in|contains|matches){_S}(?!{_COMPARES})\S|{_TESTS}"
_AHEAD = {
    "_NOT": f"(?!{_COMPARES_LAST})",
    "ANY": f"(?!{_COMPARES})",
    "ALL": f"(?!{_COMPARES})",
    "_TRAIL": r"\Z",
    "NUMBER": r"(?=[ \t\r\n)]|\Z)",
}
_OPERATORS = ("EQUAL", "NOT_EQUAL", "IN", "NOT_IN", "CONTAINS", "MATCHES", "EMPTY")
_NO_INDEX = 'rule "index": Invalid index'
_PREFERRED = {"_NOT", "ANY", "ALL", "POINTER"}

_RULES = """
start: _LEAD? either _TRAIL?
either: both (_OR both)* (_OR quantified)? | quantified
both: negation (_AND negation)*
?negation: _NOT negation -> negated | _OPEN either _CLOSE | match
?match: selector (EQUAL | NOT_EQUAL | CONTAINS | NOT_CONTAINS | MATCHES | NOT_MATCHES) value -> compared
    | selector (EMPTY | NOT_EMPTY | NIL | NOT_NIL) -> tested
    | value (IN | NOT_IN) selector -> contained
value: selector | NUMBER | STRING
selector: NAME (DOT_NAME | DOT_NUMBER | _INDEX STRING _UNINDEX)* | POINTER
quantified: (ANY | ALL) selector _AS binding _BRACE either _UNBRACE
binding: NAME | NAME _COMMA NAME | NAME _COMMA UNDERSCORE | UNDERSCORE _COMMA NAME
"""


def _pattern(name: str) -> str:
    ways = "|".join("".join(piece.regex for piece in way) for way in _TOKENS[name])
    return f"(?:{ways}){_AHEAD.get(name, '')}"


@functools.cache
def _parser() -> "Lark":
    """Return the parser, built at the first filter: lark costs more to import than everything else a list needs."""
    from lark import Lark

    terminals = (
        f"{name}.{2 if name in _PREFERRED else 1}: /{_pattern(name).replace('/', chr(92) + '/')}/" for name in _TOKENS
    )
    return Lark(_RULES + "\n".join(terminals), parser="lalr", lexer="contextual")


def parse(text: str) -> Expression:
    """Return the tree of an expression. Raises SyntaxProblem."""
    from lark import Token, UnexpectedInput

    if len(text) > MAX_LENGTH:
        raise SyntaxProblem(f"the expression is longer than {MAX_LENGTH} characters")
    tokens: list[Token] = []
    session: Any = _parser().parse_interactive(text)
    try:
        for token in session.lexer_thread.lex(session.parser_state):
            session.feed_token(token)
            tokens.append(token)
        tree = session.feed_eof()
    except UnexpectedInput:
        _complain(text, tokens)
    return _build(text, tree)


def _build(text: str, tree: Any) -> Expression:
    """Return our tree for lark's, built from the leaves up, without recursion."""
    built: dict[int, Any] = {}
    for subtree in tree.iter_subtrees():
        children = [built.get(id(child), child) for child in subtree.children]
        built[id(subtree)] = _BUILDERS[subtree.data](text, *children)
        if getattr(built[id(subtree)], "depth", 0) > MAX_DEPTH:
            raise SyntaxProblem(f"the expression nests deeper than {MAX_DEPTH} levels")
    expression: Expression = built[id(tree)]
    return expression


def _selector(text: str, first: "Token", *rest: "Token") -> Selector:
    if first.type == "POINTER":
        # A JSON pointer (RFC 6901), whose escapes are ~1 and ~0. The pointer "" is one empty name here.
        names = str(first)[1:-1].split("/")
        return Selector(tuple(name.replace("~1", "/").replace("~0", "~") for name in names[1:] or names), pointer=True)
    return Selector((str(first), *(_unquoted(text, each) if each.type == "STRING" else str(each)[1:] for each in rest)))


def _unquoted(text: str, token: "Token") -> str:
    try:
        return unquote(token)
    except ValueError as exc:
        raise _problem(text, token.start_pos or 0, f'rule "string": {exc}') from exc


def _value(text: str, value: "Token | Selector") -> str:
    if isinstance(value, Selector):
        return str(value)
    return _unquoted(text, value) if value.type == "STRING" else str(value)


def _negated(_text: str, operand: Expression) -> Expression:
    return operand.operand if isinstance(operand, Not) else Not(operand, operand.depth + 1)


def _combination(every: bool) -> Callable[..., Expression]:
    def build(_text: str, *operands: Expression) -> Expression:
        if len(operands) == 1:
            return operands[0]
        return Combination(every, operands, 1 + max(operand.depth for operand in operands))

    return build


def _quantified(
    _text: str, word: "Token", selector: Selector, names: tuple[str, str, str], inner: Expression
) -> Expression:
    return Quantified(word.type == "ALL", selector, *names, inner, inner.depth + 1)


def _binding(_text: str, first: str, second: str = "") -> tuple[str, str, str]:
    """Return the names of the key or element, of the key or index, and of the value. `_` binds nothing."""
    if not second:
        return str(first), "", ""
    return "", "" if first == "_" else str(first), "" if second == "_" else str(second)


_BUILDERS: dict[str, Callable[..., Any]] = {
    "start": lambda _text, expression: expression,
    "either": _combination(every=False),
    "both": _combination(every=True),
    "negated": _negated,
    "compared": lambda _text, selector, operator, value: Match(selector, operator.type, value),
    "tested": lambda _text, selector, operator: Match(selector, operator.type),
    "contained": lambda _text, value, operator, selector: Match(selector, operator.type, value),
    "value": _value,
    "selector": _selector,
    "quantified": _quantified,
    "binding": _binding,
}


def _complain(text: str, tokens: list["Token"]) -> NoReturn:
    """Raise what go-bexpr says when nothing fits behind `tokens`."""
    for token in tokens:
        if token.type == "STRING":
            _unquoted(text, token)
    # The tokens are replayed, because the parser may have moved on before it found that the next one does not fit.
    session: Any = _parser().parse_interactive("")
    for token in tokens:
        session.feed_token(token)
    accepted = session.accepts()
    at = (tokens[-1].end_pos or 0) if tokens else 0
    last = tokens[-1].type if tokens else ""
    _complain_of_a_rule(text, at, last, accepted)
    ways = [way for name in sorted(accepted) if name != "$END" for way in _TOKENS[name]]
    if "$END" in accepted:
        ways.append((_MAYBE_SPACE, _END))
    stops = [stop for way in ways for stop in _stops(way, text, at)]
    if tokens:
        # The last token could have gone on, or have been a name that is compared.
        start = tokens[-1].start_pos or 0
        stops += [stop for way in _TOKENS[last] for stop in _stops(way, text, start)]
        if last in ("_NOT", "ANY", "ALL"):
            stops += [stop for name in _OPERATORS for way in _TOKENS[name] for stop in _stops(way, text, start + 3)]
    farthest = max(where for where, _ in stops)
    shown = {name for where, name in stops if where == farthest}
    expected = [*sorted(shown - {"EOF"}), *sorted(shown & {"EOF"})]
    listed = ", ".join(expected[:-1]) + " or " + expected[-1] if len(expected) > 1 else expected[0]
    raise _problem(text, farthest, f"no match found, expected: {listed}")


def _stops(way: _Pieces, text: str, at: int) -> Iterator[tuple[int, str]]:
    """Yield where each piece of a token that begins at `at` could have gone on, and go-bexpr's name for the piece."""
    for piece in way:
        found = re.compile(piece.regex).match(text, at)
        end = found.end() if found else at
        if found is None or piece.repeat in ("*", "+") or (piece.repeat == "?" and end == at):
            yield end, piece.shown
        if found is None:
            return
        at = end


def _complain_of_a_rule(text: str, at: int, last: str, accepted: set[str]) -> None:
    """Raise for the mistakes that go-bexpr knows by name."""
    space = re.compile(r"[ \t\r\n]*").match(text, at)
    behind = space.end() if space else at
    if "STRING" in accepted and re.compile('"[^"]*\\Z|`[^`]*\\Z').match(text, at):
        problem = _problem(text, len(text), 'rule "string": Unterminated string literal')
        raise SyntaxProblem(f"{problem}\n{_problem(text, at, _NO_INDEX)}") if last == "_INDEX" else problem
    if last == "_INDEX":
        raise _problem(text, at, _NO_INDEX)
    if accepted == {"_UNINDEX"}:
        raise _problem(text, behind, 'rule "index": Unclosed index expression')
    if last in ("IN", "NOT_IN"):
        raise _problem(text, at, 'rule "match": Invalid selector')
    number = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?").match(text, at) if "NUMBER" in accepted else None
    if number:
        raise _problem(text, number.end(), 'rule "number": Invalid number literal')
    if "_CLOSE" in accepted:
        raise _problem(text, behind, 'rule "grouping": Unmatched parentheses')


def _problem(text: str, at: int, message: str) -> SyntaxProblem:
    """Return the error with its place, as go-bexpr counts: lines and columns from 1, the offset in bytes.

    A line break is column 0 of the line that it begins.
    """
    before = text[: at + 1]
    line, column = 1 + before.count("\n"), at - before.rfind("\n")
    offset = len(text[:at].encode("utf-8", "surrogatepass"))
    return SyntaxProblem(f"{_place(line)}:{_place(column)} ({_place(offset)}): {message}")


def _place(number: int) -> str:
    """Return the number as text, above 399 as `399+`: clients search error texts for status codes."""
    return str(number) if number < SHOWN_PLACES else f"{SHOWN_PLACES - 1}+"
