"""The fault table: every kind of operation, killed before and after each AWS call, message and CSI call, then left
to itself.

Who is killed is the request (an API function) or the worker. A message of a worker that died is delivered again, lost
(the sweeper must find the operation), delivered twice, or delivered late, when the sweeper's message has done all the
work. After each case sweeper and workers run until everything is at rest, and then the invariants must hold against the
provider's own list: no orphan, no phantom, nothing stuck, exactly one thing made.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from chalicelib.operations import engine
from tests.emulated import aws
from tests.harness import Died, System, forget, make_system
from tests.operations.invariants import at_rest, violations
from tests.operations.kinds import CASES, Case
from tests.reporting import FAULTS

DELIVERIES = ("redelivered", "lost", "duplicated", "late")
ROUNDS = 40
WAIT = 5.0
"""Seconds a request waits: long enough for a step that is repeated once, and few polls."""
MOST_STEPS = 60
FEWEST_STEPS = {"request": 4, "worker": 5}
"""Less would mean that the tap missed the calls: then nothing was tried."""


@dataclass
class Tap:
    """Counts the steps of one side, and kills it at one of them: step `at`, before or after its effect."""

    at: int = -1
    after: bool = False
    count: int = 0
    on: bool = False
    names: list[str] = field(default_factory=list)
    _dying: bool = False

    def before(self, name: str) -> None:
        if not self.on:
            return
        self.names.append(name)
        if self.count == self.at and not self.after:
            self.on = False
            raise Died(name)
        self._dying = self.count == self.at
        self.count += 1

    def done(self) -> None:
        if self.on and self._dying:
            self.on = False
            raise Died("after")


class Tapped:
    """A system whose request side and worker side can be killed at any of their steps."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.sides = {"request": Tap(), "worker": Tap()}
        self.side = "request"
        self.delivery = "redelivered"
        self.armed = False
        self.deaths = 0
        self.late: list[str] = []
        events = system.deps.dynamo.client.meta.events
        events.register("before-call.dynamodb.*", self._before)
        events.register("after-call.dynamodb.*", self._after)
        system.provider.before.append(lambda rpc, _: self.tap.before(rpc))
        system.provider.after.append(lambda *_: self.tap.done())
        system.queue.tap = self
        system.clock.on_sleep[:] = [self.pump]

    @property
    def tap(self) -> Tap:
        return self.sides[self.side]

    def _before(self, model: Any, **_: Any) -> None:
        self.tap.before(model.name)

    def _after(self, **_: Any) -> None:
        self.tap.done()

    def pump(self) -> None:
        """Deliver messages to workers, as the queue does; a worker that dies takes only itself along."""
        queue = self.system.queue
        while queue.messages:
            message = queue.messages.pop(0)
            with self.as_worker():
                try:
                    engine.run(self.system.context, message)
                    if self.delivery == "duplicated":
                        engine.run(self.system.context, message)
                except Died:
                    self.deaths += 1
                    if self.delivery != "lost":
                        self.late.append(message)
        # What a dead worker held comes back when its visibility ends: not within this request.

    @contextmanager
    def as_worker(self) -> Iterator[None]:
        before, self.side = self.side, "worker"
        try:
            yield
        finally:
            self.side = before

    def rest(self) -> None:
        """Time passes: visibility timeouts end, the sweeper runs, until nothing is due any more."""
        self.side = "worker"
        for tap in self.sides.values():
            tap.on = False
        if self.delivery == "late":
            self._settle()
        self.system.queue.messages += self.late
        self.late = []
        self._settle()

    def _settle(self) -> None:
        for _ in range(ROUNDS):
            self.system.clock.moment += 90
            self.system.sweep()
            self.pump()
            if at_rest(self.system):
                return


def run_case(tapped: Tapped, case: Case, *, side: str, at: int, after: bool, delivery: str) -> bool:
    """Run the case with one death; False when the side has no such step."""
    system = tapped.system
    tapped.late, tapped.delivery, tapped.side = [], "redelivered", "request"
    case.prepare(system)
    tapped.delivery = delivery
    tap = tapped.sides[side] = Tap(at=at, after=after, on=True)
    died = False
    try:
        case.start(system)
    except Died:
        died = True
    died = died or tapped.deaths > 0
    tapped.rest()
    return died and not tap.on


@contextmanager
def tapped_system() -> Iterator[Tapped]:
    with aws() as place, pytest.MonkeyPatch.context() as monkeypatch:
        system = make_system(monkeypatch, place, wait_seconds=WAIT)
        system.add_plugin()
        yield Tapped(system)
        forget()


@pytest.mark.parametrize(
    ("side", "delivery"), [("request", "redelivered"), *(("worker", delivery) for delivery in DELIVERIES)]
)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_death_at_any_step_loses_and_leaks_nothing(
    case: Case, side: str, delivery: str, many: bool, record_property: Callable[[str, object], None]
) -> None:
    """With --many, die before and after each step. Without, each step has one of these deaths, under one delivery."""
    at = 0
    while at < MOST_STEPS:
        died = False
        if many or side == "request" or DELIVERIES[at % len(DELIVERIES)] == delivery:
            for after in (False, True) if many else (at % 2 == 1,):
                with tapped_system() as tapped:
                    died = run_case(tapped, case, side=side, at=at, after=after, delivery=delivery)
                    left = what_is_left(tapped, case, side)
                record_property(FAULTS, [case.name, side, int(died), len(left)])
                assert left == [], f"died {'after' if after else 'before'} step {at}, message {delivery}"
            if not died:
                break
        at += 1
    assert FEWEST_STEPS[side] <= at < MOST_STEPS, f"the {side} side has {at} steps: were all of them tapped?"


def what_is_left(tapped: Tapped, case: Case, side: str) -> list[str]:
    """What is wrong when everything is at rest.

    A request may have died before anything was recorded: then it is sent again, and its work is done once.
    """
    found = violations(tapped.system)
    if side == "request":
        tapped.side = "request"
        case.start(tapped.system)
        tapped.rest()
        found += violations(tapped.system)
    if not case.done(tapped.system):
        found.append(f"not done: {case.name}")
    return found


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_worker_that_dies_between_the_providers_answer_and_the_record(case: Case, delivery: str) -> None:
    """The step that matters most, under every delivery."""
    with tapped_system() as tapped:
        _die_with_the_answer(tapped, case, delivery)


def _die_with_the_answer(tapped: Tapped, case: Case, delivery: str) -> None:
    dead: list[str] = []

    def die(rpc: str, _: object) -> None:
        if rpc == case.rpc and not dead and tapped.side == "worker" and tapped.delivery == delivery and tapped.armed:
            dead.append(rpc)
            raise Died(rpc)

    tapped.system.provider.after.append(die)
    case.prepare(tapped.system)
    tapped.armed, tapped.delivery = True, delivery
    reply = case.start(tapped.system)
    tapped.rest()

    assert dead == [case.rpc]
    assert reply.status == 504
    assert violations(tapped.system) == []
    assert case.done(tapped.system)
