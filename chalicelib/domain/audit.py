"""The comparison of a provider's lists with the records, and its verdicts (docs/protocols.md, section 3).

A provider's list has IDs, not the names that CreateVolume was given. So an entry counts as made by us only if its ID
or its context has one of our storage names in it, or if a finished operation names it. The origin of every other entry
is unknown.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from chalicelib.domain.operation import JsonObject, Kind, Operation
from chalicelib.domain.volume import Volume


class StorageKind(StrEnum):
    VOLUME = "volume"
    SNAPSHOT = "snapshot"


class Verdict(StrEnum):
    REGISTERED = "registered"
    """A record names the volume, or the volume of the snapshot."""
    HELD = "held"
    """An open operation names it."""
    KEPT = "kept"
    """A snapshot that was taken through this control plane, and whose volume is no longer registered."""
    UNKNOWN = "unknown"
    """Nothing here names it, and nothing shows that we made it."""
    ORPHAN = "orphan"
    """We made it, and no record and no open operation names it."""
    MISSING = "missing"
    """A record names it, and it is not in the provider's whole list."""
    CLASH = "clash"
    """Several records name it, and their claims do not fit together. An older version let them in."""


WRONG: Final = frozenset({Verdict.ORPHAN, Verdict.MISSING, Verdict.CLASH})
"""Verdicts that show a fault."""

_OURS: Final = re.compile(r"(?<![A-Za-z0-9])[a-z0-9](?:[a-z0-9-]*[a-z0-9])?-(?P<id>[a-z]{22})(?![A-Za-z])")
"""A storage name: the readable part of a volume's name, a dash, and the ID of the operation that created it."""
_TIME_LETTERS: Final = 9
_EARLIEST: Final = 1_704_067_200.0
"""The beginning of 2024, in seconds since the epoch: no operation of ours is older."""
_DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One volume or snapshot in a provider's list.

    `source` is the volume of a snapshot, `words` are the values in the context of a volume.
    """

    what: StorageKind
    external_id: str
    source: str = ""
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict about one volume or snapshot, with the record or operation that names it, if there is one."""

    what: StorageKind
    verdict: Verdict
    external_id: str
    namespace: str = ""
    volume_id: str = ""
    operation_id: str = ""
    detail: str = ""

    @property
    def key(self) -> tuple[StorageKind, Verdict, str]:
        return self.what, self.verdict, self.external_id


@dataclass(frozen=True, slots=True)
class _Owner:
    """The record or operation that names something at the provider."""

    namespace: str
    volume_id: str
    operation_id: str = ""
    detail: str = ""


@dataclass
class Inventory:
    """What the records and operations name of one plugin's storage, by the provider's ID or by storage name."""

    registered: dict[str, _Owner] = field(default_factory=dict)
    held: dict[str, _Owner] = field(default_factory=dict)
    made: dict[str, _Owner] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)
    """IDs of volumes with no open operation: the provider must have them."""

    def add_volumes(self, volumes: Iterable[Volume]) -> None:
        """Add the volumes of records, tombstones left out."""
        for volume in volumes:
            if not volume.exists:
                continue
            external_id = volume.definition.external_id or volume.id
            self.registered[external_id] = _Owner(volume.namespace, volume.id)
            if not volume.operation_id:
                self.settled.add(external_id)

    def add_operation(self, operation: Operation) -> None:
        """Add what an operation names: an open one holds it, a finished create made it."""
        names = {operation.storage_name, operation.external_id, *_results(operation.result)}
        detail = f"{operation.kind} {operation.status}"
        owner = _Owner(operation.namespace, operation.volume_id, operation.id, detail)
        if operation.open:
            self.held |= dict.fromkeys(names - {""}, owner)
        elif operation.kind is Kind.CREATE_VOLUME:
            self.made |= dict.fromkeys(names - {""}, owner)
        elif operation.kind is Kind.CREATE_SNAPSHOT:
            self.made |= dict.fromkeys(set(_results(operation.result)) - {""}, owner)

    def judge(self, entry: Entry, now: float) -> Finding:
        """Return the verdict about an entry. The most certain evidence counts first."""
        names = [entry.external_id, *_storage_names(entry, now)]
        ours = Verdict.ORPHAN if entry.what is StorageKind.VOLUME else Verdict.KEPT
        owner = self.registered.get(entry.source or entry.external_id)
        if owner is not None:
            return _finding(entry, Verdict.REGISTERED, owner)
        for verdict, table in ((Verdict.HELD, self.held), (ours, self.made)):
            for name in names:
                if name in table:
                    return _finding(entry, verdict, table[name])
        # The operation may have been deleted since. The name alone still shows that we made the volume.
        if entry.what is StorageKind.VOLUME and len(names) > 1:
            return Finding(entry.what, ours, entry.external_id, detail=f"made under the name {names[1]}")
        return Finding(entry.what, Verdict.UNKNOWN, entry.external_id)

    def missing(self, listed: set[str]) -> Iterator[Finding]:
        """Yield a finding for each record whose storage is not `listed`, which has the IDs of the whole list."""
        for external_id in sorted(self.settled - listed):
            owner = self.registered[external_id]
            yield Finding(StorageKind.VOLUME, Verdict.MISSING, external_id, owner.namespace, owner.volume_id)


def _finding(entry: Entry, verdict: Verdict, owner: _Owner) -> Finding:
    return Finding(
        entry.what, verdict, entry.external_id, owner.namespace, owner.volume_id, owner.operation_id, owner.detail
    )


def _results(result: JsonObject) -> Iterator[str]:
    """Yield the IDs that the provider gave to what an operation made."""
    for external_id in (result.get("external_id"), result.get("id")):
        if external_id:
            yield str(external_id)


def _storage_names(entry: Entry, now: float) -> Iterator[str]:
    """Yield our storage names in the ID and the context of a volume."""
    if entry.what is not StorageKind.VOLUME:
        return
    for text in (entry.external_id, *entry.words):
        for match in _OURS.finditer(text):
            # Any 22 letters look like an operation's ID. Few of them are the ID of a time between 2024 and now.
            if _EARLIEST < _moment(match["id"]) < now + _DAY:
                yield match[0]


def _moment(operation_id: str) -> float:
    """Return when the operation was created, in seconds since the epoch, from its ID (chalicelib/clock.py)."""
    moment = 0
    for letter in operation_id[:_TIME_LETTERS]:
        moment = moment * 26 + ord(letter) - ord("a")
    return moment / 1000
