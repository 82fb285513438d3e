"""The generated descriptors hold exactly the messages, numbers, types, oneofs, enums and secret marks of CSI 1.13."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from chalicelib.csi.spec import csi_pb2

FACTS = json.loads((Path(__file__).parents[2] / "data" / "csi-1.13.json").read_text())
SCALARS = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_UINT32: "uint32",
}


def all_messages(prefix: str, found: dict[str, Any]) -> dict[str, Descriptor]:
    out = {}
    for name, message in found.items():
        if not message.GetOptions().map_entry:
            out[prefix + name] = message
            out |= all_messages(f"{prefix}{name}.", message.nested_types_by_name)
    return out


MESSAGES = all_messages("", csi_pb2.DESCRIPTOR.message_types_by_name)


def type_of(field: FieldDescriptor) -> str:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        if field.message_type.GetOptions().map_entry:
            key, value = (field.message_type.fields_by_name[n] for n in ("key", "value"))
            return f"map<{type_of(key)},{type_of(value)}>"
        return "." + field.message_type.full_name
    if field.type == FieldDescriptor.TYPE_ENUM:
        return "." + field.enum_type.full_name
    return SCALARS[field.type]


def facts_of(field: FieldDescriptor) -> dict[str, Any]:
    out: dict[str, Any] = {"number": field.number, "type": type_of(field)}
    if field.is_repeated and not out["type"].startswith("map<"):
        out["repeated"] = True
    if field.containing_oneof is not None:
        out["oneof"] = field.containing_oneof.name
    if field.GetOptions().Extensions[csi_pb2.csi_secret]:
        out["csi_secret"] = True
    return out


def test_exactly_the_messages_of_the_spec_exist() -> None:
    assert set(MESSAGES) == set(FACTS["messages"])


@pytest.mark.parametrize("name", sorted(FACTS["messages"]))
def test_a_message_has_exactly_its_fields(name: str) -> None:
    wanted = {field: {k: v for k, v in facts.items() if k != "alpha"} for field, facts in FACTS["messages"][name].items()}
    assert {field.name: facts_of(field) for field in MESSAGES[name].fields} == wanted


def test_exactly_the_enums_of_the_spec_exist_with_their_numbers() -> None:
    found = {f"{n}.{e.name}": e for n, m in MESSAGES.items() for e in m.enum_types}
    found |= dict(csi_pb2.DESCRIPTOR.enum_types_by_name)
    assert {n: {v.name: v.number for v in e.values} for n, e in found.items()} == FACTS["enums"]


def test_exactly_the_services_of_the_spec_exist_with_their_calls() -> None:
    found = {
        name: {m.name: (m.input_type.full_name, m.output_type.full_name, m.server_streaming) for m in service.methods}
        for name, service in csi_pb2.DESCRIPTOR.services_by_name.items()
    }
    wanted = {
        name: {rpc: (io[0][1:], io[1][1:], "server_stream" in io[2:]) for rpc, io in calls.items()}
        for name, calls in FACTS["services"].items()
    }
    assert found == wanted


def test_the_bridge_has_the_same_stubs() -> None:
    root = Path(__file__).parents[3]
    ours = (root / "chalicelib/csi/spec/csi_pb2.py").read_bytes()
    assert (root / "infra/bridge/moorage/spec/csi_pb2.py").read_bytes() == ours
