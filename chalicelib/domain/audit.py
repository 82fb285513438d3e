"""What an audit compares, and what it calls the things it finds (protocols, operations 11).

A provider's list knows IDs, not the names that CreateVolume was given. So a thing is called ours only if its ID or its
context carries a storage name of ours, or a finished operation of ours names it; everything else is of unknown origin.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from chalicelib.domain.operation import JsonObject, Kind, Operation
from chalicelib.domain.volume import Volume


class What(StrEnum):
    VOLUME = "volume"
    SNAPSHOT = "snapshot"


class Verdict(StrEnum):
    REGISTERED = "registered"
    """A record names it; of a snapshot: a record names its volume."""
    HELD = "held"
    """An operation that is still open names it."""
    KEPT = "kept"
    """A snapshot that was taken through this control plane, whose volume is not registered any more."""
    UNKNOWN = "unknown"
    """Nothing here names it, and nothing says that it is ours."""
    ORPHAN = "orphan"
    """It was made for us, and no record and no open operation names it."""
    MISSING = "missing"
    """A record names it, and the provider's whole list does not have it."""


WRONG: Final = frozenset({Verdict.ORPHAN, Verdict.MISSING})
"""What should not be."""

_OURS: Final = re.compile(r"(?<![A-Za-z0-9])[a-z0-9](?:[a-z0-9-]*[a-z0-9])?-(?P<id>[a-z]{22})(?![A-Za-z])")
"""A storage name: the readable part of a volume's name, and the operation's ID (operations/create_volume.py)."""
_TIME_LETTERS: Final = 9
_EARLIEST: Final = 1_704_067_200.0
"""2024: an operation of an earlier time is none of ours."""
_DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing in a provider's list; `source` is a snapshot's volume, `words` the values of a volume's context."""

    what: What
    external_id: str
    source: str = ""
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """What an audit says about one thing: a record or an operation stands beside it when one names it."""

    what: What
    verdict: Verdict
    external_id: str
    namespace: str = ""
    volume_id: str = ""
    operation_id: str = ""
    detail: str = ""

    @property
    def key(self) -> tuple[What, Verdict, str]:
        return self.what, self.verdict, self.external_id


@dataclass(frozen=True, slots=True)
class _Named:
    """A record or an operation that names something at the provider."""

    namespace: str
    volume_id: str
    operation_id: str = ""
    detail: str = ""


@dataclass
class Known:
    """Everything that this side knows of one plugin's storage, by the ID or the name that the provider has for it."""

    registered: dict[str, _Named] = field(default_factory=dict)
    held: dict[str, _Named] = field(default_factory=dict)
    made: dict[str, _Named] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)
    """IDs of records that nothing is being done to: the provider must have them."""

    def learn_volumes(self, volumes: Iterable[Volume]) -> None:
        for volume in volumes:
            if not volume.exists:
                continue
            external_id = volume.definition.external_id or volume.id
            self.registered[external_id] = _Named(volume.namespace, volume.id)
            if not volume.operation_id:
                self.settled.add(external_id)

    def learn_operation(self, operation: Operation) -> None:
        """Open ones hold what they name; finished ones say what was made for us."""
        names = {operation.storage_name, operation.external_id, *_results(operation.result)}
        detail = f"{operation.kind} {operation.status}"
        named = _Named(operation.namespace, operation.volume_id, operation.id, detail)
        if operation.open:
            self.held |= dict.fromkeys(names - {""}, named)
        elif operation.kind is Kind.CREATE_VOLUME:
            self.made |= dict.fromkeys(names - {""}, named)
        elif operation.kind is Kind.CREATE_SNAPSHOT:
            self.made |= dict.fromkeys(set(_results(operation.result)) - {""}, named)

    def judge(self, entry: Entry, now: float) -> Finding:
        """What the entry is; the most certain answer first."""
        names = [entry.external_id, *_storage_names(entry, now)]
        ours = Verdict.ORPHAN if entry.what is What.VOLUME else Verdict.KEPT
        known = self.registered.get(entry.source or entry.external_id)
        if known is not None:
            return _finding(entry, Verdict.REGISTERED, known)
        for verdict, table in ((Verdict.HELD, self.held), (ours, self.made)):
            for name in names:
                if name in table:
                    return _finding(entry, verdict, table[name])
        if entry.what is What.VOLUME and len(names) > 1:
            return Finding(entry.what, ours, entry.external_id, detail=f"made under the name {names[1]}")
        return Finding(entry.what, Verdict.UNKNOWN, entry.external_id)

    def missing(self, listed: set[str]) -> Iterator[Finding]:
        """Records whose storage is in no page of the provider's list."""
        for external_id in sorted(self.settled - listed):
            known = self.registered[external_id]
            yield Finding(What.VOLUME, Verdict.MISSING, external_id, known.namespace, known.volume_id)


def _finding(entry: Entry, verdict: Verdict, known: _Named) -> Finding:
    return Finding(
        entry.what, verdict, entry.external_id, known.namespace, known.volume_id, known.operation_id, known.detail
    )


def _results(result: JsonObject) -> Iterator[str]:
    """The IDs that the provider gave to what an operation made."""
    for found in (result.get("external_id"), result.get("id")):
        if found:
            yield str(found)


def _storage_names(entry: Entry, now: float) -> Iterator[str]:
    """Storage names of ours in the ID, or in the context, of a volume."""
    if entry.what is not What.VOLUME:
        return
    for text in (entry.external_id, *entry.words):
        for found in _OURS.finditer(text):
            if _EARLIEST < _moment(found["id"]) < now + _DAY:
                yield found[0]


def _moment(operation_id: str) -> float:
    """When an operation was made, from its ID (chalicelib/clock.py), in seconds since the epoch."""
    moment = 0
    for letter in operation_id[:_TIME_LETTERS]:
        moment = moment * 26 + ord(letter) - ord("a")
    return moment / 1000
