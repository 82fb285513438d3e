"""Calls that land when nobody expects them any more, and workers that are believed dead and are not.

A call that is out of sight has its effect later: before the next attempt's call, between that call and its record, or
after everything is recorded. The worker that made it has died, was told that its deadline passed, or comes back with
its answer when another attempt owns the operation. Nothing at the provider's side fences anything here: so it is when a
bridge was started again and has forgotten which attempts it saw.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.operation import Kind, Operation, Status
from chalicelib.errors import LeaseLost, PluginInDoubt, PluginRejected
from chalicelib.operations import engine
from chalicelib.operations.context import ClaimLost
from chalicelib.operations.kinds import KINDS
from tests.fakes.provider import Stranded
from tests.harness import Died, System, definition
from tests.operations.invariants import all_operations, violations
from tests.operations.kinds import CASES, Case
from tests.operations.script import Script, Strike, tell
from tests.operations.test_faults import Tapped, tapped_system

LOST = {
    "its worker died": lambda: Stranded(Died("out of sight")),
    "its deadline passed": lambda: Stranded(PluginInDoubt("rpc error: deadline exceeded", code="DEADLINE_EXCEEDED")),
    "the bridge went away": lambda: Stranded(PluginInDoubt("rpc error: unavailable", code="UNAVAILABLE")),
}
LANDINGS = ("before the next call", "after the next call", "after the record")
BY_NAME = {case.name: case for case in CASES}


def rest(tapped: Tapped, seconds: float = 30.0) -> None:
    """Let time pass, with sweeper and workers, in steps small enough for a call that is out of sight to land first."""
    system = tapped.system
    tapped.side = "worker"
    system.clock.moment += seconds
    system.sweep()
    tapped.pump()


@pytest.mark.parametrize("landing", LANDINGS)
@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_call_that_lands_late(case: Case, lost: str, landing: str) -> None:
    with tapped_system() as tapped:
        system = tapped.system
        case.prepare(system)
        script = {(case.rpc, 1): Strike(tell(LOST[lost]()))}
        if landing != "after the record":
            script[case.rpc, 2] = Strike(lambda: landed(system), after=landing == "after the next call")
        Script(script).put_into(system.provider)
        case.start(system)
        tapped.rest()
        if landing == "after the record":
            landed(system)
            tapped.rest()
        assert system.provider.stranded == []
        assert violations(system) == []
        assert case.done(system)
        assert [o.status for o in all_operations(system)] == [Status.SUCCEEDED] * len(all_operations(system))


def landed(system: System) -> None:
    assert system.provider.land() == 1


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_worker_that_comes_back_with_its_answer_when_another_one_is_done(case: Case) -> None:
    """Its call takes longer than its lease; a second worker does all the work meanwhile. It writes nothing."""
    with tapped_system() as tapped:
        system = tapped.system
        case.prepare(system)
        seen: list[Operation] = []

        def overtake() -> None:
            held = next(o for o in all_operations(system) if o.open)
            system.clock.moment = held.lease_until + 1
            engine.run(system.context, held.id)
            seen.append(found(system, held.id))

        Script({(case.rpc, 1): Strike(overtake, after=True)}).put_into(system.provider)
        case.start(system)
        tapped.rest()
        assert [o.status for o in seen] == [Status.SUCCEEDED]
        assert found(system, seen[0].id) == seen[0], "the first worker wrote something after all"
        assert violations(system) == []
        assert case.done(system)


def found(system: System, operation_id: str) -> Operation:
    operation = system.deps.operations.get(operation_id)
    assert operation is not None
    return operation


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_every_write_of_an_older_attempt_is_refused(case: Case) -> None:
    """Whatever its call ends in: an attempt that is not the last one changes no record."""
    with tapped_system() as tapped:
        system = tapped.system
        case.prepare(system)
        held: list[Operation] = []
        Script({(case.rpc, 1): Strike(lambda: held.extend(o for o in all_operations(system) if o.open))}).put_into(
            system.provider
        )
        case.start(system)
        tapped.rest()
        old, end = held[0], records(system)
        step = KINDS[old.kind].steps[old.step]
        proving = PluginRejected("no", code="INVALID_ARGUMENT")
        unproving = PluginRejected("no", code="INTERNAL")
        clock = system.clock
        late: list[Callable[[], Any]] = [
            lambda: step.run(system.context, old, clock.monotonic() + 60.0),
            lambda: step.rejected(system.context, old, proving),
            lambda: step.rejected(system.context, old, unproving),
            lambda: system.context.retry(old, "later", answered=False, now=system.clock.now()),
            lambda: system.context.retry(replace(old, tries=99), "no more", answered=True, now=system.clock.now()),
        ]
        # More than ten minutes later: AWS does not know the tokens of its transactions any more.
        transact = system.context.dynamo.transact
        system.context.dynamo.transact = lambda writes, **_: transact(writes, token=clock.new_id())  # type: ignore[method-assign]
        for write in late:
            with pytest.raises((LeaseLost, ClaimLost)):  # whose claim is gone finds the record closed to it, too
                write()
            assert records(system) == end
        assert violations(system) == []


def records(system: System) -> list[Any]:
    """All items of volumes and operations, as they are stored."""
    client = system.deps.dynamo.client
    return [client.scan(TableName=f"moorage-test-{name}")["Items"] for name in ("volumes", "operations")]


def test_a_create_is_not_refused_while_an_older_call_may_still_make_it() -> None:
    """Attempt two hears INVALID_ARGUMENT, attempt one makes the volume: believed, it would be an orphan."""
    with tapped_system() as tapped:
        system = tapped.system
        refusal = PluginRejected("no such class", code="INVALID_ARGUMENT")
        Script(
            {
                ("CreateVolume", 1): Strike(tell(LOST["its deadline passed"]())),
                ("CreateVolume", 2): Strike(tell(refusal)),
                ("CreateVolume", 3): Strike(lambda: landed(system)),
            }
        ).put_into(system.provider)
        assert BY_NAME["create"].start(system).status == 504
        tapped.rest()
        assert violations(system) == []
        assert BY_NAME["create"].done(system)


def test_a_delete_is_not_refused_while_an_older_call_may_still_delete() -> None:
    """Attempt two hears FAILED_PRECONDITION, attempt one deletes: believed, it would be a phantom."""
    with tapped_system() as tapped:
        system, case = tapped.system, BY_NAME["delete"]
        case.prepare(system)
        refusal = PluginRejected("in use", code="FAILED_PRECONDITION")
        Script(
            {
                ("DeleteVolume", 1): Strike(tell(LOST["its deadline passed"]())),
                ("DeleteVolume", 2): Strike(tell(refusal)),
                ("DeleteVolume", 3): Strike(lambda: landed(system)),
            }
        ).put_into(system.provider)
        assert case.start(system).status == 504
        tapped.rest()
        assert violations(system) == []
        assert case.done(system)


def test_a_delete_waits_until_no_call_of_the_create_can_land() -> None:
    """The create's first call is out of sight, its second one made the volume, which is deleted at once."""
    with tapped_system() as tapped:
        system = tapped.system
        Script({("CreateVolume", 1): Strike(tell(LOST["its deadline passed"]()))}).put_into(system.provider)
        assert BY_NAME["create"].start(system).status == 200
        until = next(o.calls_until for o in all_operations(system))
        assert system.clock.now() < until
        assert BY_NAME["delete"].start(system).status == 504
        assert [rpc for rpc, _, _ in system.provider.log] == ["CreateVolume", "CreateVolume"]
        system.clock.moment = until - 0.5
        system.sweep()
        tapped.pump()
        landed(system)
        tapped.rest()
        assert system.provider.volumes == {}
        assert violations(system) == []


def test_an_undo_removes_only_when_no_call_of_the_create_can_land() -> None:
    """One call out of sight, one that proves nothing: what lands at the last moment is removed, too."""
    with tapped_system() as tapped:
        system = tapped.system
        unproving = PluginRejected("broken", code="INTERNAL")
        Script(
            {
                ("CreateVolume", 1): Strike(tell(LOST["its deadline passed"]())),
                ("CreateVolume", 2): Strike(tell(unproving), after=True),
                ("CreateVolume", 3): Strike(tell(unproving), after=True),
            }
        ).put_into(system.provider)
        BY_NAME["create"].start(system)
        until = next(o.calls_until for o in all_operations(system))
        while system.clock.now() < until - 1:
            assert "DeleteVolume" not in [rpc for rpc, _, _ in system.provider.log]
            system.clock.moment += min(20.0, until - 0.5 - system.clock.now())
            system.sweep()
            tapped.pump()
        landed(system)
        tapped.rest()
        assert system.provider.volumes == {}
        assert violations(system) == []
        assert [o.status for o in all_operations(system)] == [Status.FAILED]


def test_a_snapshot_is_deleted_only_when_no_call_that_takes_it_can_land() -> None:
    """The first call is out of sight, the second one took the snapshot, which is deleted at once."""
    with tapped_system() as tapped:
        system, case = tapped.system, BY_NAME["create snapshot"]
        case.prepare(system)
        Script({("CreateSnapshot", 1): Strike(tell(LOST["its deadline passed"]()))}).put_into(system.provider)
        assert case.start(system).status == 200
        taken = next(o for o in all_operations(system) if o.kind is Kind.CREATE_SNAPSHOT)
        assert system.clock.now() < taken.calls_until
        BY_NAME["delete snapshot"].start(system)
        system.clock.moment = taken.calls_until - 0.5
        system.sweep()
        tapped.pump()
        landed(system)
        tapped.rest()
        assert system.provider.snapshots == {}
        assert violations(system) == []


@pytest.mark.parametrize("deaths", [1, 3])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_message_that_arrives_after_the_sweepers(case: Case, deaths: int) -> None:
    """Workers die, the sweeper's message does the work, and the first messages come when all is over."""
    with tapped_system() as tapped:
        system = tapped.system
        case.prepare(system)
        strikes = {(case.rpc, n + 1): Strike(tell(Died("worker")), after=bool(n % 2)) for n in range(deaths)}
        Script(strikes).put_into(system.provider)
        case.start(system)
        messages, tapped.late = tapped.late, []
        tapped.rest()
        assert tapped.deaths == deaths
        assert messages
        calls = len(system.provider.log)
        system.queue.messages += messages
        tapped.rest()
        assert len(system.provider.log) == calls
        assert violations(system) == []
        assert case.done(system)


@pytest.mark.parametrize("failures", [1, 5])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_provider_that_is_started_again(case: Case, failures: int) -> None:
    """UNAVAILABLE for a while, one of the calls having had its effect: done once, by one operation."""
    with tapped_system() as tapped:
        system = tapped.system
        case.prepare(system)
        operations = len(all_operations(system))
        away = PluginInDoubt("rpc error: connection refused", code="UNAVAILABLE")
        strikes = {(case.rpc, n + 1): Strike(tell(away), after=n == 0) for n in range(failures)}
        Script(strikes).put_into(system.provider)
        case.start(system)
        tapped.rest()
        assert len(all_operations(system)) == operations + 1
        assert violations(system) == []
        assert case.done(system)


def test_a_volume_made_anew_is_not_touched_by_a_call_of_the_old_one() -> None:
    """Same ID, other storage: a create and a delete of the first volume land when the second one is there."""
    with tapped_system() as tapped:
        system = tapped.system
        first = BY_NAME["create"].start(system).json["Volumes"][0]["ExternalID"]
        Script({("DeleteVolume", 1): Strike(tell(LOST["its deadline passed"]()))}).put_into(system.provider)
        BY_NAME["delete"].start(system)
        tapped.rest()
        again = system.call("PUT", "/v1/volume/csi/data/create", definition())
        assert again.status == 200
        landed(system)
        tapped.rest()
        assert list(system.provider.volumes) == [again.json["Volumes"][0]["ExternalID"]] != [first]
        assert violations(system) == []
