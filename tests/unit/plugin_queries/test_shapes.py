"""The JSON between the two functions is what version 0.1.0 sends and understands."""

import base64
import json
from dataclasses import asdict
from typing import Any

import pytest

from chalicelib.domain.external import ExternalVolume, Page, Snapshot
from chalicelib.domain.volume import Capability, Definition, Volume
from chalicelib.errors import PluginError, PluginInDoubt, PluginRejected, PluginUnreachable
from chalicelib.plugin_queries import shapes
from chalicelib.plugin_queries.shapes import ListSnapshots, ListVolumes, Query, ValidateVolume
from chalicelib.store import volumes

DEFINITION = Definition(external_id="e", capabilities=(Capability("single-node-writer", "file-system"),))
VOLUME = Volume("default", "data", "directory", definition=DEFINITION)
SEALED = b"\x00sealed"
QUERIES: list[tuple[Query, dict[str, Any]]] = [
    (
        ValidateVolume(VOLUME, SEALED),
        {
            "ask": "validate_volume",
            "plugin_id": "directory",
            "namespace": "default",
            "volume_id": "data",
            "definition": volumes.encode(DEFINITION),
            "secrets": base64.b64encode(SEALED).decode(),
        },
    ),
    (
        ListVolumes("directory", 30, "t"),
        {"ask": "list_volumes", "plugin_id": "directory", "per_page": 30, "next_token": "t"},
    ),
    (
        ListSnapshots("directory", 30, "t"),
        {"ask": "list_snapshots", "plugin_id": "directory", "per_page": 30, "next_token": "t", "secrets": ""},
    ),
]


@pytest.mark.parametrize(("query", "event"), QUERIES, ids=lambda value: type(value).__name__)
def test_a_query_of_version_0_1_0_is_read_and_written(query: Query, event: dict[str, Any]) -> None:
    assert shapes.encode_query(query, 7.5) == event | {"deadline": 7.5}
    assert shapes.decode_query(event | {"deadline": 7.5}) == (query, 7.5)
    assert shapes.decode_query(event | {"deadline": 900, "of a later version": 1}) == (query, shapes.DEADLINE)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("rejected", PluginRejected("no", code="NOT_FOUND")),
        ("in_doubt", PluginInDoubt("no", code="UNAVAILABLE")),
        ("unreachable", PluginUnreachable("no", code="UNAVAILABLE")),
    ],
)
def test_an_error_is_an_answer(kind: str, error: PluginError) -> None:
    body = {"error": {"kind": kind, "text": "no", "code": error.code}}
    assert shapes.encode_error(error) == body
    with pytest.raises(type(error)) as caught:
        shapes.decode_answer(body)
    assert (caught.value.text, caught.value.code) == ("no", error.code)


@pytest.mark.parametrize("entry", [ExternalVolume("e", context={"a": "b"}, published=["n"]), Snapshot("s", "e", 1)])
def test_a_page_is_read_as_it_was_written(entry: ExternalVolume | Snapshot) -> None:
    body = json.loads(json.dumps(shapes.encode_answer(Page([entry], "t"))))
    assert body == {"ok": {"entries": [asdict(entry)], "next_token": "t"}}
    body["ok"]["entries"][0]["of a later version"] = 1
    assert shapes.decode_page(type(entry), shapes.decode_answer(body)) == Page([entry], "t")


def test_secrets_are_not_shown() -> None:
    assert "sealed" not in repr([query for query, _ in QUERIES]).replace("sealed_secrets", "")
