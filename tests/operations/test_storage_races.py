"""The table of races for a storage: while one operation works, another request names, claims or leaves its storage.

The other request comes before each AWS call, message and CSI call of the first request and of its worker. Then
everything is left to itself. DeleteVolume must never reach a storage that a volume names at that moment, and the
invariants must hold at rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from chalicelib.domain.volume import VolumeState
from chalicelib.errors import PluginRejected
from tests.fakes.provider import FakeProvider
from tests.harness import Reply, System
from tests.operations.invariants import storage_of, violations
from tests.operations.script import Script, Strike, tell
from tests.operations.test_faults import MOST_STEPS, Tap, Tapped, tapped_system
from tests.operations.test_storages import claim, create, delete, deregister, register, release
from tests.reporting import FAULTS

SHARE = "export-1"
BROKEN = PluginRejected("the disk is broken", code="INTERNAL")
Act = Callable[[System], Any]


@dataclass
class Interruption(Tap):
    """Runs `act` before a step, instead of a death."""

    act: Callable[[], None] = lambda: None

    def before(self, name: str) -> None:
        if self.on and self.count == self.at:
            self.on = False
            self.act()
        self.count += 1

    def done(self) -> None:
        pass


@dataclass(frozen=True)
class Race:
    """What is there before, what works, and who is on the storage in the end."""

    name: str
    prepare: Act
    start: Act


def _several(system: System) -> None:
    assert create(system, "a", Parameters={"share": SHARE}).status == 200
    assert register(system, "b", SHARE).status == 200


def _fails(system: System) -> Reply:
    Script({("CreateVolume", 1): Strike(tell(BROKEN), after=True)}).put_into(system.provider)
    return create(system, "new", Parameters={"share": SHARE})


def _one(system: System) -> None:
    assert create(system, "a", Parameters={"share": SHARE}).status == 200


RACES = (
    Race("a create", lambda _: None, lambda system: create(system, "new", Parameters={"share": SHARE})),
    Race("a create of a known storage", _one, lambda system: create(system, "new", Parameters={"share": SHARE})),
    Race("an undo", lambda _: None, _fails),
    Race("an undo of a known storage", _one, _fails),
    Race("a delete of the last volume", _one, lambda system: delete(system, "a")),
    Race("a delete of one of two", _several, lambda system: delete(system, "a")),
    Race("a register", _one, lambda system: register(system, "new", SHARE)),
    Race("a deregister", _several, lambda system: deregister(system, "a")),
)
OTHERS: dict[str, Act] = {
    "register": lambda system: register(system, "other", SHARE),
    "create": lambda system: create(system, "other", Parameters={"share": SHARE}),
    "register and claim": lambda system: (
        register(system, "other", SHARE).status == 200 and claim(system, "other", "x", "node-b")
    ),
    "register and deregister": lambda system: (
        register(system, "other", SHARE).status == 200 and deregister(system, "other")
    ),
    "claim": lambda system: claim(system, "a", "x", "node-b"),
    "delete": lambda system: delete(system, "a"),
    "deregister": lambda system: deregister(system, "a"),
    "delete of the other": lambda system: delete(system, "b"),
}


@pytest.mark.parametrize("side", ["request", "worker"])
@pytest.mark.parametrize("race", RACES, ids=lambda r: r.name)
def test_another_request_at_any_step_destroys_and_leaks_nothing(
    race: Race, side: str, many: bool, record_property: Callable[[str, object], None]
) -> None:
    """With --many, each other request before each step. Without, each step has one of them."""
    at, names, reached = 0, sorted(OTHERS), True
    while reached:
        assert at < MOST_STEPS
        for name in names if many else [names[at % len(names)]]:
            with tapped_system() as tapped:
                reached, wrong = _run(tapped, race, name, side=side, at=at)
            record_property(FAULTS, [race.name, side, int(reached), len(wrong)])
            assert wrong == [], f"{name} before step {at}"
            if not reached:
                break
        at += 1
    assert at > (4 if side == "request" else 0) or race.name in ("a register", "a deregister", "a delete of one of two")


def _run(tapped: Tapped, race: Race, name: str, *, side: str, at: int) -> tuple[bool, list[str]]:
    """Run a race with one interruption. Return whether that step was reached, and what is wrong in the end."""
    system = tapped.system
    for node in ("node-a", "node-b"):
        system.add_node(node)
    race.prepare(system)
    destroyed: list[str] = []

    def watch(rpc: str, _: FakeProvider) -> None:
        if rpc == "DeleteVolume":
            destroyed.extend(_named(system))

    def interrupt() -> None:
        before, tapped.side = tapped.side, "request"
        OTHERS[name](system)
        tapped.side = before

    system.provider.before.append(watch)
    tap = tapped.sides[side] = Interruption(at=at, on=True, act=interrupt)
    race.start(system)
    reached = not tap.on
    tap.on = False
    tapped.rest()
    found = destroyed + violations(system)
    for volume_id in ("a", "b", "new", "other"):
        release(system, volume_id, "x")
    tapped.rest()
    return reached, found + destroyed + violations(system)


def _named(system: System) -> list[str]:
    """Return the ready volumes whose storage is there to be deleted."""
    ready = [v for page in system.deps.volumes.in_namespace("default") for v in page if v.state is VolumeState.READY]
    return [f"{v.id} loses its storage" for v in ready if storage_of(v) in system.provider.volumes]
