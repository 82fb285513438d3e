"""Every step of every kind runs twice, and fails once with each error there is."""

from dataclasses import dataclass
from typing import Any

import pytest

from chalicelib.domain.deadlines import LONGEST_CALL
from chalicelib.domain.operation import Status
from chalicelib.domain.outcome import GO_NAMES, Outcome, outcome, proves
from chalicelib.errors import PluginError, PluginInDoubt, PluginRejected, PluginUnreachable
from chalicelib.operations import claim_steps, publish_volume
from chalicelib.operations.kinds import KINDS
from tests.harness import Died, System
from tests.operations.invariants import all_operations, violations
from tests.operations.kinds import CASES, LATER_STEPS, Case
from tests.operations.script import Script, Strike, tell
from tests.operations.test_faults import Tapped, tapped_system

CREATE = CASES[0]
UNDO = {"find": ("CreateVolume", 2), "remove": ("DeleteVolume", 1)}
"""The steps of a create whose answer proved nothing, and which call of which RPC they are. CASES start each kind at
its first step.
"""
TEXT = "failure on purpose"
SAMPLED = 5
"""No number of failures of an RPC is a multiple of it: what is left out differs from case to case."""


@dataclass(frozen=True)
class Failure:
    """What a call ends in, before or after it had its effect."""

    kind: type[PluginError]
    code: str
    after: bool

    def __str__(self) -> str:
        return f"{self.kind.__name__}-{self.code}-{'after' if self.after else 'before'}"

    def strike(self) -> Strike:
        return Strike(tell(self.kind(f"{TEXT}: {self.code}", code=self.code)), self.after)


def failures(rpc: str) -> list[Failure]:
    """Each error that `rpc` can end in. What proves that nothing happened does not come after the effect."""
    found = [Failure(PluginUnreachable, "UNAVAILABLE", after=False)]
    for code in GO_NAMES:
        meaning = Outcome.GONE if code == "OK" else outcome(rpc, code)
        if meaning is not Outcome.GONE:  # which is a success in other words: tests/unit/csi
            kind = PluginInDoubt if meaning is Outcome.IN_DOUBT else PluginRejected
            moments = (False,) if proves(rpc, code) else (False, True)
            found += [Failure(kind, code, after) for after in moments]
    return found


def named(value: Any) -> str:
    return f"{value.name} {value.step}".strip() if isinstance(value, Case) else str(value)


def attempts_grow(system: System) -> bool:
    """The attempt numbers that the provider saw of one operation only grow."""
    seen: dict[str, list[int]] = {}
    for _, _, (operation_id, attempt) in system.provider.log:
        seen.setdefault(operation_id, []).append(attempt)
    return all(numbers == sorted(numbers) for numbers in seen.values())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every failure of every step with --many; without, one of five, so that each case and each code has its turn."""
    if metafunc.function is test_a_first_step_that_fails_once:
        every = [(case, failure) for case in (*CASES, *LATER_STEPS) for failure in failures(case.rpc)]
        chosen = every if metafunc.config.getoption("--many") else every[::SAMPLED]
        metafunc.parametrize(("case", "failure"), chosen, ids=named)


def test_a_first_step_that_fails_once(case: Case, failure: Failure) -> None:
    """In doubt or not reached: repeated, and done. Rejected: the client has the plugin's text, and nothing is left."""
    with tapped_system() as tapped:
        system = tapped.system
        case.prepare(system)
        script = Script({(case.rpc, 1): failure.strike()}).put_into(system.provider)
        reply = case.start(system)
        if is_repeated(case, failure):
            assert reply.status in (200, 504)  # UNKNOWN may be a transport's: then it waits until the call is over
        else:
            assert reply.status == 500
            assert TEXT in reply.body
            tapped.rest()
            assert left_after_rejection(system, case, failure) == []
            system.clock.moment += LONGEST_CALL  # after UNKNOWN, the next call waits until the first cannot land
            assert case.start(system).status == 200
        tapped.rest()
        assert script.struck == [(case.rpc, 1)]
        assert violations(system) == []
        assert case.done(system)
        assert attempts_grow(system)


def is_repeated(case: Case, failure: Failure) -> bool:
    """A delete that is rejected for no known reason goes on, and so does every release: neither is ever taken back."""
    if failure.kind is not PluginRejected:
        return True
    return case.name == "unpublish" or (case.name == "delete" and not proves(case.rpc, failure.code))


def left_after_rejection(system: System, case: Case, failure: Failure) -> list[str]:
    """What is there that should not be, or is not there that should be (docs/operations.md)."""
    found = violations(system)
    volumes, snapshots = system.provider.volumes, system.provider.snapshots
    read = system.call("GET", "/v1/volume/csi/data")
    wanted = 0 if case.name == "create" else 1
    if len(volumes) != wanted:
        found.append(f"{len(volumes)} volumes at the provider")
    if read.status != (200 if wanted else 404):
        found.append(f"the volume is shown as {read.status}")
    if case.name == "expand" and read.json["Capacity"] != 1024:
        found.append("the record grew by an expansion that failed")
    wanted = {"create snapshot": failure.after, "delete snapshot": not failure.after}.get(case.name, False)
    if len(snapshots) != wanted:
        found.append(f"{len(snapshots)} snapshots at the provider")
    return found


def undone(made: bool, step: str, strike: Strike | None) -> Script:
    """A create whose answer proves nothing, storage being there or not, and what happens to a step of its undo."""
    first = Strike(tell(PluginRejected(TEXT, code="INTERNAL")), after=made)
    return Script({("CreateVolume", 1): first} | ({} if strike is None else {UNDO[step]: strike}))


@pytest.mark.parametrize("made", [True, False], ids=["made", "not-made"])
@pytest.mark.parametrize(
    ("step", "failure"), [(step, failure) for step in UNDO for failure in failures(UNDO[step][0])], ids=named
)
def test_a_step_of_an_undo_that_fails_once(step: str, failure: Failure, made: bool) -> None:
    """Tried again until nothing is left, while the volume's ID is free; a proof of absence ends it."""
    proof = step == "find" and proves("CreateVolume", failure.code)
    if proof and made:
        failure = Failure(PluginRejected, "RESOURCE_EXHAUSTED", after=False)  # the proof would be a lie
    with tapped_system() as tapped:
        system = tapped.system
        script = undone(made, step, failure.strike()).put_into(system.provider)
        assert CREATE.start(system).status == 500
        tapped.rest()
        assert script.struck == [("CreateVolume", 1), UNDO[step]]
        assert script.calls["DeleteVolume"] == (0 if proof and not made else 2 if step == "remove" else 1)
        assert violations(system) == []
        assert system.provider.volumes == {}
        assert [(o.status, TEXT in o.error) for o in all_operations(system)] == [(Status.FAILED, True)]
        assert attempts_grow(system)
        assert CREATE.start(system).status == 200
        assert CREATE.done(system)


FIRST = {kind.value: next(iter(spec.steps)) for kind, spec in KINDS.items()}
STEPS = [
    *((case, FIRST[case.name]) for case in CASES),
    *((case, case.step) for case in LATER_STEPS),
    *((CREATE, step) for step in UNDO),
]


def test_every_step_of_every_kind_is_tested() -> None:
    tested = {(case.name, step) for case, step in STEPS}
    # The undo of a publish is made of the very steps of an unpublish.
    tested |= {
        ("publish", step) for step, shared in claim_steps.STEPS.items() if publish_volume.KIND.steps[step] is shared
    }
    assert tested == {(kind.value, step) for kind, spec in KINDS.items() for step in spec.steps}


@pytest.mark.parametrize(("case", "step"), STEPS, ids=named)
def test_a_step_that_runs_twice_leaves_what_one_run_leaves(case: Case, step: str) -> None:
    """The worker dies with the provider's answer in its hands; and the message comes once more when all is over."""
    alone, calls = played(case, step, None)
    twice, more = played(case, step, Strike(tell(Died(step)), after=True))
    assert twice == alone
    rpc, _ = UNDO.get(step, (case.rpc, 1))
    assert sorted(more) == sorted([*calls, rpc])


def played(case: Case, step: str, strike: Strike | None) -> tuple[dict[str, Any], list[str]]:
    """The end of it, and the calls that led there."""
    with tapped_system() as tapped:
        system = tapped.system
        case.prepare(system)
        before = len(system.provider.log)
        if step in UNDO:
            undone(made=True, step=step, strike=strike).put_into(system.provider)
        elif strike is not None:
            Script({(case.rpc, 1): strike}).put_into(system.provider)
        case.start(system)
        tapped.rest()
        assert tapped.deaths == (strike is not None)
        deliver_again(tapped)
        assert violations(system) == []
        return picture(system), [rpc for rpc, _, _ in system.provider.log[before:]]


def deliver_again(tapped: Tapped) -> None:
    calls = len(tapped.system.provider.log)
    tapped.system.queue.messages += [o.id for o in all_operations(tapped.system)]
    tapped.rest()
    assert len(tapped.system.provider.log) == calls, "a message about what is over led to a call"


def picture(system: System) -> dict[str, Any]:
    """Everything that a repeat must not change."""
    read = system.call("GET", "/v1/volume/csi/data")
    return {
        "record": {k: read.json[k] for k in ("ExternalID", "Capacity")} if read.status == 200 else read.status,
        "volumes": sorted((v.id, v.capacity) for v in system.provider.volumes.values()),
        "snapshots": sorted((s.id, s.source) for s in system.provider.snapshots.values()),
        "operations": sorted((o.kind, o.status, o.step, o.error) for o in all_operations(system)),
    }


@pytest.mark.parametrize("case", CASES, ids=named)
def test_the_same_request_joins_the_operation_that_is_under_way(case: Case) -> None:
    """No worker for a while: 504. The request again: one operation, one call of each step, and its answer."""
    with tapped_system() as tapped:
        system = tapped.system
        case.prepare(system)
        operations, calls = len(all_operations(system)), len(system.provider.log)
        system.clock.on_sleep[:] = []
        assert case.start(system).status == 504
        system.clock.on_sleep[:] = [tapped.pump]
        assert case.start(system).status == 200
        assert len(all_operations(system)) == operations + 1
        made = [rpc for rpc, _, _ in system.provider.log[calls:]]
        assert case.rpc in made
        assert len(made) == len(set(made))
        assert violations(system) == []
        assert case.done(system)
