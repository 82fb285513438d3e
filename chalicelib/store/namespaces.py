"""Namespaces, and the worker's certificate, in the meta table.

A namespace is marked before it is deleted, and a create checks the mark in its own transaction. The volumes are read
after the mark, so no create that this reading misses can succeed.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pynamodb.expressions.condition import Condition

from chalicelib.store import dynamo, tables
from chalicelib.store.dynamo import Dynamo, Write
from chalicelib.store.tables import NamespaceRow, TrustRow

DEFAULT = "default"


class NamespaceState(StrEnum):
    ACTIVE = "active"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace. `body` is what the client stored (Description, Meta, …)."""

    name: str
    body: Mapping[str, Any]
    state: NamespaceState = NamespaceState.ACTIVE
    create_index: int = 0
    modify_index: int = 0


BUILT_IN = Namespace(DEFAULT, {"Description": "Default shared namespace"}, create_index=1, modify_index=1)
"""The default namespace until it is written."""


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """The certificate and the sealed key with which the worker connects to bridges, and the CA that it trusts."""

    ca_pem: str
    certificate_pem: str
    sealed_key: bytes
    serial: str
    refused: tuple[str, ...] = ()
    """Serials of certificates (hexadecimal, lower case) of bridges to which no connection is made."""


@dataclass(frozen=True, slots=True)
class Trust:
    """The CA of bridges' certificates, and the serials (hexadecimal, lower case) that are refused."""

    ca_pem: str
    refused: tuple[str, ...] = ()


class NamespaceStore:
    """The namespaces of one stage, and the certificates that its worker and bridges trust."""

    def __init__(self, store: Dynamo) -> None:
        self._dynamo = store

    def exists(self, name: str) -> bool:
        """Return whether volumes may be created in the namespace, read strongly. `default` always exists."""
        if name == DEFAULT:
            return True
        row = self._dynamo.get(NamespaceRow, tables.NAMESPACES_PK, name)
        return row is not None and row.state == NamespaceState.ACTIVE.value

    def get(self, name: str) -> Namespace | None:
        """Return the stored namespace, or None. `default` is stored only with a description."""
        row = self._dynamo.get(NamespaceRow, tables.NAMESPACES_PK, name)
        return None if row is None else _namespace(row)

    def all(self, *, prefix: str = "", start: str | None = None) -> Iterator[Namespace]:
        """Yield the stored namespaces by name. `default` is among them only when it has a description."""
        after = None
        while True:
            page = self._dynamo.query(NamespaceRow, tables.NAMESPACES_PK, prefix=prefix, after=after, start=start)
            yield from (_namespace(row) for row in page.rows)
            if page.next_key is None:
                return
            after = page.next_key

    def put(self, namespace: Namespace, *, read: Namespace | None) -> bool:
        """Write a mark, which no client sees. Return False if the namespace changed since it was `read`."""
        return self._dynamo.try_write(put(namespace, read=read))

    def worker_identity(self) -> WorkerIdentity | None:
        """Return the worker's certificate, or None before `moorage certs publish-worker`."""
        row = self._dynamo.get(TrustRow, "worker", "tls", consistent=False)
        if row is None or not row.certificate_pem or not row.sealed_key:
            return None
        return WorkerIdentity(
            row.ca_pem, row.certificate_pem, row.sealed_key, row.serial or "", tuple(row.refused or ())
        )

    def trust(self) -> Trust | None:
        """Return what bridges' certificates are verified against, or None before `moorage certs publish-worker`."""
        row = self._dynamo.get(TrustRow, "worker", "tls", consistent=False)
        return None if row is None else Trust(row.ca_pem, tuple(row.refused or ()))


def put(namespace: Namespace, *, read: Namespace | None) -> Write:
    """Put a namespace that does not exist (`read` is None), or one that is as it was `read`."""
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
    """Delete a namespace that is marked as being deleted."""
    marked: Condition = NamespaceRow.state == NamespaceState.DELETING.value
    return dynamo.delete("namespace", NamespaceRow, tables.NAMESPACES_PK, name, marked)


def must_exist(name: str) -> list[Write]:
    """Check that the namespace exists, in the transaction that creates something in it."""
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
