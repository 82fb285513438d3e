"""Namespaces, and the worker's certificate: what else lies in the meta table.

A namespace that is being deleted is marked first; a create checks the mark in its own transaction. So whoever deletes
reads the volumes after the mark, and no create that it did not see can still succeed.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pynamodb.expressions.condition import Condition

from chalicelib.store import dynamo, tables
from chalicelib.store.dynamo import Dynamo, Write
from chalicelib.store.tables import NamespaceRow, WorkerRow

DEFAULT = "default"


class NamespaceState(StrEnum):
    ACTIVE = "active"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace; `body` is what the client stored (Description, Meta, …)."""

    name: str
    body: Mapping[str, Any]
    state: NamespaceState = NamespaceState.ACTIVE
    create_index: int = 0
    modify_index: int = 0


BUILT_IN = Namespace(DEFAULT, {"Description": "Default shared namespace"}, create_index=1, modify_index=1)
"""The default namespace until it is written."""


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """What the worker shows to bridges; the key is sealed."""

    ca_pem: str
    certificate_pem: str
    sealed_key: bytes
    serial: str
    refused: tuple[str, ...] = ()
    """Serials of bridges' certificates (hexadecimal, lower case) that are not to be spoken to."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What a bridge's certificate must come from, and the serials (hexadecimal, lower case) that are refused."""

    ca_pem: str
    refused: tuple[str, ...] = ()


class NamespaceStore:
    def __init__(self, store: Dynamo) -> None:
        self._dynamo = store

    def exists(self, name: str) -> bool:
        """Whether volumes may be made in it, read strongly; `default` always exists."""
        if name == DEFAULT:
            return True
        row = self._dynamo.get(NamespaceRow, tables.NAMESPACES_PK, name)
        return row is not None and row.state == NamespaceState.ACTIVE.value

    def get(self, name: str) -> Namespace | None:
        row = self._dynamo.get(NamespaceRow, tables.NAMESPACES_PK, name)
        return None if row is None else _namespace(row)

    def all(self, *, prefix: str = "", start: str | None = None) -> Iterator[Namespace]:
        """Stored namespaces in order of name; `default` is among them only once it was given a description."""
        after = None
        while True:
            page = self._dynamo.query(NamespaceRow, tables.NAMESPACES_PK, prefix=prefix, after=after, start=start)
            yield from (_namespace(row) for row in page.rows)
            if page.next_key is None:
                return
            after = page.next_key

    def put(self, namespace: Namespace, *, read: Namespace | None) -> bool:
        """Write a mark, which no client sees; False if the namespace was changed since it was `read`."""
        return self._dynamo.written(put(namespace, read=read))

    def worker_identity(self) -> WorkerIdentity | None:
        row = self._dynamo.get(WorkerRow, "worker", "tls", consistent=False)
        if row is None or not row.certificate_pem or not row.sealed_key:
            return None
        return WorkerIdentity(
            row.ca_pem, row.certificate_pem, row.sealed_key, row.serial or "", tuple(row.refused or ())
        )

    def trust(self) -> Trust | None:
        """What bridges' certificates are checked by, None before `moorage certs publish-worker`."""
        row = self._dynamo.get(WorkerRow, "worker", "tls", consistent=False)
        return None if row is None else Trust(row.ca_pem, tuple(row.refused or ()))


def put(namespace: Namespace, *, read: Namespace | None) -> Write:
    """Make a namespace, or change one that is as it was `read`."""
    condition: Condition = NamespaceRow.pk.does_not_exist()
    if read is not None:
        condition = (NamespaceRow.modify_index == read.modify_index) & (NamespaceRow.state == read.state.value)
    row = NamespaceRow(
        tables.NAMESPACES_PK,
        namespace.name,
        state=namespace.state.value,
        body=json.dumps(dict(namespace.body), ensure_ascii=False),
        create_index=namespace.create_index,
        modify_index=namespace.modify_index,
    )
    return dynamo.put("namespace", row, condition)


def remove(name: str) -> Write:
    """Delete a namespace that is marked for it."""
    marked: Condition = NamespaceRow.state == NamespaceState.DELETING.value
    return dynamo.delete("namespace", NamespaceRow, tables.NAMESPACES_PK, name, marked)


def must_exist(name: str) -> list[Write]:
    """The condition that a namespace is there, for the transaction that makes something in it."""
    if name == DEFAULT:
        return []
    return [
        dynamo.check(
            "namespace", NamespaceRow, tables.NAMESPACES_PK, name, NamespaceRow.state == NamespaceState.ACTIVE.value
        )
    ]


def _namespace(row: NamespaceRow) -> Namespace:
    return Namespace(
        row.sk, json.loads(row.body), NamespaceState(row.state), int(row.create_index), int(row.modify_index)
    )
