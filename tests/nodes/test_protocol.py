"""The control plane takes bridges that are one protocol behind or ahead of it, and tells others what to update."""

import pytest

from chalicelib.wire import registrations
from tests.harness import System
from tests.nodes.bridges import Authority, counts, plugin, statuses


@pytest.mark.parametrize("theirs", [4, 5, 6])
def test_neighbours_are_taken(
    empty: System, authority: Authority, monkeypatch: pytest.MonkeyPatch, theirs: int
) -> None:
    monkeypatch.setattr(registrations, "PROTOCOL", 5)
    reply = authority.bridge("n1").beat(Protocol=theirs)
    assert (reply.status, reply.json["Protocol"]) == (200, 5)
    assert statuses(empty) == {"n1": "ready"}


@pytest.mark.parametrize(
    ("theirs", "text"),
    [
        (3, "bridge protocol 3 is too old, 5 is spoken: update the bridge"),
        (7, "bridge protocol 7 is too new, 5 is spoken: update the control plane first"),
    ],
)
def test_others_are_told_what_to_update(
    empty: System, authority: Authority, monkeypatch: pytest.MonkeyPatch, theirs: int, text: str
) -> None:
    monkeypatch.setattr(registrations, "PROTOCOL", 5)
    reply = authority.bridge("n1").beat(Protocol=theirs)
    assert (reply.status, reply.body) == (426, text)
    assert statuses(empty) == {}


def test_what_a_newer_bridge_says_beside_is_no_obstacle(empty: System, authority: Authority) -> None:
    bridge = authority.bridge("n1", plugin("directory", Later={"a": 1}))
    assert bridge.beat(Protocol=2, AlsoLater=[1]).status == 200
    assert counts(empty)["nodes_healthy"] == 1


def test_what_an_older_bridge_leaves_out_has_a_default(empty: System, authority: Authority) -> None:
    short = {name: plugin("directory")[name] for name in ("ID", "Healthy", "Controller", "Node")}
    assert authority.bridge("n1", short).beat().status == 200
    assert counts(empty)["controllers_healthy"] == 1
