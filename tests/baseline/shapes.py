"""List the shapes of rows that today's code writes, and those that a baseline holds, both as sets of names.

The wanted shapes follow from the code where they can: rows and attributes from store/tables.py, operations and their
steps from their kinds, states from their enums. tests/baseline/variants.py has those that do not follow from the code.
"""

import ast
import inspect
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, Final

from chalicelib.domain import audit as audit_domain
from chalicelib.domain import claim as claim_domain
from chalicelib.domain import operation as operation_domain
from chalicelib.domain import outcome as outcome_domain
from chalicelib.domain import storage as storage_domain
from chalicelib.domain import volume as volume_domain
from chalicelib.domain.audit import Finding, Verdict
from chalicelib.domain.claim import ClaimState, NodeState
from chalicelib.domain.operation import Kind, Status
from chalicelib.domain.plugin import Instance
from chalicelib.domain.storage import StorageState
from chalicelib.domain.volume import VolumeState
from chalicelib.operations.kinds import KINDS
from chalicelib.store import audits, claims, index, namespaces, tables, volumes
from chalicelib.store.tables import (
    AuditRow,
    ChangesRow,
    CheckRow,
    ClaimRow,
    IndexRow,
    InstanceRow,
    MissedHeartbeatRow,
    NamespaceRow,
    NodeRow,
    OperationRow,
    Row,
    StaleMountRow,
    StorageRow,
    SweepRow,
    TrustRow,
    TurnRow,
    UpgradeRow,
    VolumeRow,
    WaitRow,
)
from tests.baseline.files import Baseline
from tests.baseline.rows import KEYS, Rows, key_of
from tests.baseline.variants import VARIANTS

NEWER: Final[frozenset[str]] = frozenset(
    {
        # the newest first
        "ClaimRow.node",
        "NodeState mounted",
        "NodeState off",
        "NodeState staged",
        "StorageState free",
        "StorageState held",
        "StorageState leaving",
        r"StorageRow at volumes: storage#[0-9a-f]{64} -",
        *(f"StorageRow.{name}" for name in StorageRow.get_attributes()),
        *(f"StorageRow without {name}" for name, found in StorageRow.get_attributes().items() if found.null),
        "UpgradeRow at meta: sweep storages",
        *(f"UpgradeRow.{name}" for name in UpgradeRow.get_attributes() if name != "expires_at"),
        "VolumeRow.shared",
        r"StaleMountRow at claims: stale#[0-9a-f]{64} [^#]+#.+\n.+",
        *(f"StaleMountRow.{name}" for name in ("node", "pk", "schema", "sk", "staging_path", "target_path")),
    }
)
"""Shapes that came after the newest baseline, which therefore cannot hold them. Empty when a baseline is made."""

SINGLE: Final = (IndexRow, TrustRow, ChangesRow, SweepRow, MissedHeartbeatRow, CheckRow, UpgradeRow)
"""Rows of which there is one: it has everything that it can have."""
ALWAYS: Final = frozenset({"ClaimRow.node", "NodeRow.spared", "OperationRow.params"})
"""Attributes that may be null, and never are."""
NEVER: Final = frozenset({"TrustRow.schema"})
"""Attributes that are never written. `moorage certs` writes no number, so its row counts as of the first shape."""
RESERVED: Final = ("create_index", "create_time", "modify_time", "readers", "writers", "past_claims", "plugin_id")
"""Attributes that a volume's row does not have before the volume is made."""
EXPIRING: Final = (VolumeRow, StorageRow, OperationRow, TurnRow, WaitRow, AuditRow)
"""Rows that have an `expires_at`, at least at times."""
FOREVER: Final = (WaitRow, AuditRow, TurnRow)
"""Rows that always have an `expires_at`."""


def wanted() -> set[str]:
    """Return every shape that today's code writes."""
    return {
        *(key.name for key in KEYS),
        *(set(_attributes()) - NEVER),
        *(f"VolumeRow without {name}" for name in RESERVED),
        *(_valued(enum, member.value) for enum in STORED for member in enum if member not in NEVER_STORED),
        *(_step(kind, step, status) for kind, step, status in _open_steps()),
        *(_ended(kind, status) for kind in Kind for status in operation_domain.CLOSED),
        *(f"{what} has {name}" for what, names in PARTS.items() for name in names),
        *(f"index publishes {scope}" for scope in scopes()),
        *(f"index has a write under way for {scope}" for scope in scopes()),
        *VARIANTS,
    }


def seen(baseline: Baseline) -> set[str]:
    """Return every shape that the baseline holds."""
    rows = Rows.of(baseline)
    return {
        *(key_of(table, item).name for table, items in baseline.rows.items() for item in items),
        *_attributes_seen(baseline),
        *(_valued(enum, value) for enum, values in STORED.items() for value in values(rows)),
        *(_step(Kind(o.kind), o.step, Status(o.status)) for o in rows.items[OperationRow]),
        *(f"{what} has {name}" for what, names in _parts_seen(rows) for name in names),
        *_index_seen(rows),
        *(name for name, holds in VARIANTS.items() if holds(rows)),
    }


# Attributes


def _attributes() -> Iterator[str]:
    for row in tables.ROWS:
        for name, attribute in row.get_attributes().items():
            if name == "expires_at":
                if row in EXPIRING:
                    yield f"{row.__name__}.{name}"
                if row in EXPIRING and row not in FOREVER:
                    yield f"{row.__name__} without {name}"
                continue
            stored = attribute.attr_name
            yield f"{row.__name__}.{stored}"
            if attribute.null and row not in SINGLE and f"{row.__name__}.{stored}" not in ALWAYS:
                yield f"{row.__name__} without {stored}"


def _attributes_seen(baseline: Baseline) -> Iterator[str]:
    for table, items in baseline.rows.items():
        for item in items:
            row = key_of(table, item).row
            for name in (attribute.attr_name for attribute in row.get_attributes().values()):
                yield f"{row.__name__}.{name}" if name in item else f"{row.__name__} without {name}"


def key_names() -> set[str]:
    """Return the names in store/tables.py that make keys."""
    functions = {name for name, _ in inspect.getmembers(tables, inspect.isfunction) if name.endswith(("_pk", "_sk"))}
    return functions | {name for name in vars(tables) if name.endswith(("_PK", "_SK"))}


# States


def _each(row: type[Row], name: str) -> Callable[[Rows], set[str]]:
    return lambda rows: {str(value) for one in rows.items[row] if (value := getattr(one, name)) is not None}


def _findings(rows: Rows) -> Iterator[Mapping[str, Any]]:
    for row in rows.items[AuditRow]:
        if row.sk != "last":
            yield from json.loads(row.body)


STORED: Final[Mapping[type[Enum], Callable[[Rows], set[str]]]] = {
    VolumeState: _each(VolumeRow, "state"),
    StorageState: _each(StorageRow, "state"),
    ClaimState: _each(ClaimRow, "state"),
    NodeState: lambda rows: _each(ClaimRow, "node")(rows) | _each(StaleMountRow, "node")(rows),
    Kind: _each(OperationRow, "kind"),
    Status: _each(OperationRow, "status"),
    namespaces.NamespaceState: _each(NamespaceRow, "state"),
    audits.AuditStatus: lambda rows: {
        json.loads(row.body)["status"] for row in rows.items[AuditRow] if row.sk == "last"
    },
    audit_domain.StorageKind: lambda rows: {finding["what"] for finding in _findings(rows)},
    Verdict: lambda rows: {finding["verdict"] for finding in _findings(rows)},
}
"""Enums whose members are stored in rows, with functions that return the stored values."""
NEVER_STORED: Final = frozenset({Verdict.REGISTERED, Verdict.CLASH})
"""Members that are only counted, since a report names what is not registered; and what only rows of 0.1.0 lead to."""
NOT_IN_ROWS: Final = frozenset(
    {claim_domain.ClaimEvent, operation_domain.Event, outcome_domain.Outcome},
)


def enums() -> set[type[Enum]]:
    """Return every enum of the domain and of the stores."""
    modules = (
        audit_domain, claim_domain, operation_domain, outcome_domain, storage_domain, volume_domain, audits, claims,
        index, namespaces, volumes,
    )  # fmt: skip
    return {
        found
        for module in modules
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, Enum) and found.__module__.startswith("chalicelib") and len(found)
    }


def _valued(enum: type[Enum], value: str) -> str:
    return f"{enum.__name__} {value}"


# Operations


def _open_steps() -> Iterator[tuple[Kind, str, Status]]:
    for kind, definition in KINDS.items():
        for step in definition.steps:
            for status in Status:
                if status not in operation_domain.CLOSED:
                    yield kind, step, status


def _step(kind: Kind, step: str, status: Status) -> str:
    return f"{kind} operation {status} at {step}" if status not in operation_domain.CLOSED else _ended(kind, status)


def _ended(kind: Kind, status: Status) -> str:
    return f"{kind} operation {status}"


# JSON inside rows

PARTS: Final[Mapping[str, Iterable[str]]] = {
    "definition": (*volumes._PLAIN, "capabilities", "mount", "topologies", "request"),
    "claim": claims._BODY,
    "instance": Instance.__slots__,
    "node": ("name", "address", "plugins", "version", "certificate", "digest"),
    "report": audits.Report.__slots__,
    "finding": Finding.__slots__,
}
"""Names in the JSON of a row, each of which must have a value somewhere."""


def _parts_seen(rows: Rows) -> Iterator[tuple[str, set[str]]]:
    texts = {
        "definition": [row.definition for row in rows.items[VolumeRow] if row.definition],
        "claim": [row.body for row in rows.items[ClaimRow]],
        "instance": [row.body for row in rows.items[InstanceRow]],
        "node": [row.body for row in rows.items[NodeRow]],
        "report": [row.body for row in rows.items[AuditRow] if row.sk == "last"],
        "finding": [json.dumps(finding) for finding in _findings(rows)],
    }
    for what, found in texts.items():
        for text in found:
            yield what, {name for name, value in json.loads(text).items() if value}


# The index


def scopes() -> set[str]:
    """Return the scopes that the index item publishes. Those of volumes count as one here."""
    named = {value for name, value in vars(index).items() if name.isupper() and isinstance(value, str)}
    return named | {"volumes"}


def _index_seen(rows: Rows) -> Iterator[str]:
    for item in rows.items[IndexRow]:
        for name, value in item.items():
            if name.startswith("pub#"):
                yield f"index publishes {_scope(name[4:])}"
            if name.startswith("pend#"):
                yield from (f"index has a write under way for {_scope(s)}" for s in value["S"].split(" ")[1:])


def _scope(name: str) -> str:
    return "volumes" if name.startswith("volumes-") else name


def literal_keys(source: str) -> Iterator[tuple[str, tuple[str | None, ...]]]:
    """Yield the row classes that a module's text names, with the parts of their keys.

    A part that is not a literal there is None.
    """
    names = {row.__name__ for row in tables.ROWS}
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        named = [call.func, *call.args]
        for position, part in enumerate(named):
            if isinstance(part, ast.Name) and part.id in names:
                following = itertools.islice(named, position + 1, position + 3)
                yield part.id, tuple(str(one.value) if isinstance(one, ast.Constant) else None for one in following)
