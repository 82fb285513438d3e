"""Read and write a baseline's files: rows as DynamoDB has them, the provider's storage, messages and answers.

Each row, message and answer is on a line of its own.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from chalicelib.store.tables import TABLES

FOLDER: Final = Path(__file__).parents[1] / "data" / "baseline"
WRITTEN: Final = (*TABLES, "provider", "messages")
"""The files that a version wrote, which are never changed afterwards. `answers` has today's answers about them."""
Item = dict[str, Any]


@dataclass(frozen=True)
class Exchange:
    """One request and its answer, at a moment of the control plane's clock. `json` is the body if it is JSON."""

    at: float
    method: str
    path: str
    status: int
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    json: Any = None
    text: str = ""
    index: str = ""
    """The answer's X-Nomad-Index, and its X-Nomad-Nexttoken."""
    next_token: str = ""

    @property
    def what(self) -> str:
        return f"{self.method} {self.path}" + (f"?{self.query}" if self.query else "")


@dataclass
class Baseline:
    """The files of one version. `moment` is when the rows were read, in seconds since the epoch."""

    version: str
    moment: float
    rows: dict[str, list[Item]] = field(default_factory=dict)
    provider: dict[str, Any] = field(default_factory=dict)
    """The provider's storage at that moment (tests/fakes/provider.py)."""
    trust: Item = field(default_factory=dict)
    """The one row that was there when bridges sent their first messages."""
    first: list[Exchange] = field(default_factory=list)
    """The first messages of bridges, to a control plane without nodes."""
    later: list[Exchange] = field(default_factory=list)
    """The messages of bridges and of `moorage mount` after the rows were read."""
    repeats: list[Exchange] = field(default_factory=list)
    """The requests that had begun the open operations, sent again by their clients after the rows were read."""
    answers: list[Exchange] = field(default_factory=list)
    """The answers of every read of the API about the rows."""


def versions() -> list[str]:
    """Return every version that has a baseline, the oldest first."""
    return sorted((path.name for path in FOLDER.iterdir()), key=lambda name: [int(part) for part in name.split(".")])


def read(version: str) -> Baseline:
    """Return the baseline of a version from the tree."""
    folder = FOLDER / version
    provider, messages = _load(folder / "provider.json"), _load(folder / "messages.json")
    return Baseline(
        version=version,
        moment=provider.pop("moment"),
        rows={table: [_unpacked(item) for item in _load(folder / f"{table}.json")] for table in TABLES},
        provider=provider,
        trust=_unpacked(messages["trust"][0]),
        answers=[Exchange(**one) for one in _load(folder / "answers.json")],
        **{name: [Exchange(**one) for one in messages[name]] for name in ("first", "later", "repeats")},
    )


def write(baseline: Baseline, folder: Path) -> None:
    """Write a new baseline. Raises FileExistsError if there is one, since the files of a version never change."""
    folder.mkdir(parents=True)
    for table in TABLES:
        items = sorted(baseline.rows[table], key=lambda item: (item["pk"]["S"], item["sk"]["S"]))
        _save(folder / f"{table}.json", [_packed(item) for item in items])
    _save(folder / "provider.json", baseline.provider | {"moment": baseline.moment})
    messages = {name: [_said(one) for one in getattr(baseline, name)] for name in ("first", "later", "repeats")}
    _save(folder / "messages.json", {"trust": [_packed(baseline.trust)]} | messages)
    write_answers(baseline, folder)


def write_answers(baseline: Baseline, folder: Path) -> None:
    _save(folder / "answers.json", [_said(one) for one in baseline.answers])


def digest(version: str) -> str:
    """Return the SHA-256 (hex) of all files that the version wrote."""
    whole = hashlib.sha256()
    for name in WRITTEN:
        whole.update((FOLDER / version / f"{name}.json").read_bytes())
    return whole.hexdigest()


def _said(one: Exchange) -> dict[str, Any]:
    return {name: value for name, value in vars(one).items() if value not in ("", {}, None)}


def _load(path: Path) -> Any:
    return json.loads(path.read_text())


def _save(path: Path, content: Any) -> None:
    """Write JSON with each element of a list on a line of its own, so that a diff can be read."""
    if isinstance(content, list):
        text = _lines(content)
    else:
        parts = (
            f"{json.dumps(name)}: {_lines(value) if isinstance(value, list) else _line(value)}"
            for name, value in content.items()
        )
        text = "{\n" + ",\n".join(parts) + "\n}"
    path.write_text(text + "\n")


def _lines(elements: Sequence[Any]) -> str:
    return "[\n" + ",\n".join(_line(one) for one in elements) + "\n]" if elements else "[]"


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _packed(item: Mapping[str, Any]) -> Item:
    """Return an item for JSON: binary values in base64, sets in order, numbers as DynamoDB has them (no last zeros)."""
    return {name: _in_text(*next(iter(value.items()))) for name, value in item.items()}


def _in_text(kind: str, value: Any) -> dict[str, Any]:
    if kind == "B":
        return {"B": base64.b64encode(bytes(value)).decode()}
    if kind == "N":
        return {"N": f"{Decimal(value).normalize():f}"}
    return {kind: sorted(value) if kind == "SS" else value}


def _unpacked(item: Mapping[str, Any]) -> Item:
    return {name: {"B": base64.b64decode(value["B"])} if "B" in value else dict(value) for name, value in item.items()}


def same_items(one: Iterable[Mapping[str, Any]], other: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether two lists of items are the same, in any order."""
    return sorted(_line(_packed(i)) for i in one) == sorted(_line(_packed(i)) for i in other)
