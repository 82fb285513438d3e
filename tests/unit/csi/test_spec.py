"""The generated descriptors say exactly what the CSI 1.13 facts say, in both packages."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from chalicelib.csi.spec import csi_pb2
from infra import stubs
from moorage.spec import csi_pb2 as bridge_pb2

FACTS: Final[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "data" / "csi-1.13.json").read_text())
FILE: Final = csi_pb2.DESCRIPTOR
OPTIONS: Final[Any] = csi_pb2  # extensions are plain attributes for the type checker
BRIDGE: Final[Any] = bridge_pb2
SCALARS: Final = {
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_STRING: "string",
}


def short(full_name: str) -> str:
    return full_name.removeprefix("csi.v1.")


def type_name(field: FieldDescriptor) -> str:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields
        return f"map<{type_name(key)},{type_name(value)}>"
    if field.message_type is not None:
        return f".{field.message_type.full_name}"
    if field.enum_type is not None:
        return f".{field.enum_type.full_name}"
    return SCALARS[field.type]


def described(field: FieldDescriptor) -> dict[str, Any]:
    found: dict[str, Any] = {"number": field.number, "type": type_name(field)}
    if field.is_repeated and not found["type"].startswith("map<"):
        found["repeated"] = True
    if field.containing_oneof is not None:
        found["oneof"] = field.containing_oneof.name
    options: Any = field.GetOptions()
    if options.Extensions[OPTIONS.csi_secret]:
        found["csi_secret"] = True
    if options.Extensions[OPTIONS.alpha_field]:
        found["alpha"] = True
    return found


def messages(within: list[Descriptor]) -> Iterator[Descriptor]:
    for message in within:
        if not message.GetOptions().map_entry:
            yield message
            yield from messages(list(message.nested_types))


def every_message() -> list[Descriptor]:
    return list(messages(list(FILE.message_types_by_name.values())))


def every_enum() -> list[EnumDescriptor]:
    return [*FILE.enum_types_by_name.values(), *(e for m in every_message() for e in m.enum_types)]


def test_package_is_the_one_that_plugins_serve() -> None:
    assert FILE.package == FACTS["package"]
    assert f'syntax = "{FACTS["syntax"]}"' in stubs.PROTO.read_text()


def test_messages_and_their_fields_are_exactly_those_of_the_specification() -> None:
    found = {short(m.full_name): {f.name: described(f) for f in m.fields} for m in every_message()}
    assert found == FACTS["messages"]


def test_enums_are_exactly_those_of_the_specification() -> None:
    found = {short(e.full_name): {v.name: v.number for v in e.values} for e in every_enum()}
    assert found == FACTS["enums"]


def test_services_are_exactly_those_of_the_specification() -> None:
    found: dict[str, dict[str, list[str]]] = {}
    for service in FILE.services_by_name.values():
        for method in service.methods:
            options: Any = method.GetOptions()
            marks = ["alpha"] if options.Extensions[OPTIONS.alpha_method] else []
            marks += ["server_stream"] if method.server_streaming else []
            assert not method.client_streaming
            names = [f".{method.input_type.full_name}", f".{method.output_type.full_name}"]
            found.setdefault(service.name, {})[method.name] = names + marks
    assert found == FACTS["services"]


def test_committed_stubs_are_what_the_proto_gives() -> None:
    assert [str(path) for path in stubs.stale()] == []


def test_both_copies_load_in_one_process_and_share_their_messages() -> None:
    assert BRIDGE.Volume is csi_pb2.Volume
    assert BRIDGE.DESCRIPTOR.serialized_pb == FILE.serialized_pb
