"""Our csi.proto against the descriptor in the official Go module: what both have is the same to the number."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto

from chalicelib.csi.spec import csi_pb2
from tests.conformance.echo import peer

DIFFERENCES = json.loads((peer.HERE / "differences.json").read_text("utf-8"))


def described(file: FileDescriptorProto) -> dict[str, Any]:
    """Every name in the file, and what must be the same about it for two peers to understand each other."""
    found: dict[str, Any] = {}
    for name, message in messages(list(file.message_type), ""):
        for field in message.field:
            oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
            found[f"{name}.{field.name}"] = (field.number, field.type, field.label, field.type_name, oneof)
        found.update(values(list(message.enum_type), f"{name}."))
    found.update(values(list(file.enum_type), ""))
    for service in file.service:
        for method in service.method:
            streams = (method.client_streaming, method.server_streaming)
            found[f"{service.name}/{method.name}"] = (method.input_type, method.output_type, streams)
    return found


def messages(within: list[DescriptorProto], prefix: str) -> Iterator[tuple[str, DescriptorProto]]:
    for message in within:
        yield prefix + message.name, message
        yield from messages(list(message.nested_type), f"{prefix}{message.name}.")


def values(enums: list[EnumDescriptorProto], prefix: str) -> dict[str, int]:
    return {f"{prefix}{enum.name}.{value.name}": value.number for enum in enums for value in enum.value}


@pytest.mark.conformance
@pytest.mark.timeout(600)
def test_what_both_have_is_the_same_and_the_rest_is_known(tmp_path: Path) -> None:
    program = peer.build(tmp_path)
    theirs = FileDescriptorProto.FromString(
        subprocess.run([program, "-descriptor"], check=True, capture_output=True, timeout=60).stdout
    )
    ours = FileDescriptorProto.FromString(csi_pb2.DESCRIPTOR.serialized_pb)
    assert ours.package == theirs.package
    here, there = described(ours), described(theirs)
    both = set(here) & set(there)
    assert {name: here[name] for name in both} == {name: there[name] for name in both}
    assert len(both) > 340
    assert sorted(set(here) - both) == DIFFERENCES["only here"]
    assert sorted(set(there) - both) == DIFFERENCES["only there"]
