"""The storage rules hold in every interleaving, and the explorer would notice if one of them did not.

The requests of new code may begin anew when they are done, but for an abandoned one. So a scenario is every order in
which its requests may come, any number of times, with any number of rejected calls, and one lost call at a time.

`make conformance` (--many) looks at all of the large scenarios. `make test` leaves out calls that are lost or rejected
there.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from tests.exploring import ViolationError
from tests.reporting import EXPLORED
from tests.storages.explorer import ANY, Explorer, Scenario
from tests.storages.model import CLAIMED, CREATING, HELD, READY, Actor, Mistake, Row, Storage

A, B, C = 0, 1, 2
"""Records. Each may name the storage."""
NOTHING: Final = (Row(), Row())
ONE: Final = (Row(READY), Row())
TWO: Final = (Row(READY), Row(READY))
THREE: Final = (Row(), Row(), Row())
LEAST_STATES: Final = 50
"""Less would mean that steps are missing."""

Tell = Callable[[str, object], None]


def client(verb: str, *records: int) -> tuple[Actor, ...]:
    return tuple(Actor(verb, record, again=True) for record in records)


def old(verb: str, *records: int) -> tuple[Actor, ...]:
    return tuple(Actor(verb, record, old=True) for record in records)


def scenario(*actors: tuple[Actor, ...], rows: tuple[Row, ...] = NOTHING, there: bool = False) -> Scenario:
    """Nothing names the storage. Without `there` the plugin makes it, one for all creates."""
    return Scenario(sum(actors, ()), rows, Storage(), there=there, losses=1, rejections=ANY)


def upgraded(*actors: tuple[Actor, ...], rows: tuple[Row, ...], there: bool = True) -> Scenario:
    """Old code runs, and there is no S."""
    return replace(scenario(*actors, rows=rows, there=there), upgrade=True)


def held(*actors: tuple[Actor, ...]) -> Scenario:
    """Record A has the storage."""
    return replace(scenario(*actors, rows=ONE, there=True), storage=Storage(HELD, (A,)))


SCENARIOS = {
    "a create and its delete": replace(scenario(client("create", A), client("delete", A)), losses=2),
    "a create, a register and its delete": scenario(client("create", A), client("register", B), client("delete", B)),
    "a create, a register and its deregister": scenario(
        client("create", A), client("register", B), client("deregister", B)
    ),
    "a create and its delete, a register and its deregister": scenario(
        client("create", A), client("delete", A), client("register", B), client("deregister", B)
    ),
    "two creates of one storage, without losses": replace(scenario(client("create", A, B)), losses=0),
    "registers and deletes": scenario(client("register", A, B), client("delete", A, B), there=True),
    "registers, a delete and a deregister of three records": scenario(
        client("register", A, B, C), client("delete", A), client("deregister", B), rows=THREE, there=True
    ),
    "an abandon of a delete": replace(
        scenario(client("register", A, B), client("delete", A, B), there=True), losses=2, abandons=1
    ),
    "a create and two deletes, of which one is abandoned": replace(
        scenario(client("create", A), client("delete", A, A)), abandons=1
    ),
    "claims of two records": scenario(
        client("register", A, B), client("claim", A, B), client("deregister", A, B), there=True
    ),
    "claims of records that are deregistered by force": scenario(
        client("register", A, B), client("claim", A, B), client("force deregister", A), client("recount", A), there=True
    ),
    "claims, a forced deregistration and a delete": replace(
        scenario(
            client("register", A, B),
            client("claim", A, B),
            client("force deregister", A),
            client("delete", B),
            there=True,
        ),
        losses=0,
    ),
    "claims beside a create of the same storage": scenario(
        client("register", A), client("create", B), client("claim", A, B), there=True
    ),
    "an upgrade beside a register and a delete": upgraded(
        old("register", B), old("delete", A), client("delete", B), client("register", A), rows=ONE
    ),
    "an upgrade, the later record first": upgraded(
        old("register", A), old("delete", B), client("delete", A), client("register", B), rows=ONE[::-1]
    ),
    "an upgrade beside claims": upgraded(
        old("claim", A, B), client("claim", A, B), client("delete", A), client("register", A), rows=TWO
    ),
    "an upgrade beside a register and claims": upgraded(
        old("claim", A, B), old("register", B), client("claim", A, B), rows=ONE
    ),
    "an upgrade beside a create": upgraded(
        (Actor("create", A, "create", old=True),),
        old("register", B),
        client("delete", A, B),
        rows=(Row(CREATING, 0), Row()),
        there=False,
    ),
}
DEPARTED = "a create that finds the storage of a record that left, whose claim is still there"
RECOUNTED = "a recount that begins before the last claim leaves, and ends after two records came"
OLD_UNDO = "an upgrade beside an undo"
SCENARIOS |= {
    DEPARTED: replace(held(client("create", B), client("claim", A), client("force deregister", A)), losses=0),
    RECOUNTED: replace(
        scenario(
            (Actor("recount", A), Actor("claim", A, CLAIMED, departed=True)),
            (Actor("register", A), Actor("register", B), Actor("claim", A), Actor("claim", B)),
            there=True,
        ),
        storage=Storage(HELD, (), shared=True, writers=1, kept=True, version=3),
    ),
    OLD_UNDO: upgraded(
        (Actor("create", A, "find", old=True),), old("register", B), client("register", B), rows=NOTHING
    ),
}
LARGE = {
    "two creates of one storage": scenario(client("create", A, B)),
    "two creates of one storage and their deletes": scenario(client("create", A, B), client("delete", A, B)),
    "two creates of one storage, a register and its deregister": scenario(
        client("create", A, B), client("register", C), client("deregister", C), rows=THREE
    ),
    "two creates of one storage and a delete, of which one is abandoned": replace(
        scenario(client("create", A, B), client("delete", A)), abandons=1
    ),
    "a create and two registers": scenario(
        client("create", A), client("register", B, C), client("delete", A, B), rows=THREE
    ),
    "a create, a register and its delete, two losses": replace(
        scenario(client("create", A), client("register", B), client("delete", B)), losses=2
    ),
    "a create and a register with their deletes, of which one is abandoned": replace(
        scenario(client("create", A), client("register", B), client("delete", A, B)), abandons=1
    ),
    "claims of three records": scenario(
        client("register", A, B, C), client("claim", A, B, C), client("force deregister", A), rows=THREE, there=True
    ),
    "a create and claims, a forced deregistration and a delete, which is abandoned": replace(
        scenario(
            client("create", A),
            client("register", B),
            client("claim", A, B),
            client("force deregister", A),
            client("delete", A),
        ),
        abandons=1,
    ),
    "claims, a forced deregistration and a recount beside a create": scenario(
        client("register", A),
        client("create", B),
        client("claim", A, B),
        client("force deregister", A),
        client("recount", A),
        there=True,
    ),
}


def show(name: str, explored: Scenario, record_property: Tell) -> None:
    size = Explorer(explored).run()
    record_property(EXPLORED, f"storage          {name:70} {size.states:8} states {size.steps:8} steps")
    assert size.states >= LEAST_STATES
    assert size.rests > 0


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_storage_is_destroyed_or_leaked_and_no_second_writer_gets_in(name: str, record_property: Tell) -> None:
    show(name, SCENARIOS[name], record_property)


@pytest.mark.timeout(1200)  # half a minute each on an idle machine
@pytest.mark.parametrize("name", LARGE)
def test_the_rules_hold_in_larger_scenarios(name: str, many: bool, record_property: Tell) -> None:
    large = LARGE[name]
    show(name, large if many else replace(large, losses=0, rejections=0), record_property)


DESTROYED: Final = "a storage that a ready record names does not exist"
CLAIM_DESTROYED: Final = "a storage that has a claim does not exist"
ON_PURPOSE: Final = "is deleted that was deregistered on purpose"
LEAKED: Final = "a storage that a create made is named by nothing"
TWO_WRITERS: Final = "two claims of one storage write"
MISTAKES = {
    Mistake.UNDO_LOOKS: ("a create, a register and its delete", DESTROYED),
    Mistake.STALE_ANSWER: ("a create, a register and its delete", DESTROYED),
    Mistake.STALE_VALIDATION: ("registers and deletes", DESTROYED),
    Mistake.NO_MARK: ("registers and deletes", DESTROYED),
    Mistake.MARK_FORGETS_CALLS: ("a create and its delete", DESTROYED),
    Mistake.UNDO_CLOSES_AT_LEAVING: ("a create, a register and its delete", LEAKED),
    Mistake.UNDO_CLOSES_AT_FREE: ("a create, a register and its delete", LEAKED),
    Mistake.UNDO_CLOSES_EARLY: ("a create, a register and its delete", LEAKED),
    Mistake.NO_CREATE_UNTIL: ("a create and its delete", LEAKED),
    Mistake.UNDO_REMOVES_KEPT: ("a create, a register and its deregister", ON_PURPOSE),
    Mistake.UNDO_REMOVES_COUNTED: (DEPARTED, ON_PURPOSE),
    Mistake.LEAVING_EXPIRES: ("registers and deletes", DESTROYED),
    Mistake.ABANDON_FORGETS: ("an abandon of a delete", DESTROYED),
    Mistake.ABANDON_FORGETS_CREATES: ("a create and two deletes, of which one is abandoned", LEAKED),
    Mistake.ABANDON_GOES_ON: ("an abandon of a delete", DESTROYED),
    Mistake.ABANDON_LOCKS: ("an abandon of a delete", "S is leaving by an operation that is closed"),
    Mistake.FORCE_DROPS: ("claims of records that are deregistered by force", TWO_WRITERS),
    Mistake.LAST_DROPS: ("claims of records that are deregistered by force", TWO_WRITERS),
    Mistake.VERSION_TWICE: (RECOUNTED, TWO_WRITERS),
    Mistake.SHARED_UNSEEN: ("claims of two records", TWO_WRITERS),
    Mistake.RELEASE_UNSEEN: ("claims of two records", "S counts claims that are not there"),
    Mistake.COPY_UNSEEN: ("claims of two records", TWO_WRITERS),
    Mistake.DELETE_READS_BEFORE: ("a create, a register and its delete", DESTROYED),
    Mistake.DELETE_UNCOUNTED: (
        "claims, a forced deregistration and a delete",
        "a storage that has a claim does not exist",
    ),
    Mistake.FIRST_TOUCH: ("an upgrade beside a register and a delete", DESTROYED),
    Mistake.NO_GATE: ("an upgrade beside a register and a delete", DESTROYED),
    Mistake.SWEEP_BESIDE: ("an upgrade beside a register and claims", TWO_WRITERS),
    Mistake.OLD_REMOVES: (OLD_UNDO, DESTROYED),
}
"""Each mistake, where it must be found, and as what."""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_rules_is_found(mistake: Mistake) -> None:
    name, what = MISTAKES[mistake]

    with pytest.raises(ViolationError, match=what):
        Explorer(SCENARIOS[name], mistake).run()


def test_every_mistake_of_the_model_is_tried() -> None:
    assert {*MISTAKES, Mistake.NONE} == set(Mistake)


def test_a_violation_is_told_as_the_shortest_way_to_it() -> None:
    beside = replace(held(client("delete", A), client("register", B)), rejections=0, losses=0)

    with pytest.raises(ViolationError) as told:
        Explorer(beside, Mistake.DELETE_READS_BEFORE).run()

    assert str(told.value).splitlines() == [
        "a storage that a ready record names does not exist",
        "delete A: reads S (freely)",
        "register B: notes the time (freely)",
        "register B: validates",
        "register B: joins",
        "delete A: begins",
        "delete A: calls to delete",
        "delete A: the call to delete lands",
    ]
