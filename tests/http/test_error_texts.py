"""No error text holds what a client could take for a status code, or what AWS says (Terraform forgets a volume when the
error of a read has a 404 in it).

Twice: every literal that could become part of a text, and the answers of a tour of refusals with everything failing.
"""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib import clock, errors
from tests.harness import Reply, System, definition

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "app.py", *sorted((ROOT / "chalicelib").rglob("*.py"))]
SOURCES = [f for f in FILES if "spec" not in f.parts]

STATUS = re.compile(r"(?<![0-9])[45][0-9]{2}(?![0-9])")
AMAZON = re.compile(r"(?i)arn:|request ?id|amazon|boto|dynamodb|\b[A-Z0-9]{52}\b|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-")
OPERATION = re.compile(r"operation ([^ ,;:(]+) \(")

# Texts that may hold digits of their own accord. Each says whose digits they are.
OF_THE_CLIENT = {
    "json: cannot unmarshal number": "Go shows the number that the body held, in answers to writes only",
    "requested capacity": "sizes that the request and the volume have, in answers to writes only",
}


def literals(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every text of a module but its docstrings."""
    said = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.lineno, node.value


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(ROOT)))
def test_no_literal_holds_a_number_like_a_status(file: Path) -> None:
    found = [(line, text) for line, text in literals(ast.parse(file.read_text("utf-8"))) if STATUS.search(text)]
    assert found == []


def numbers_in_texts(file: Path) -> Iterator[tuple[int, str, int]]:
    """Line, source and value of every constant number that a text is made with: `f"longer than {LIMIT} bytes"`."""
    tree = ast.parse(file.read_text("utf-8"))
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    names = vars(importlib.import_module(name))
    for node in ast.walk(tree):
        if not isinstance(node, ast.FormattedValue):
            continue
        source = ast.unparse(node.value)
        roots = {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
        if roots and all(isinstance(names.get(r), int) for r in roots):
            value = eval(source, names)  # noqa: S307 - our own source, of constants only
            yield node.lineno, source, int(value)


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(ROOT)))
def test_no_limit_that_a_text_names_looks_like_a_status(file: Path) -> None:
    assert [found for found in numbers_in_texts(file) if STATUS.fullmatch(str(found[2]))] == []


def test_the_check_of_limits_sees_them() -> None:
    seen = {source for file in SOURCES for _, source, _ in numbers_in_texts(file)}
    assert "DESCRIPTION_LIMIT" in seen


def test_ids_of_operations_are_letters_only_and_sort_by_time() -> None:
    real = clock.Clock()
    made = [real.new_id() for _ in range(200)]
    assert all(re.fullmatch("[a-z]+", operation_id) for operation_id in made)
    assert len(set(made)) == len(made)


def wrong(reply: Reply) -> list[str]:
    """What is wrong with the text of an error."""
    if any(text in reply.body for text in OF_THE_CLIENT):
        return []
    found = [m.group() for m in (*STATUS.finditer(reply.body), *AMAZON.finditer(reply.body))]
    found += [i for i in OPERATION.findall(reply.body) if not re.fullmatch("[a-z]+", i)]
    return found


LONG = "x" * 2000
CAPABILITY = {"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}
REFUSED: list[tuple[str, str, Any, str]] = [
    ("GET", "/v1/volume/csi/none", None, ""),
    ("GET", "/v1/volume/csi/data", None, "wait=bogus"),
    ("GET", "/v1/volume/csi/data", None, "index=x"),
    ("GET", "/v1/volume/csi/data", None, "stale=x"),
    ("GET", "/v1/volume/csi/data", None, "region=x"),
    ("GET", "/v1/volumes", None, "type=csi&per_page=x"),
    ("GET", "/v1/volumes", None, "type=csi&filter=x+%3D%3D"),
    ("GET", "/v1/volumes", None, "type=csi&filter=Bogus+%3D%3D+1"),
    ("GET", "/v1/volumes", None, "type=bogus"),
    ("GET", "/v1/volumes/external", None, "plugin_id=none"),
    ("GET", "/v1/volumes/external", None, "plugin_id=directory&per_page=-1"),
    ("GET", "/v1/volumes/snapshot", None, "plugin_id=directory"),
    ("POST", "/v1/volume/csi/data", None, ""),
    ("PUT", "/v1/volumes", None, ""),
    ("PUT", "/v1/volumes", b"{", ""),
    ("PUT", "/v1/volumes", {"Volumes": [{"ID": 404}]}, ""),
    ("PUT", "/v1/volumes", {"Volumes": [None]}, ""),
    ("PUT", "/v1/volumes", {"Volumes": []}, ""),
    ("PUT", "/v1/volumes", definition(LONG), ""),
    ("PUT", "/v1/volumes", definition("a\x01"), ""),
    ("PUT", "/v1/volumes", definition(Parameters={"a": "x" * 400_000}), ""),
    ("PUT", "/v1/volumes", b" " * 7_000_000, ""),
    ("PUT", "/v1/volumes", definition(Secrets={"a": "x" * 40_000}), ""),
    ("PUT", "/v1/volumes", definition(PluginID="none"), ""),
    ("PUT", "/v1/volumes", definition(RequestedCapabilities=[CAPABILITY | {"AccessMode": "x"}]), ""),
    ("PUT", "/v1/volumes", definition(), "namespace=none"),
    ("PUT", "/v1/volume/csi/data/create", {"Volumes": definition()["Volumes"] * 2}, ""),
    ("PUT", "/v1/volume/csi/data/create", definition(Name=""), ""),
    ("PUT", "/v1/volume/csi/data/create", definition(RequestedCapacityMin=2, RequestedCapacityMax=1), ""),
    ("PUT", "/v1/volume/csi/kept/create", definition("kept", Name="other", SnapshotID="s", Parameters={"a": "b"}), ""),
    ("PUT", "/v1/volume/csi/kept/create", definition("kept", RequestedCapacityMax=1), ""),
    ("DELETE", "/v1/volume/csi/none", None, ""),
    ("DELETE", "/v1/volume/csi/none", None, "force=x"),
    ("DELETE", "/v1/volume/csi/none/delete", None, ""),
    ("DELETE", "/v1/volume/csi/none/detach", None, ""),
    ("DELETE", "/v1/volume/csi/none/detach", None, "node=x"),
    ("PUT", "/v1/volumes/snapshot", {"Snapshots": [{"SourceVolumeID": "none", "Name": "s"}]}, ""),
    ("PUT", "/v1/volumes/snapshot", {"Snapshots": [{"SourceVolumeID": "kept"}]}, ""),
    ("DELETE", "/v1/volumes/snapshot", None, "plugin_id=none&snapshot_id=s"),
    ("GET", "/v1/plugin/csi/none", None, ""),
    ("GET", "/v1/node/none", None, ""),
    ("GET", "/v1/namespace/none", None, ""),
    ("PUT", "/v1/namespace", {"Name": "not good"}, ""),
    ("PUT", "/v1/namespace", {"Name": "a", "Description": LONG}, ""),
    ("PUT", "/v1/namespace/a", {"Name": "b"}, ""),
    ("DELETE", "/v1/namespace/none", None, ""),
    ("DELETE", "/v1/namespace/default", None, ""),
    ("GET", "/v1/operation/none", None, ""),
    ("GET", "/v1/operations", None, "status=none"),
    ("PUT", "/v1/operation/none/resume", None, ""),
    ("PUT", "/v1/search", {"Context": "none"}, ""),
    ("PUT", "/v1/search/fuzzy", {"Text": "a", "Context": "all"}, ""),
    ("PUT", "/v1/jobs", {}, ""),
    ("GET", "/v1/job/none", None, ""),
    ("GET", "/v1/acl/policies", None, ""),
    ("GET", "/v1/client/stats", None, ""),
    ("PUT", "/v1/bridge/node-a", {}, ""),
    ("PUT", "/v1/bridge/node-a", {"Protocol": 0}, ""),
]


def test_no_refusal_holds_a_number_like_a_status(system: System) -> None:
    assert system.call("PUT", "/v1/volume/csi/kept/create", definition("kept", RequestedCapacityMin=9)).status == 200
    seen = {}
    for method, path, body, query in REFUSED:
        reply = system.call(method, path, body, query=query)
        assert reply.status >= 400, f"{method} {path} {query} was meant to be refused"
        if found := wrong(reply):
            seen[f"{method} {path} {query}"] = (found, reply.body[:300])
    assert seen == {}


def test_an_operation_is_named_by_letters_while_it_runs_and_to_those_who_come_after(system: System) -> None:
    system.pumping = False
    running = system.call("PUT", "/v1/volume/csi/data/create", definition())
    other = system.call("PUT", "/v1/volume/csi/data/create", definition(Parameters={"a": "b"}))
    deleted = system.call("DELETE", "/v1/volume/csi/data")
    assert [running.status, other.status] == [504, 409]
    assert OPERATION.findall(running.body)
    assert [wrong(reply) for reply in (running, other, deleted)] == [[], [], []]


@pytest.mark.parametrize("code", ["ThrottlingException", "InternalServerError", "ResourceNotFoundException"])
def test_what_aws_says_never_reaches_a_client(system: System, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert system.call("PUT", "/v1/volume/csi/kept/create", definition("kept")).status == 200

    def fails(**_: Any) -> Any:
        error = {"Code": code, "Message": "404 arn:aws:dynamodb:us-east-1:123456789012:table/x"}
        meta = {"RequestId": "K4SQ404KQNSO5AEMVJF66Q9ASUAAJG", "HTTPStatusCode": 404}
        raise ClientError({"Error": error, "ResponseMetadata": meta}, "GetItem")  # type: ignore[typeddict-item]

    for name in ("get_item", "query", "batch_get_item", "update_item", "put_item", "transact_write_items"):
        monkeypatch.setattr(system.deps.dynamo.client, name, fails)
    for method, path, body in (
        ("GET", "/v1/volume/csi/kept", None),
        ("GET", "/v1/volumes?type=csi", None),
        ("GET", "/v1/plugin/csi/directory", None),
        ("GET", "/v1/namespaces", None),
        ("PUT", "/v1/volume/csi/data/create", definition()),
        ("PUT", "/v1/volumes", definition()),
        ("DELETE", "/v1/volume/csi/kept/delete", None),
        ("DELETE", "/v1/volume/csi/kept", None),
    ):
        target, _, query = path.partition("?")
        reply = system.call(method, target, body, query=query)
        assert reply.status in (429, 503), reply.body
        assert wrong(reply) == [], reply.body
        assert "K4SQ404" not in reply.body


def test_an_exception_nobody_expected_says_nothing_of_itself(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**_: Any) -> Any:
        raise RuntimeError("404 arn:aws:lambda request id 8ba85cef-6cc2-4dcb-8a3c-4a5ac4a2ae1b")

    monkeypatch.setattr(system.deps.dynamo.client, "get_item", fails)
    reply = system.call("GET", "/v1/volume/csi/data")
    assert (reply.status, wrong(reply)) == (500, [])
    assert reply.body == "internal error: the log of the control plane says what happened"


def test_every_error_class_has_a_status_and_a_text() -> None:
    tree = [errors.VolumesError]
    for each in tree:
        tree += each.__subclasses__()
        assert 400 <= each.status < 600
    assert len(tree) > 10


def test_the_check_sees_what_is_wrong() -> None:
    for body in (
        "request 404 failed",
        "a (404)",
        "status:500",
        "arn:aws:x",
        "RequestId: x",
        "operation ab1 (create x)",
    ):
        assert wrong(Reply(500, {}, body)), body
    for body in ("volume not found", "operation abc (create x) is still running", "larger than 6144 KB", "1404a"):
        assert not wrong(Reply(500, {}, body)), body
