"""Filters against what go-bexpr made of the same expressions (tests/conformance/bexpr), recorded texts, and limits."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.wire import bexpr_grammar, kinds, shapes
from chalicelib.wire.bexpr import MAX_STEPS, FilterError, compile_filter
from chalicelib.wire.kinds import Field, ListOf, MapOf, Pointer, Struct, Text

TABLE: dict[str, Any] = json.loads((Path(__file__).parents[2] / "data" / "bexpr_cases.json").read_text("utf-8"))
SYNTAX = "failed to create result paginator: failed to read filter expression: "
READING = "failed to read result page: "
HANGS = 120
"""Seconds after which something hangs: what is tested takes seconds at most, and would take hours."""

# What structs.Volume of the Go program is.
MODE = Text("structs.Mode")
TOPOLOGY = Struct("structs.Topology", (Field("Segments", kinds.STRING_MAP),))
OPTIONS = Struct("structs.MountOptions", (Field("FSType", kinds.STRING), Field("MountFlags", kinds.STRINGS)))
REQUEST = Struct(
    "structs.TopologyRequest",
    (Field("Required", ListOf(Pointer(TOPOLOGY))), Field("Preferred", ListOf(Pointer(TOPOLOGY)))),
)
VOLUME = Struct(
    "structs.Volume",
    (
        Field("ID", kinds.STRING),
        Field("Name", kinds.STRING),
        Field("AccessMode", MODE),
        Field("Capacity", kinds.INT64),
        Field("Healthy", kinds.INT),
        Field("CreateIndex", kinds.UINT64),
        Field("Schedulable", kinds.BOOL),
        Field("Parameters", kinds.STRING_MAP),
        Field("Context", kinds.STRING_MAP),
        Field("Flags", kinds.STRINGS),
        Field("NoFlags", kinds.STRINGS),
        Field("Modes", ListOf(MODE)),
        Field("Numbers", ListOf(kinds.INT64)),
        Field("Switches", ListOf(kinds.BOOL)),
        Field("Lists", ListOf(kinds.STRINGS)),
        Field("Topologies", ListOf(Pointer(TOPOLOGY))),
        Field("MountOptions", Pointer(OPTIONS)),
        Field("NoOptions", Pointer(OPTIONS)),
        Field("Inline", OPTIONS),
        Field("Request", Pointer(REQUEST)),
        Field("ReadAllocs", MapOf(Pointer(OPTIONS))),
        Field("Maps", MapOf(kinds.STRING_MAP)),
        Field("Counts", MapOf(kinds.INT64)),
        Field("When", kinds.TIME),
        Field("WhenOrNever", Pointer(kinds.TIME)),
    ),
)
DATUM: dict[str, Any] = TABLE["datum"]


def outcome(expression: str, datum: dict[str, Any], shape: Struct | None) -> bool | str:
    """The answer, or the text of the refusal; any other exception is a bug."""
    try:
        return compile_filter(expression, shape).matches(datum)
    except FilterError as exc:
        return exc.text


def expected(case: dict[str, Any]) -> bool | str:
    if "syntax" in case:
        return SYNTAX + str(case["syntax"])
    return READING + str(case["error"]) if "error" in case else bool(case.get("matches"))


@pytest.mark.parametrize("start", range(0, len(TABLE["cases"]), 500))
def test_expressions_mean_what_they_mean_to_go_bexpr(start: int) -> None:
    for case in TABLE["cases"][start : start + 500]:
        got, want = outcome(case["expression"], DATUM, VOLUME), expected(case)
        if isinstance(want, str) and want.startswith(SYNTAX):
            assert isinstance(got, str), case["expression"]
            assert got.startswith(SYNTAX), case["expression"]
        elif "panics" not in case:
            assert got == want, case["expression"]


def test_nearly_all_syntax_errors_have_the_text_of_go_bexpr() -> None:
    """It blames the first parenthesis still open for what is wrong inside; here the place itself is shown."""
    wrong = [case for case in TABLE["cases"] if "syntax" in case]
    differ = [case for case in wrong if outcome(case["expression"], DATUM, VOLUME) != expected(case)]
    elsewhere = [case["expression"] for case in differ if "Unmatched parentheses" not in case["syntax"]]
    assert len(elsewhere) <= 5, elsewhere
    assert len(differ) < len(wrong) / 10


TWELVE = '"(", "-", "0", "\\"", "`", "all", "any", "not", [ \\t\\r\\n], [1-9] or [a-zA-Z]'
OPERATORS = '"!=", "==", "contains", "in", "is", "matches", "not" or [ \\t\\r\\n]'
RECORDED = [
    ("ID == f-a", SYNTAX + '1:8 (7): no match found, expected: ".", "[", [ \\t\\r\\n], [a-zA-Z0-9_/] or EOF'),
    (
        "Schedulable",
        SYNTAX + '1:12 (11): no match found, expected: "!=", ".", "==", "[", [ \\t\\r\\n] or [a-zA-Z0-9_/]',
    ),
    ("CreateIndex > 1", SYNTAX + "1:13 (12): no match found, expected: " + OPERATORS),
    ('Name startswith "a"', SYNTAX + "1:6 (5): no match found, expected: " + OPERATORS),
    ("ID ==", SYNTAX + '1:6 (5): no match found, expected: "-", "0", "\\"", "`", [ \\t\\r\\n], [1-9] or [a-zA-Z]'),
    ('ID == "f-a" and', SYNTAX + "1:16 (15): no match found, expected: [ \\t\\r\\n]"),
    ('== "x"', SYNTAX + "1:1 (0): no match found, expected: " + TWELVE),
    ("   ", SYNTAX + "1:4 (3): no match found, expected: " + TWELVE),
    ("(", SYNTAX + "1:2 (1): no match found, expected: " + TWELVE),
    ('RequestedCapabilities[0].AccessMode == "x"', SYNTAX + '1:23 (22): rule "index": Invalid index'),
    ('"unclosed', SYNTAX + '1:10 (9): rule "string": Unterminated string literal'),
    ('ID in "f-a"', SYNTAX + '1:7 (6): rule "match": Invalid selector'),
    (
        'Bogus == "x"',
        READING + 'error finding value in datum: /Bogus at part 0: couldn\'t find key: struct field with name "Bogus"',
    ),
    (
        'MountOptions.FSType == ""',
        READING + "error finding value in datum: /MountOptions/FSType: at part 1, invalid value kind: invalid",
    ),
    ('ID == "f-a"', True),
    ("ID == 5", False),
    ('(ID == "f-a" or ID == "f-b") and not Name == "beta"', True),
    ("Secrets is empty", True),
    ("Parameters is empty", False),
    ('Parameters.k == "v"', True),
    ("Topologies is empty", True),
    ('Schedulable == "true"', False),
    ("Capacity == 1048576", True),
]
RECORDED_VOLUME = kinds.zero(shapes.CSI_VOLUME) | {
    "ID": "f-a",
    "Name": "alpha",
    "Parameters": {"k": "v"},
    "Capacity": 1048576,
}


@pytest.mark.parametrize(("expression", "want"), RECORDED)
def test_answers_are_those_of_a_real_nomad(expression: str, want: bool | str) -> None:
    assert outcome(expression, RECORDED_VOLUME, shapes.CSI_VOLUME) == want


def test_a_broken_regular_expression_is_told_as_a_real_nomad_does() -> None:
    assert outcome('Name matches "("', RECORDED_VOLUME, shapes.CSI_VOLUME) == (
        READING + 'failed to compile regular expression "(": error parsing regexp: missing closing ): `(`'
    )


@pytest.mark.timeout(HANGS)
@pytest.mark.parametrize("pattern", ["(a*)*$", "(a|a)*$", "(.*)(.*)(.*)(.*)[^a]", "(a?){500}a{500}"])
def test_no_regular_expression_hangs(pattern: str) -> None:
    assert outcome(f'ID matches "{pattern}x"', {"ID": "a" * 100_000}, None) is False


# A datum without a shape: fields at the top, maps below, numbers as they are.
PLAIN: dict[str, Any] = {
    "ID": "v",
    "Count": 3,
    "On": True,
    "Ratio": 0.5,
    "Nothing": None,
    "Map": {"k": "v", "n": 1, "inner": {"a": "b"}},
    "List": ["x", 2, True, None, {"y": 1}],
    "Empty": [],
}
WITHOUT_A_SHAPE = [
    ("Count == 3", True),
    ('Count == "0x3"', True),
    ("On == true", True),
    ("Ratio == 0.5", True),
    ("Nothing is empty", True),
    ("Nothing is nil", True),
    ("Nothing is not empty", False),
    ("Map.k == v", True),
    ("Map.nope == v", False),
    ("Map.nope != v", True),
    ('"k" in Map', True),
    ("Map.inner.a == b", True),
    ("Map.n == 1", True),
    ('"x" in List', True),
    ("2 in List", True),
    ("5 in List", False),
    ("List.1 == 2", True),
    ("Empty is empty", True),
    ("any List as e { e == x }", True),
    ("all Map as k { k is not empty }", True),
    (
        "Bogus == 1",
        READING + 'error finding value in datum: /Bogus at part 0: couldn\'t find key: struct field with name "Bogus"',
    ),
    ("Nothing == 1", READING + "unable to find suitable primitive comparison function for matching"),
    (
        "Count == x",
        READING + 'error getting match value in expression: strconv.ParseInt: parsing "x": invalid syntax',
    ),
    (
        "Ratio == x",
        READING + 'error getting match value in expression: strconv.ParseFloat: parsing "x": invalid syntax',
    ),
    ("Nothing.x == 1", READING + "error finding value in datum: /Nothing/x: at part 1, invalid value kind: invalid"),
]


@pytest.mark.parametrize(("expression", "want"), WITHOUT_A_SHAPE)
def test_a_datum_needs_no_shape(expression: str, want: bool | str) -> None:
    assert outcome(expression, PLAIN, None) == want


def test_a_long_expression_is_refused() -> None:
    assert outcome("ID == x" + " " * 4096, PLAIN, None) == SYNTAX + "the expression is longer than 4096 characters"


def nested(levels: int) -> str:
    return "not (ID == v and " * levels + "ID == x" + ")" * levels


def test_deep_nesting_is_refused() -> None:
    assert outcome(nested(49), PLAIN, None) in (True, False)
    assert outcome(nested(60), PLAIN, None) == SYNTAX + "the expression nests deeper than 100 levels"


@pytest.mark.timeout(HANGS)
@pytest.mark.parametrize(
    "expression",
    [
        "(" * 4096,
        "(" * 2044 + "ID == v" + ")" * 2044,
        "not " * 1022 + "ID == v",
        "ID == v and " * 340 + "ID == v",
        "ID == x or " * 370 + "ID == v",
        "ID" + ".x" * 2000 + " == 1",
        'ID == "' + "x" * 4000,
        "ID" + " " * 4090 + "x",
        "any List as e { " * 200,
    ],
    ids=lambda expression: expression[:12],
)
def test_long_expressions_cost_no_more_than_their_length(expression: str) -> None:
    assert outcome(expression, PLAIN, None) is not None


@pytest.mark.timeout(HANGS)
def test_loops_inside_loops_are_refused_when_they_go_on_for_too_long() -> None:
    datum = {"L": ["x"] * 1000}
    text = outcome("any L as a { any L as b { any L as c { a == y and b == c } } }", datum, None)
    assert text == f"{READING}the filter takes more than {MAX_STEPS} steps for one item"


def test_a_filter_may_be_used_again() -> None:
    wanted = compile_filter("Count == 3")
    assert [wanted.matches({"Count": count}) for count in (3, 4, 3)] == [True, False, True]


words = st.sampled_from(
    [
        *(
            "ID",
            "Flags",
            "Maps",
            "Numbers",
            "Topologies",
            "x",
            "not",
            "any",
            "all",
            "in",
            "is",
            "empty",
            "nil",
            "contains",
        ),
        *(
            "and",
            "or",
            "as",
            "==",
            "!=",
            "(",
            ")",
            "{",
            "}",
            "[",
            "]",
            '"a"',
            "`b`",
            '"',
            "`",
            "5",
            "-1",
            ".",
            ",",
            "_",
        ),
        *('"/ID"', "1.5", '["k"]', ".k", ".5", "é", "\n", "\\", "\ud800", "\x00"),
    ]
)


@settings(max_examples=300)
@given(st.lists(words, max_size=12).map(" ".join) | st.lists(words, max_size=6).map("".join) | st.text(max_size=20))
def test_no_expression_raises_anything_but_a_filter_error(expression: str) -> None:
    for shape in (VOLUME, None):
        got = outcome(expression, DATUM, shape)
        assert isinstance(got, bool) or got.startswith((SYNTAX, READING))


# Without a slash: a value like "/a/b" is a JSON pointer to go-bexpr, and loses its first one.
text_values = st.text(st.characters(exclude_characters='"\\\n/', exclude_categories=["Cs"]), min_size=1, max_size=8)


@given(text_values, text_values)
def test_equality_is_equality_and_not_negates(value: str, other: str) -> None:
    datum = {"ID": value}
    same, negated = f'ID == "{value}"', f'not ID == "{other}"'
    assert outcome(same, datum, None) is True
    assert outcome(negated, datum, None) is (value != other)
    assert outcome(f"({same}) or ({negated})", datum, None) is True
    assert outcome(f"({same}) and ({negated})", datum, None) is (value != other)


def test_the_parser_is_built_once() -> None:
    bexpr_grammar.parse("ID == 1")
    before = bexpr_grammar._parser.cache_info().misses
    bexpr_grammar.parse("ID == 2")
    assert bexpr_grammar._parser.cache_info().misses == before == 1


def test_no_place_in_a_text_looks_like_a_status_code() -> None:
    """Clients look for "404" in error texts."""
    for at in range(380, 620):
        text = f'ID == "{"x" * (at - 9)}" =='
        with pytest.raises(FilterError) as refused:
            compile_filter(text, VOLUME)
        assert re.search("[45][0-9][0-9]", str(refused.value).partition(": no match")[0]) is None, refused.value
