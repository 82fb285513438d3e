"""Fifty blocked readers and some writers on a local system of their own: `SOAK_SECONDS` (60 by default).

Writers note when a change was answered and with which index. Readers note every answer. Then: no answer shows more
than its index, no index of one URL goes back, and every reader knew of every change a few seconds after it was made,
long before its wait would have ended by itself.
"""

import json
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection, RemoteDisconnected
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from infra.local import environments, private
from infra.local.private import System
from infra.local.settings import tool_environment
from tests.reporting import MEASURED

SOAK_SECONDS = float(tool_environment().get("SOAK_SECONDS", "60"))
pytestmark = [pytest.mark.conformance, pytest.mark.enable_socket, pytest.mark.timeout(900 + 3 * SOAK_SECONDS)]

READERS = 50
WRITERS = 3
VOLUMES = 3
"""Of each writer."""
WAIT = 25
KNOWN_WITHIN = 12.0
"""Seconds: polls are a second apart, and fifty functions share a small machine; a change that is missed would show
after 25.
"""
QUIET = 4.0
"""Seconds between the readers' first answers and the writers' first change: all readers wait by then."""
STARTED_AT_ONCE = 5
"""Readers. Each starts a process of the API's function, and fifty at once would take longer than a function may run."""
TRIES = 10
"""Of a request that a busy machine had no time for: of a register whose plugin was not asked in time, so that nothing
was written, and of a list that was not read in time.
"""
NO_TIME = (413, 503)
CAPABLE = {
    "RequestedCapabilities": [{"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}],
}
LISTS = ("type=csi", "type=csi&namespace=*", "type=csi&plugin_id=directory", "type=csi&prefix=soak-0", "type=csi")


@dataclass
class Answer:
    status: int
    index: int
    body: Any


class Client:
    """One connection to the API."""

    def __init__(self, system: System) -> None:
        self._connection = HTTPConnection(urlsplit(system.api_url).netloc, timeout=60)

    def get(self, path: str) -> Answer:
        """Read, like any client once more when the server had closed the idle connection by then."""
        try:
            return self.call("GET", path)
        except RemoteDisconnected:
            self._connection.close()
            return self.call("GET", path)

    def call(self, method: str, path: str, body: Any = None) -> Answer:
        self._connection.request(method, path, None if body is None else json.dumps(body))
        response = self._connection.getresponse()
        text = response.read()
        shown = json.loads(text) if text and response.status == 200 else text.decode()
        return Answer(response.status, int(response.headers.get("X-Nomad-Index") or 0), shown)

    def close(self) -> None:
        self._connection.close()


@dataclass(frozen=True)
class Change:
    """A write that was answered: the volume has this index from then on, or is gone by it."""

    volume_id: str
    index: int
    moment: float
    gone: bool


@dataclass
class Reader:
    """Blocks on one URL for ever, and remembers when it knew what."""

    path: str
    follows: Callable[[str], bool]
    learnt: list[tuple[float, int, dict[str, int]]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    answered: threading.Event = field(default_factory=threading.Event)
    without_news: int = 0

    def run(self, system: System, stop: threading.Event) -> None:
        with closing(Client(system)) as client:
            self._follow(client, stop)

    def _follow(self, client: Client, stop: threading.Event) -> None:
        index, known, busy = 0, None, 0
        while not stop.is_set():
            joint = "&" if "?" in self.path else "?"
            began = time.monotonic()
            answer = client.get(f"{self.path}{joint}index={index}&wait={WAIT}s")
            now = time.monotonic()
            busy = busy + 1 if answer.status in NO_TIME else 0
            if 0 < busy < TRIES:
                pause(1.0)
                continue
            if answer.status not in (200, 404):
                self.problems.append(f"{answer.status} {answer.body}")
                return
            shown = self._shown(answer)
            if any(number > answer.index for number in shown.values()):
                self.problems.append(f"{shown} is above {answer.index}")
            if answer.index < index:
                self.problems.append(f"the index went back from {index} to {answer.index}")
            self.without_news += shown == known and now - began < WAIT - 1
            index, known = answer.index, shown
            self.answered.set()
            self.learnt.append((now, answer.index, shown))

    def _shown(self, answer: Answer) -> dict[str, int]:
        if answer.status == 404:
            return {}
        found = answer.body if isinstance(answer.body, list) else [answer.body]
        return {volume["ID"]: volume["ModifyIndex"] for volume in found}

    def knew(self, change: Change, gone_at: int) -> float | None:
        """When it had an answer of this state or a later one; `gone_at` is the index at which the volume went, 0 if it
        did not. An answer without the volume proves nothing below that: it may be from before the volume came.
        """
        for moment, index, shown in self.learnt:
            number = shown.get(change.volume_id)
            if number is not None and number >= change.index:
                return moment
            if number is None and gone_at and index >= gone_at:
                return moment
        return None


@dataclass
class Writer:
    """Registers, updates and deregisters volumes, over and over, and notes each change with its answer's index."""

    number: int
    external_id: str
    until: float
    changes: list[Change] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def run(self, system: System) -> None:
        names = [f"soak-{self.number}-{which}" for which in range(VOLUMES)]
        try:
            with closing(Client(system)) as client:
                while time.monotonic() < self.until:
                    for name in names:
                        for method in ("PUT", "PUT", "DELETE"):
                            self.changes += [change(client, method, name, self.external_id)]
                self.changes += [change(client, "PUT", name, self.external_id) for name in names[1:]]
        except (AssertionError, OSError) as exc:
            self.problems.append(f"after {len(self.changes)} changes: {exc!r}")


def change(client: Client, method: str, name: str, external_id: str) -> Change:
    volume = {"ID": name, "Name": name, "PluginID": "directory", "ExternalID": external_id} | CAPABLE
    began = time.monotonic()
    body = {"Volumes": [volume]} if method == "PUT" else None
    answer = client.call(method, f"/v1/volume/csi/{name}", body)
    for _ in range(TRIES):
        if method != "PUT" or answer.status != 503:
            break
        pause(1.0)
        answer = client.call(method, f"/v1/volume/csi/{name}", body)
    assert answer.status == 200, f"{method} {name}: {answer} after {time.monotonic() - began:.1f} s"
    return Change(name, answer.index, time.monotonic(), gone=method == "DELETE")


def readers() -> list[Reader]:
    out = []
    for number in range(READERS):
        query = LISTS[number % len(LISTS)]
        if number % 3 == 2:
            name = f"soak-{number % WRITERS}-{number % VOLUMES}"
            out.append(Reader(f"/v1/volume/csi/{name}", lambda volume_id, name=name: volume_id == name))  # type: ignore[misc]
        else:
            prefix = "soak-0" if "prefix" in query else "soak"
            out.append(Reader(f"/v1/volumes?{query}", lambda volume_id, prefix=prefix: volume_id.startswith(prefix)))  # type: ignore[misc]
    return out


def test_no_change_is_missed_by_fifty_blocked_readers(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    environments.ensure(environments.EMULATOR)
    with private.running(tmp_path / "system") as system:
        external_id = storage(system)
        stop, blocked = threading.Event(), readers()
        reading = [threading.Thread(target=reader.run, args=(system, stop), daemon=True) for reader in blocked]
        for first in range(0, READERS, STARTED_AT_ONCE):
            for thread in reading[first : first + STARTED_AT_ONCE]:
                thread.start()
            for reader in blocked[first : first + STARTED_AT_ONCE]:
                assert reader.answered.wait(60), reader.problems
        pause(QUIET)
        until = time.monotonic() + SOAK_SECONDS
        writers = [Writer(number, external_id, until) for number in range(WRITERS)]
        writing = [threading.Thread(target=writer.run, args=(system,), daemon=True) for writer in writers]
        for thread in writing:
            thread.start()
        for thread in writing:
            thread.join(SOAK_SECONDS + 120)
            assert not thread.is_alive()
        pause(KNOWN_WITHIN)
        stop.set()
        assert [problem for writer in writers for problem in writer.problems] == []
        record_property(MEASURED, heard(blocked, [change for writer in writers for change in writer.changes]))
        poke(system, external_id)
        for thread in reading:
            thread.join(WAIT + 30)
            assert not thread.is_alive()


def storage(system: System) -> str:
    """A volume that the plugin really has."""
    wanted = {"ID": "base", "Name": "base", "PluginID": "directory"} | CAPABLE
    with closing(Client(system)) as client:
        answer = client.call("PUT", "/v1/volume/csi/base/create", {"Volumes": [wanted]})
    assert answer.status == 200, answer
    return str(answer.body["Volumes"][0]["ExternalID"])


def poke(system: System, external_id: str) -> None:
    """One more change of every volume, so that the readers end their last wait."""
    for number in range(WRITERS):
        Writer(number, external_id, time.monotonic() + 0.1).run(system)


def heard(blocked: list[Reader], changes: list[Change]) -> str:
    """What was seen, in a line; fails unless it was all and in time."""
    assert [reader.problems for reader in blocked if reader.problems] == []
    delays, missed = [], []
    for change in changes:
        for reader in (r for r in blocked if r.follows(change.volume_id)):
            moment = reader.knew(change, gone_at(change, changes))
            delay = None if moment is None else max(moment - change.moment, 0.0)
            if delay is None or delay > KNOWN_WITHIN:
                missed.append((reader.path, change, delay))
            else:
                delays.append(delay)
    answers = sum(len(reader.learnt) for reader in blocked)
    idle = sum(reader.without_news for reader in blocked)
    assert missed == []
    assert len(changes) >= WRITERS * 3
    assert min(len(reader.learnt) for reader in blocked) >= 2
    return (
        f"{len(changes)} changes, {READERS} readers, {answers} answers, {idle} of them without news; "
        f"known after {statistics.median(delays):.2f} s (median), {max(delays):.2f} s (longest)"
    )


def gone_at(change: Change, changes: list[Change]) -> int:
    later = (c.index for c in changes if c.gone and c.volume_id == change.volume_id and c.index >= change.index)
    return min(later, default=0)


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)
