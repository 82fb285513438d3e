"""The recorded exchanges of a real Nomad against the handlers in this process, with the real directory plugin."""

import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import harness, plugin
from tests.emulated import aws
from tests.replay.replayer import Exchange, Outcome, replay, scenarios

DATA = Path(__file__).parents[1] / "data"
KNOWN: dict[str, str] = json.loads((DATA / "replay_differences.json").read_text())
CAPABILITIES = frozenset(
    {
        "CREATE_DELETE_VOLUME", "PUBLISH_UNPUBLISH_VOLUME", "LIST_VOLUMES", "GET_CAPACITY", "CREATE_DELETE_SNAPSHOT",
        "LIST_SNAPSHOTS", "CLONE_VOLUME", "EXPAND_VOLUME", "VOLUME_CONDITION", "GET_VOLUME",
    }
)  # fmt: skip
NODE_CAPABILITIES = frozenset({"STAGE_UNSTAGE_VOLUME", "GET_VOLUME_STATS", "EXPAND_VOLUME", "VOLUME_CONDITION"})
NODE_ID = "34fb716a-8d81-0f92-b3f2-54bdd8ec437b"


class InProcess:
    """The handlers, called as API Gateway would."""

    def __init__(self, system: harness.System) -> None:
        self._system = system

    def send(self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes | None) -> Exchange:
        with contextlib.redirect_stdout(io.StringIO()):
            reply = self._system.call(method, path, body, query=query, headers=headers)
        return Exchange(reply.status, {k.lower(): v for k, v in reply.headers.items()}, reply.body)


@pytest.fixture
def nomad(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[InProcess]:
    """The control plane with a plugin `hostpath` that the directory plugin plays."""
    with aws() as place, plugin.running(tmp_path, "--like", "hostpath", "--node-id", "node-14646") as socket:
        system = harness.make_system(monkeypatch, place)
        channels = plugin.SocketChannels(socket, system.clock.monotonic)
        system.use(plugin.calls(system.deps.plugins, channels, system.clock))
        system.add_plugin(
            "hostpath",
            node_id=NODE_ID,
            provider="hostpath.csi.k8s.io",
            controller_capabilities=CAPABILITIES,
            node_capabilities=NODE_CAPABILITIES,
            plugin_capabilities=frozenset({"VOLUME_ACCESSIBILITY_CONSTRAINTS"}),
            external_node_id="node-14646",
            topology={"topology.hostpath.csi/node": "node-14646"},
        )
        yield InProcess(system)
        channels.close()
        harness.forget()


@pytest.mark.parametrize("file", scenarios(DATA / "corpus"), ids=lambda f: f.stem)
def test_answers_are_nomads_but_for_the_differences_that_are_named(file: Path, nomad: InProcess) -> None:
    found = {o.name: o.differences for o in replay(file, nomad) if o.differences}

    unknown = {name: differences[:3] for name, differences in found.items() if name not in KNOWN}
    assert unknown == {}
    agrees = {name for name in KNOWN if name.startswith(f"{file.stem}/")} - found.keys()
    assert agrees == set(), "these agree now: take them off tests/data/replay_differences.json"


def test_at_least_99_percent_of_the_steps_agree() -> None:
    steps = [s for f in scenarios(DATA / "corpus") for s in json.loads(f.read_text())["steps"] if s["phase"] == "test"]

    assert len(KNOWN) <= len(steps) // 100
    assert all(len(reason) > 20 for reason in KNOWN.values())


def test_the_replayer_sees_a_difference_in_every_part_of_an_answer(tmp_path: Path) -> None:
    body = json.dumps({"ID": "a", "Index": 7})
    want = {"status": 200, "headers": {"Content-Type": "application/json", "X-Nomad-Index": "7"}, "body": body}
    request: dict[str, Any] = {"method": "GET", "path": "/x", "query": "", "headers": {}, "body": None}
    file = tmp_path / "made_up.json"
    file.write_text(json.dumps({"steps": [{"step": "one", "phase": "test", "request": request, "response": want}]}))
    good = Exchange(
        200, {"content-type": "application/json", "x-nomad-index": "9"}, json.dumps({"ID": "a", "Index": 9})
    )

    def outcome(answer: Exchange) -> Outcome:
        class Fixed:
            def send(self, *_: object) -> Exchange:
                return answer

        return next(replay(file, Fixed()))

    assert outcome(good).differences == []
    assert outcome(Exchange(404, good.headers, good.body)).differences
    assert outcome(Exchange(200, {"x-nomad-index": "9"}, good.body)).differences
    assert outcome(Exchange(200, {"content-type": "application/json"}, good.body)).differences
    assert outcome(Exchange(200, good.headers, json.dumps({"ID": "b", "Index": 9}))).differences
    assert outcome(Exchange(200, good.headers, json.dumps({"ID": "a"}))).differences
    assert outcome(Exchange(200, good.headers, json.dumps({"ID": "a", "Index": 9, "More": 1}))).differences
