"""Replays recorded exchanges and says where the answers differ.

A scenario holds its steps in order. What was recorded as "setup" is only sent, what was recorded as "differs" is sent
too: there this project does better on purpose. A "test" step's answer is compared: status, media type, which X-Nomad
headers there are, and the body. Values that are other ones in each run are learnt (an external ID, from the answer of
the step that made it) or veiled on both sides (indexes, times, UUIDs, versions, and a plugin's own words after `desc
=`).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

UUID: Final = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
ADDRESS: Final = re.compile(r"127\.0\.0\.1:\d+")
WORDS: Final = re.compile(r"(?<=desc = )[^\n]*")
COUNTED: Final = re.compile(r"\b(index|offset|line|column)(:? |=)\d+")
TIMES: Final = frozenset({"CreateTime", "ModifyTime", "UpdateTime"})
VEILED: Final = frozenset(
    {
        "Index",
        "CreateIndex",
        "ModifyIndex",
        "JobModifyIndex",
        "LastContact",
        "ProviderVersion",
        "Version",
        "Provider",
        "Hash",
    }
)
HEADERS: Final = ("x-nomad-index", "x-nomad-knownleader", "x-nomad-lastcontact", "x-nomad-nexttoken")


@dataclass(frozen=True)
class Exchange:
    """An answer as either side gave it; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: str


class Target(Protocol):
    """What the requests are sent to."""

    def send(self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes | None) -> Exchange: ...


@dataclass
class Outcome:
    """What became of one compared step."""

    scenario: str
    step: str
    differences: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.scenario}/{self.step}"


def scenarios(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def replay(file: Path, target: Target) -> Iterator[Outcome]:
    """Send the steps of one scenario in order; yields an outcome for each compared one."""
    scenario = json.loads(file.read_text())
    learnt: dict[str, str] = {}
    for step in scenario["steps"]:
        want = _recorded(step["response"])
        if step.get("phase") == "differs" and want.status >= 400:
            continue  # nothing came of it there; here it may make something that later steps do not expect
        got = _send(target, step["request"], learnt)
        _learn(scenario.get("captures") or [], step["step"], got, learnt)
        if step.get("phase", "test") == "test":
            yield Outcome(
                file.stem, step["step"], list(_compare(_renamed(want, learnt, old=True), _renamed(got, learnt)))
            )


def _send(target: Target, request: Mapping[str, Any], learnt: Mapping[str, str]) -> Exchange:
    def filled(text: str) -> str:
        for old, new in learnt.items():
            text = text.replace(old, new)
        return text

    body = request.get("body")
    headers = {name: filled(value) for name, value in (request.get("headers") or {}).items()}
    raw = None if body is None else filled(body).encode()
    return target.send(request["method"], filled(request["path"]), filled(request.get("query") or ""), headers, raw)


def _recorded(response: Mapping[str, Any]) -> Exchange:
    headers = {name.lower(): value for name, value in response["headers"].items()}
    return Exchange(response["status"], headers, response["body"])


def _learn(captures: list[Mapping[str, Any]], step: str, got: Exchange, learnt: dict[str, str]) -> None:
    for capture in captures:
        if capture.get("from_step") != step or not capture.get("json_path"):
            continue
        try:
            value = json.loads(got.body)
            for part in re.findall(r"[^.\[\]]+", capture["json_path"]):
                value = value[int(part)] if isinstance(value, list) else value[part]
        except (ValueError, KeyError, IndexError, TypeError):
            continue  # the step answered otherwise: its own comparison will say so
        learnt[capture["value"]] = str(value)


def _renamed(exchange: Exchange, learnt: Mapping[str, str], *, old: bool = False) -> Exchange:
    """Learnt values under one name on both sides."""
    body = exchange.body
    for number, (recorded, live) in enumerate(learnt.items()):
        body = body.replace(recorded if old else live, f"<learnt {number}>")
    return Exchange(exchange.status, exchange.headers, body)


def _compare(want: Exchange, got: Exchange) -> Iterator[str]:
    if want.status != got.status:
        yield f"status {got.status} {got.body[:200]!r} instead of {want.status} {want.body[:200]!r}"
        return
    kinds = [e.headers.get("content-type", "").partition(";")[0] for e in (want, got)]
    if want.body.strip() and kinds[0] != kinds[1]:
        yield f"media type {kinds[1]!r} instead of {kinds[0]!r}"
    for name in HEADERS:
        if (name in want.headers) != (name in got.headers):
            yield f"header {name} is {'missing' if name in want.headers else 'not in the recording'}"
    yield from _differences(_content(want), _content(got), "body")


def _content(exchange: Exchange) -> Any:
    text = exchange.body.strip()
    if text and exchange.headers.get("content-type", "").startswith("text/html"):
        return "<page>"  # what a person sees is no part of the API
    if text[:1] in ("[", "{") or exchange.headers.get("content-type", "").startswith("application/json"):
        try:
            return _veil(json.loads(text), "")
        except ValueError:
            pass  # not JSON after all: compared as text
    return _veil_text(text)


def _veil(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return {UUID.sub("<uuid>", k): _veil(v, k) for k, v in value.items()}
    if isinstance(value, list):
        if key == "Allocations" and "TaskStates" in json.dumps(value):
            return "<allocations>"
        # Nomad puts a null before the topologies of a created volume; here there is none, on purpose.
        return [_veil(v, "") for v in value if not (key == "Topologies" and v is None)]
    if key in TIMES:
        return "<time>"
    if key in VEILED:
        return "<veiled>" if value or key == "Index" else value
    return _veil_text(value) if isinstance(value, str) else value


def _veil_text(text: str) -> str:
    return COUNTED.sub(r"\1\2<n>", WORDS.sub("<plugin's words>", ADDRESS.sub("<address>", UUID.sub("<uuid>", text))))


def _differences(want: Any, got: Any, where: str) -> Iterator[str]:
    if isinstance(want, dict) and isinstance(got, dict):
        for key in sorted(want.keys() | got.keys()):
            if key not in got:
                yield f"{where}.{key} is missing"
            elif key not in want:
                yield f"{where}.{key} is not in the recording"
            else:
                yield from _differences(want[key], got[key], f"{where}.{key}")
    elif isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        for position, (left, right) in enumerate(zip(want, got, strict=True)):
            yield from _differences(left, right, f"{where}[{position}]")
    elif type(want) is not type(got) or want != got:
        yield f"{where} is {json.dumps(got)[:200]} instead of {json.dumps(want)[:200]}"
