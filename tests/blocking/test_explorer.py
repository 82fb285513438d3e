"""The index protocol holds in every interleaving, and the explorer would notice if it did not.

`make conformance` (--many) looks at all of them. `make test` leaves out, where a list is read, answers that are lost
and waits whose time is up: four of five states.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.blocking.explorer import Explorer, Item, Scenario
from tests.exploring import ViolationError
from tests.reporting import EXPLORED

A, B = 0, 1
CHANGES = {
    "two updates": ((("update", A),), (("update", A),)),
    "an update beside a create": ((("update", A),), (("register", B),)),
    "an update beside a delete": ((("update", A),), (("deregister", A),)),
    "a delete beside a create": ((("deregister", A),), (("register", B),)),
    "two creates of one ID": ((("register", B),), (("register", B),)),
    "a delete and a create anew beside a create": ((("register", B),), (("deregister", A), ("register", A))),
}
READ_ONLY = {
    "a delete and a create anew beside an update": ((("update", A),), (("deregister", A), ("register", A))),
    "a create and a delete beside a create": ((("register", A),), (("register", A), ("deregister", A))),
}
"""Too many states for a list of two items; a read has one."""
NOTHING_YET = (Item(), Item())
LEAST_STATES = 1000
"""Less would mean that steps are missing."""


Tell = Callable[[str, object], None]


def show(scenario: Scenario, name: str, record_property: Tell) -> None:
    explored = Explorer(scenario).run()
    line = f"{scenario.reader:16} {name:46} {explored.states:8} states {explored.steps:8} steps"
    record_property(EXPLORED, line)
    assert explored.states >= LEAST_STATES
    assert explored.rests > 0


@pytest.mark.parametrize("reader", ["list", "members", "read", "read after list"])
@pytest.mark.parametrize("name", CHANGES)
def test_no_change_is_missed_and_no_index_lies_in_any_interleaving(
    reader: str, name: str, many: bool, record_property: Tell
) -> None:
    scenario = Scenario(CHANGES[name], reader, losses=1 if len(CHANGES[name][1]) == 1 else 0)
    if not many and reader != "read":
        scenario = replace(scenario, losses=0, cuts=0)
    show(scenario, name, record_property)


@pytest.mark.parametrize("name", READ_ONLY)
def test_a_volume_keeps_one_growing_index_through_deletion_and_creation(name: str, record_property: Tell) -> None:
    show(Scenario(READ_ONLY[name], "read"), name, record_property)


def test_a_volume_that_never_was_has_an_index_below_its_first(record_property: Tell) -> None:
    show(UNUSED, "a create of an unused ID", record_property)


UPDATES = Scenario(CHANGES["two updates"], "list")
CREATE_ANEW = Scenario(READ_ONLY["a delete and a create anew beside an update"], "read")
UNUSED = Scenario(((("register", A),), (("register", B), ("update", B))), "read", items=NOTHING_YET)
MUTATIONS = {
    "bump only before": (UPDATES, "missed for good"),
    "bump only after": (UPDATES, "missed for good"),
    "publish the write's own number": (UPDATES, "missed for good"),
    "watch read last": (UPDATES, "missed for good"),
    "eventually consistent list": (UPDATES, "missed for good"),
    "compare in repair": (UPDATES, "missed for good"),
    "answer the watch only": (UPDATES, "shows more than its index"),
    "the same number again": (UPDATES, "no rest can be reached"),
    "no tombstone": (CREATE_ANEW, "missed for good"),
    "index from the publications": (
        Scenario(((("update", A),), (("deregister", A),)), "members"),
        "goes back",
    ),
    "lists have the numbers of writes": (Scenario(CHANGES["two updates"], "read after list"), "missed for good"),
    "a read waits on its own index only": (Scenario(CHANGES["two updates"], "read after list"), "missed for good"),
    "absence has the newest index": (UNUSED, "goes back"),
    "floor read last": (UNUSED, "missed for good"),
}
"""Each mistake, where it must be found, and as what."""


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mistake_in_the_protocol_is_found(mutation: str) -> None:
    scenario, what = MUTATIONS[mutation]

    with pytest.raises(ViolationError, match=what):
        Explorer(scenario, mutation).run()
