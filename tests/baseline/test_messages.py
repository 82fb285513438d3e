"""Today's control plane accepts the signed messages of every baseline's bridges, and answers as it did then.

An answer may have more fields than it had: a bridge ignores those that it does not know.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.baseline.files import Baseline, Exchange
from tests.baseline.world import empty_world, put_rows
from tests.harness import System

COUNTED = {"Index", "CreateIndex", "ModifyIndex"}
"""Numbers that depend on how many writes there were before. It only counts whether each is above 0."""


@pytest.fixture
def beginning(baseline: Baseline) -> Iterator[System]:
    """A control plane that has the CA and nothing else."""
    with empty_world() as system:
        put_rows(system, {"meta": [baseline.trust]})
        yield system


def test_bridges_that_register_at_first(beginning: System, baseline: Baseline) -> None:
    assert differences(beginning, baseline.first) == []
    methods = {(one.method, one.status) for one in baseline.first}
    assert methods == {("PUT", 200), ("PUT", 403), ("DELETE", 200)}


def test_bridges_that_go_on_after_the_upgrade(world: System, baseline: Baseline) -> None:
    """These are heartbeats of nodes that are up, the return of silent and lost nodes, orderly stops, and mounts."""
    assert differences(world, baseline.later) == []
    assert any(one.json and one.json["Lost"] for one in baseline.later if "/bridge/" in one.path)


def test_a_message_that_was_changed_on_its_way_is_refused(world: System, baseline: Baseline) -> None:
    """So the recorded message is the signed one."""
    for one in (baseline.first[0], next(one for one in baseline.later if one.method == "DELETE")):
        reply = world.call(one.method, one.path, one.body.replace(" ", "  ", 1).encode(), headers=one.headers)
        assert (reply.status, reply.body) == (403, "bridge signature does not fit the body and the certificate")


def differences(system: System, exchanges: Sequence[Exchange]) -> list[tuple[str, Any, Any]]:
    """Return the exchanges whose answers differ, each with the recorded answer and today's."""
    found = []
    for one in exchanges:
        system.clock.moment = max(system.clock.moment, one.at)
        reply = system.call(one.method, one.path, one.body.encode(), query=one.query, headers=one.headers)
        is_json = reply.headers.get("Content-Type") == "application/json"
        wanted, said = (one.text, reply.body) if one.json is None or not is_json else (one.json, reply.json)
        if (
            reply.status != one.status
            or not says(said, wanted)
            or ("X-Nomad-Index" in reply.headers) != bool(one.index)
        ):
            found.append((one.what, (one.status, one.json or one.text), (reply.status, said)))
    return found


def says(said: Any, wanted: Any, name: str = "") -> bool:
    """Return whether `said` has everything that is wanted."""
    if isinstance(wanted, dict) and isinstance(said, dict):
        return all(key in said and says(said[key], value, key) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(said, list):
        return len(said) == len(wanted) and all(map(says, said, wanted))
    return bool(said == wanted or (name in COUNTED and said > 0 and wanted > 0))


@pytest.mark.parametrize(
    ("said", "enough"),
    [
        ({"Index": 7, "Lost": [{"ID": "a"}]}, True),
        ({"Index": 9, "Lost": [{"ID": "a", "More": 1}], "More": 1}, True),
        ({"Index": 0, "Lost": [{"ID": "a"}]}, False),
        ({"Index": 7, "Lost": []}, False),
        ({"Index": 7, "Lost": [{"ID": "b"}]}, False),
        ({"Index": 7}, False),
    ],
)
def test_an_answer_may_say_more_but_not_less(said: Any, enough: bool) -> None:
    assert says(said, {"Index": 7, "Lost": [{"ID": "a"}]}) is enough
