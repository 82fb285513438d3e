"""Which room may import what: the table below, against every import in the tree, those inside functions too."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from chalicelib.csi.spec import csi_pb2
from chalicelib.domain.outcome import GO_NAMES

ROOT = Path(__file__).parents[2]

OURS: dict[str, set[str]] = {
    "app": {"routes", "functions"},
    "routes": {"errors", "domain", "service", "wire", "wiring", "log", "bridge_signature"},
    "plugin_queries": {"domain", "errors", "store"},
    "functions": {"settings", "wiring", "operations", "errors", "log", "plugin_queries", "service", "sweeps"},
    "workers": {"functions"},
    "sweeps": {"domain", "errors", "log", "service", "store"},
    "wiring": {
        "clock", "csi", "errors", "log", "operations", "plugin_queries", "sealing", "service", "settings", "sqs",
        "store", "tracing",
    },
    "service": {"clock", "domain", "errors", "operations", "plugin_queries", "store"},
    "operations": {"clock", "domain", "errors", "store"},
    "wire": {"domain", "errors"},
    "store": {"domain", "errors"},
    "csi": {"domain", "errors", "tracing"},
    "sqs": {"errors"},
    "sealing": {"errors"},
    "bridge_signature": {"errors"},
    "tracing": set(),
    "log": set(),
    "settings": set(),
    "domain": {"errors"},
    "errors": set(),
    "clock": set(),
}  # fmt: skip
ACROSS: dict[tuple[str, str], str] = {
    ("routes", "store"): "scopes that blocked reads wait for, types that are stored, counted units; never a write",
    ("service", "log"): "what sweeps and repairs did has no request whose line could say it",
    ("store", "clock"): "commits are apart in time, and named",
    ("settings", "domain"): "a limit of domain/deadlines.py, so that it stands in one place",
}
"""Edges beside the table, each with its reason."""

THIRD: dict[str, set[str]] = {
    "app": {"chalice"},
    "routes": {"chalice"},
    "functions": {"chalice"},
    "wire": {"lark", "re2"},
    "store": {"boto3", "botocore", "pynamodb"},
    "csi": {"grpc", "google"},
    "plugin_queries": {"boto3", "botocore"},
    "sqs": {"boto3", "botocore"},
    "sealing": {"aws_encryption_sdk", "botocore"},
    "bridge_signature": {"cryptography"},
    "tracing": {"aws_xray_sdk"},
}
BANNED_IN_DOMAIN = {"os", "time", "logging", "socket", "random", "secrets", "subprocess"}


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "chalicelib" else parts[0]


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of what is imported, `if TYPE_CHECKING` left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide edges"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from imports(node)


def wrong(room: str, names: Iterator[str]) -> list[str]:
    found = []
    for name in names:
        first, _, rest = name.partition(".")
        if first == "chalicelib":
            target = rest.partition(".")[0]
            if target != room and target not in OURS[room] and (room, target) not in ACROSS:
                found.append(f"{room} imports {name}")
        elif first in sys.stdlib_module_names:
            if room == "domain" and first in BANNED_IN_DOMAIN:
                found.append(f"{room} imports {name}")
        elif first not in THIRD.get(room, set()):
            found.append(f"{room} imports {name}")
    return found


def sources() -> list[Path]:
    generated = ROOT / "chalicelib" / "csi" / "spec"
    found = [ROOT / "app.py", *sorted((ROOT / "chalicelib").rglob("*.py"))]
    return [path for path in found if generated not in path.parents and path.name != "__init__.py"]


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_layers(path: Path) -> None:
    assert wrong(room_of(path), imports(ast.parse(path.read_text()))) == []


SHARED: Final = {
    "spec": "what a kind of operation is",
    "kinds": "the table of kinds",
    "starting": "how requests start, join and resume operations of any kind",
    "context": "what steps are given",
    "engine": "what runs operations",
    "claim_steps": "the way out of a claim, which publish (its undo) and unpublish share",
}
"""Modules of operations/ that are no kind of operation."""


@pytest.mark.parametrize("path", sorted((ROOT / "chalicelib" / "operations").glob("*.py")), ids=lambda p: p.name)
def test_no_operation_imports_a_sibling(path: Path) -> None:
    kinds = {p.stem for p in path.parent.glob("*.py")} - {"__init__", *SHARED}
    if path.stem == "kinds":
        return
    names = {name.split(".")[2] for name in imports(ast.parse(path.read_text())) if ".operations." in name}
    assert names & kinds == set()


FOR_WORKERS: Final = {"context", "engine"}
"""What of operations/ runs in the workers' functions alone: a request only starts operations."""


@pytest.mark.parametrize("path", sorted((ROOT / "chalicelib" / "service").glob("*.py")), ids=lambda p: p.name)
def test_a_request_starts_operations_and_runs_none(path: Path) -> None:
    names = {name.split(".")[2] for name in imports(ast.parse(path.read_text())) if ".operations." in name}
    assert names & FOR_WORKERS == set()


def test_the_check_sees_a_violation() -> None:
    planted = ast.parse("import os\ndef f():\n    from chalicelib.store import volumes\n    import boto3\n")
    assert len(wrong("domain", imports(planted))) == 3


COMMITTED: Final = {"store/commit.py": {"allocate", "publish", "abandon"}, "store/index.py": {"publish"}}
"""Which module may move the index (the index's own repair publishes, too): all others ask store/commit.py."""


def index_moves(tree: ast.AST) -> set[str]:
    """Methods of the index store that are called: on an attribute or a variable named for it, or on itself."""
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {
        call.attr
        for call in calls
        if isinstance(call, ast.Attribute)
        and call.attr in {"allocate", "publish", "abandon"}
        and ast.unparse(call.value).rpartition(".")[2] in {"index", "_index", "self"}
    }


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_a_commit_moves_the_index(path: Path) -> None:
    allowed = COMMITTED.get(str(path.relative_to(ROOT / "chalicelib")) if path.name != "app.py" else "", set())
    assert index_moves(ast.parse(path.read_text())) <= allowed


def test_the_check_of_the_index_sees_a_violation() -> None:
    planted = ast.parse("def f(deps):\n    ticket = deps.index.allocate('a')\n    deps.index.publish(ticket)\n")
    assert index_moves(planted) == {"allocate", "publish"}


def test_every_edge_beside_the_table_is_used() -> None:
    used = {
        (room_of(path), name.split(".")[1])
        for path in sources()
        for name in imports(ast.parse(path.read_text()))
        if name.startswith("chalicelib.")
    }
    assert ACROSS.keys() <= used


UNTYPED: Final = {
    "domain/operation.py": "parameters and results are each kind's own JSON",
}
"""Modules of the typed rooms that may say `Any`, and why."""


def says_any(tree: ast.AST) -> bool:
    return any(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(tree))


@pytest.mark.parametrize(
    "path", [p for p in sources() if room_of(p) in {"domain", "service", "operations"}], ids=lambda p: p.stem
)
def test_what_passes_between_the_layers_has_a_type(path: Path) -> None:
    name = str(path.relative_to(ROOT / "chalicelib"))
    assert says_any(ast.parse(path.read_text())) is (name in UNTYPED)


def test_the_check_of_types_sees_a_violation() -> None:
    assert says_any(ast.parse("def stores() -> dict[str, Any]: ..."))


NAMED: Final = {"service/claims.py": {"AllocationID", "NodeID", "StagingPath", "TargetPath"}}
"""Fields of bodies that a service's refusal names."""
WIRE_NAME: Final = re.compile(r"ID|(?=\w*[a-z])[A-Z][A-Za-z]+")
RPCS: Final = {method.name for service in csi_pb2.DESCRIPTOR.services_by_name.values() for method in service.methods}


def wire_names(tree: ast.AST) -> set[str]:
    """Literals that look like keys of the API's JSON, but for CSI's RPCs, gRPC's codes and types in quotes."""
    quoted = {id(n) for hint in annotations(tree) for n in ast.walk(hint)}
    literals = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in quoted}
    found = {value for value in literals if isinstance(value, str) and WIRE_NAME.fullmatch(value)}
    return found - RPCS - set(GO_NAMES.values())


def annotations(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if (hint := getattr(node, name, None)) is not None:
                yield hint


@pytest.mark.parametrize(
    "path", [p for p in sources() if room_of(p) in {"domain", "service", "operations"}], ids=lambda p: p.stem
)
def test_names_of_the_api_are_known_in_wire_and_routes_only(path: Path) -> None:
    assert wire_names(ast.parse(path.read_text())) == NAMED.get(str(path.relative_to(ROOT / "chalicelib")), set())


def test_the_check_of_names_sees_a_violation() -> None:
    planted = (
        'def f(body: "Body") -> "Answer":\n'
        '    call("CreateVolume", "Unavailable", "READ")\n'
        '    return {"ID": body["NodeInfo"], "ok": body.get("MaxVolumes")}\n'
    )
    assert wire_names(ast.parse(planted)) == {"ID", "NodeInfo", "MaxVolumes"}


def test_every_room_has_a_row() -> None:
    assert {room_of(path) for path in sources()} == OURS.keys()


@pytest.mark.parametrize("package", ["infra/bridge/src", "infra/devplugin/src"])
def test_bridge_and_plugin_know_nothing_of_the_control_plane(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        assert not any(name.startswith("chalicelib") for name in imports(ast.parse(path.read_text()))), path
