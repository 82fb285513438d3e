"""Decoding and encoding against what Go did with the same (tests/conformance/gojson), and what differs on purpose."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chalicelib.wire import kinds, shapes
from chalicelib.wire.gojson import BodyError, decode, encode
from chalicelib.wire.gotime import parse_duration
from chalicelib.wire.kinds import Field, ListOf, MapOf, Pointer, Struct

CASES: dict[str, Any] = json.loads((Path(__file__).parents[2] / "data" / "gojson_cases.json").read_text("utf-8"))

# What structs.Odds of the Go program is.
ODDS = Struct(
    "structs.Odds",
    (
        Field("Small", kinds.INT32),
        Field("When", Pointer(kinds.TIME)),
        Field("Wait", kinds.DURATION),
        Field("Inner", shapes.CSI_MOUNT_OPTIONS),
        Field("Numbers", ListOf(kinds.INT64)),
        Field("Lists", ListOf(kinds.STRINGS)),
        Field("Flags", MapOf(kinds.BOOL)),
        Field("Kept", kinds.STRING),
        Field("KEPT", kinds.STRING),
    ),
)
SHAPES = {"register": shapes.CSI_VOLUME_REGISTER_REQUEST, "snapshot": shapes.CSI_SNAPSHOT_CREATE_REQUEST, "odds": ODDS}
REGISTER = shapes.CSI_VOLUME_REGISTER_REQUEST


def refusal(body: bytes, shape: Struct = REGISTER) -> str:
    with pytest.raises(BodyError) as caught:
        decode(body, shape)
    return caught.value.text


def outcome(body: bytes, shape: Struct) -> dict[str, Any] | str:
    """The value or the refusal; any other exception is a bug."""
    try:
        return decode(body, shape)
    except BodyError as exc:
        return exc.text


def without_times(value: Any) -> Any:
    """Go writes a time in a form of its own; here it stays the text that was sent."""
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in ("ResourceExhausted", "When")}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("start", range(0, len(CASES["decode"]), 250))
def test_bodies_are_taken_and_refused_as_go_does(start: int) -> None:
    for case in CASES["decode"][start : start + 250]:
        body = case["body"].encode("latin1")
        got = outcome(body, SHAPES[case["shape"]])
        if "error" in case or isinstance(got, str):
            assert got == case.get("error") or ("error" not in case and " is null: " in got), body
        elif "value" in case:
            assert without_times(got) == without_times(case["value"]), body


def test_strings_are_written_as_go_does() -> None:
    for case in CASES["encode"]:
        assert encode(case["text"]).decode() == case["json"]


RECORDED = [
    (b"", "Request body is empty"),
    (b"  \n", "EOF"),
    (b"{", "unexpected EOF"),
    (b"{'a':1}", "invalid character '\\'' looking for beginning of object key string"),
    (b"hello", "invalid character 'h' looking for beginning of value"),
    (b'{"Volumes":[],}', "invalid character '}' looking for beginning of object key string"),
    (b"\xef\xbb\xbf{}", "invalid character '\xef' looking for beginning of value"),
    (b'{"Volumes":NaN}', "invalid character 'N' looking for beginning of value"),
    (b"[]", "json: cannot unmarshal array into Go value of type structs.CSIVolumeRegisterRequest"),
]
CAPACITY = "CSIVolume.Volumes.RequestedCapacityMin"
RECORDED_IN_A_VOLUME = [
    ('"ID":5', "number", "CSIVolume.Volumes.ID", "string"),
    ('"RequestedCapacityMin":"1GiB"', "string", CAPACITY, "int64"),
    ('"RequestedCapacityMin":1.5', "number 1.5", CAPACITY, "int64"),
    ('"RequestedCapacityMin":1000.0', "number 1000.0", CAPACITY, "int64"),
    ('"RequestedCapacityMin":9223372036854775808', "number 9223372036854775808", CAPACITY, "int64"),
    (
        '"RequestedCapabilities":{}',
        "object",
        "CSIVolume.Volumes.RequestedCapabilities",
        "[]*structs.CSIVolumeCapability",
    ),
    ('"Secrets":[]', "array", "CSIVolume.Volumes.Secrets", "structs.CSISecrets"),
    ('"Secrets":{"a":1}', "number", "CSIVolume.Volumes.Secrets", "string"),
    ('"MountOptions":{"MountFlags":"ro"}', "string", "CSIMountOptions.Volumes.MountOptions.MountFlags", "[]string"),
    ('"CreateIndex":-1', "number -1", "CSIVolume.Volumes.CreateIndex", "uint64"),
]


@pytest.mark.parametrize(("body", "text"), RECORDED)
def test_refusals_are_those_of_a_real_nomad(body: bytes, text: str) -> None:
    assert refusal(body) == text


@pytest.mark.parametrize(("member", "found", "place", "go_type"), RECORDED_IN_A_VOLUME)
def test_wrong_types_are_told_as_a_real_nomad_does(member: str, found: str, place: str, go_type: str) -> None:
    text = refusal(f'{{"Volumes":[{{"Name":"x",{member}}}]}}'.encode())
    assert text == f"json: cannot unmarshal {found} into Go struct field {place} of type {go_type}"


def test_a_bad_time_is_told_as_a_real_nomad_does() -> None:
    assert refusal(b'{"Volumes":[{"ID":5,"ResourceExhausted":"yesterday"}]}') == (
        'parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"'
    )


NULL_ELEMENTS = [
    (REGISTER, b'{"Volumes":[null]}', "Volumes[0]"),
    (REGISTER, b'{"Volumes":[{"RequestedCapabilities":[{},null]}]}', "Volumes[0].RequestedCapabilities[1]"),
    (
        REGISTER,
        b'{"volumes":[{},{"requestedtopologies":{"required":[null]}}]}',
        "Volumes[1].RequestedTopologies.Required[0]",
    ),
    (
        REGISTER,
        b'{"Volumes":[{"RequestedTopologies":{"Preferred":[{},null]}}]}',
        "Volumes[0].RequestedTopologies.Preferred[1]",
    ),
    (shapes.CSI_SNAPSHOT_CREATE_REQUEST, b'{"Snapshots":[null]}', "Snapshots[0]"),
]


@pytest.mark.parametrize(("shape", "body", "place"), NULL_ELEMENTS)
def test_null_in_a_list_of_structs_is_refused_by_name(shape: Struct, body: bytes, place: str) -> None:
    assert refusal(body, shape) == f"{place} is null: give an object or leave the element out"


def test_the_topologies_of_a_volume_read_from_nomad_may_start_with_null() -> None:
    volume = decode(b'{"Volumes":[{"Topologies":[null,{"Segments":{"rack":"r1"}}]}]}', REGISTER)["Volumes"][0]
    assert volume["Topologies"] == [None, {"Segments": {"rack": "r1"}}]


def test_null_and_absent_differ_from_empty() -> None:
    body = b'{"Volumes":[{"Parameters":{},"Context":null,"RequestedCapabilities":[],"MountOptions":{}}]}'
    volume = decode(body, REGISTER)["Volumes"][0]
    assert volume["Parameters"] == {}
    assert volume["Context"] is None
    assert volume["Secrets"] is None
    assert volume["RequestedCapabilities"] == []
    assert volume["MountOptions"] == {"FSType": "", "MountFlags": None}
    assert volume["RequestedTopologies"] is None


def test_every_declared_field_is_there_and_nothing_else() -> None:
    assert decode(b'{"Wibble": 1}', REGISTER) == kinds.zero(REGISTER)
    assert decode(b"null", shapes.NAMESPACE) == kinds.zero(shapes.NAMESPACE)


def test_a_time_stays_as_it_was_sent() -> None:
    body = b'{"Volumes":[{"ResourceExhausted":"2026-01-02T03:04:05.000000001+01:00"}]}'
    assert decode(body, REGISTER)["Volumes"][0]["ResourceExhausted"] == "2026-01-02T03:04:05.000000001+01:00"
    assert decode(b'{"Volumes":[{}]}', REGISTER)["Volumes"][0]["ResourceExhausted"] == "0001-01-01T00:00:00Z"


def test_a_long_number_is_cut_short_in_the_text() -> None:
    text = refusal(b'{"Volumes":[{"Capacity":%s}]}' % (b"7" * 300_000))
    assert text.startswith("json: cannot unmarshal number 7777")
    assert "... into Go struct field CSIVolume.Volumes.Capacity of type int64" in text
    assert len(text) < 250


@pytest.mark.parametrize(
    ("text", "nanoseconds"), [("1.5s", 1_500_000_000), ("-2m", -120_000_000_000), ("1h0m0s", 3_600 * 10**9)]
)
def test_durations_may_be_texts(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds
    assert decode(json.dumps({"Wait": text}).encode(), ODDS)["Wait"] == nanoseconds


FULL_SIZE = 300 * 1024
HEAVY = {
    "open lists": b"[" * FULL_SIZE,
    "open objects": b'{"a":' * (FULL_SIZE // 5),
    "many elements": b'{"x":[' + b"1," * (FULL_SIZE // 2) + b"1]}",
    "a long number": b'{"Volumes":[{"Capacity":-' + b"9" * FULL_SIZE + b"}]}",
    "a long fraction": b'{"Volumes":[{"Capacity":1.' + b"9" * FULL_SIZE + b"}]}",
    "a long string": b'{"Region":"' + b"a" * FULL_SIZE + b'"}',
    "an open string": b'{"Region":"' + b"a" * FULL_SIZE,
    "an open string of escapes": b'{"Region":"' + b"\\n" * (FULL_SIZE // 2),
    "surrogates": b'{"Region":"' + b"\\ud800" * (FULL_SIZE // 6) + b'"}',
    "bytes that are not UTF-8": b'{"Region":"' + b"\xff" * FULL_SIZE + b'"}',
    "white space": b" " * FULL_SIZE,
    "repeated keys": b"{" + b'"Volumes":[{}],' * (FULL_SIZE // 15) + b'"Volumes":[]}',
    "a list cut and regrown": b'{"Numbers":[' + b"1," * 50_000 + b"1]" + b',"Numbers":[1]' * 10_000 + b"}",
    "a time": b'{"Volumes":[{"ResourceExhausted":"' + b"1" * FULL_SIZE + b'"}]}',
}


@pytest.mark.timeout(120)  # a second here, a busy machine is slower; anything quadratic takes minutes on any
@pytest.mark.parametrize("name", HEAVY)
def test_heavy_bodies_cost_no_more_than_their_size(name: str) -> None:
    for shape in ("register", "odds"):
        assert outcome(HEAVY[name], SHAPES[shape])


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["2026-01-02T03:04:05Z", "1h", "5", "x" * 30]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([f.name for f in (*shapes.CSI_VOLUME.fields, *REGISTER.fields)]) | st.text(max_size=3),
            inner,
        )
    ),
    max_leaves=25,
)


@given(st.binary(max_size=60))
@example(b"\xed\xa0\x80")
def test_no_bytes_raise_anything_but_a_body_error(body: bytes) -> None:
    for shape in SHAPES.values():
        assert outcome(body, shape)


@settings(max_examples=100)
@given(json_like, st.integers(0, 200), st.binary(max_size=2))
def test_no_json_raises_anything_but_a_body_error(value: Any, at: int, noise: bytes) -> None:
    body = json.dumps(value).encode()
    for each in (body, b'{"Volumes":[' + body + b"]}", body[:at] + noise + body[at + 1 :]):
        got = outcome(each, REGISTER)
        assert isinstance(got, str) or set(got) == set(REGISTER.by_name)


def values_of(kind: kinds.Kind) -> st.SearchStrategy[Any]:
    """Anything of that kind, as a decoded body holds it."""
    text = st.text(max_size=8)
    match kind:
        case kinds.Integer():
            return st.integers(kind.low, kind.high)
        case kinds.Boolean():
            return st.booleans()
        case kinds.Time():
            return st.datetimes().map(lambda when: when.isoformat() + "Z")
        case kinds.ListOf():
            return st.none() | st.lists(values_of(kind.element).filter(lambda item: item is not None), max_size=2)
        case kinds.MapOf():
            return st.none() | st.dictionaries(text, values_of(kind.element), max_size=2)
        case kinds.Pointer():
            return st.none() | values_of(kind.target)
        case kinds.Struct():
            return st.fixed_dictionaries({field.name: values_of(field.kind) for field in kind.fields})
        case _:
            return text


@settings(max_examples=50)
@given(values_of(shapes.CSI_SNAPSHOT_CREATE_REQUEST), st.booleans())
def test_what_is_encoded_is_decoded_again(value: Any, pretty: bool) -> None:
    assert decode(encode(value, pretty=pretty), shapes.CSI_SNAPSHOT_CREATE_REQUEST) == value


@settings(max_examples=25)
@given(values_of(shapes.CSI_VOLUME))
def test_a_volume_is_decoded_again(value: Any) -> None:
    assert decode(encode({"Volumes": [value]}), REGISTER)["Volumes"] == [value]


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())))
def test_encoded_values_are_json_with_sorted_keys(value: Any) -> None:
    for pretty in (False, True):
        again = json.loads(encode(value, pretty=pretty))
        assert again == value
        assert list(again) == sorted(value)


def test_answers_are_written_as_recorded() -> None:
    value = {"b": [{}, [], None, {"k": "<>&größe"}], "a": 12}
    assert encode(value) == '{"a":12,"b":[{},[],null,{"k":"<>&größe"}]}'.encode()
    assert (
        encode({"b": [1, {}], "a": []}, pretty=True)
        == b'{\n    "a": [],\n    "b": [\n        1,\n        {}\n    ]\n}\n'
    )
    assert encode("\ud800x\u2028") == b'"\\ufffdx\\u2028"'


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_say_is_not_written(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode(value)
