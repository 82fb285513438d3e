"""Every interleaving of the actors of a scenario, over the rules of docs/protocols.md, section 6: who owns a storage.

Each step is one atomic thing: a transaction, a call that is sent, a call that lands at the provider, a tick of the
clock. The modules `model_*.py` have the steps with their rules.

Violations: a ready record or a claim whose storage does not exist; a delete of what was deregistered on purpose; two
claims where the access mode admits one; at rest, a storage that a create of ours made and that nothing names, or S
leaving by an operation that is closed; a state from which no rest is reachable without a fault, an operator or a
client.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.exploring import Explored, ViolationError, explore
from tests.storages.model import (
    ABANDONED,
    ABSENT,
    CALL,
    CLAIMED,
    DONE,
    FREE,
    HELD,
    LEAVING,
    START,
    Actor,
    Mistake,
    Row,
    State,
    Storage,
    settled,
    ticked,
)
from tests.storages.model_claims import claim, is_claimed, recount
from tests.storages.model_operations import LOSES, abandon, create, is_open, land, work
from tests.storages.model_records import delete, deregister, register
from tests.storages.model_upgrade import upgrade

BEGIN: Final = {
    "create": create,
    "register": register,
    "deregister": deregister,
    "force deregister": deregister,
    "delete": delete,
    "claim": claim,
    "recount": recount,
}
"""What an actor does while it is no open operation."""
FREELY: Final = " (freely)"
"""Ends the names of steps that need not come: faults, an operator's decisions, and what a client begins."""
PASSES: Final = "time passes"
ANY: Final = -1
"""As many as there may be."""


@dataclass(frozen=True)
class Scenario:
    """The actors, and what is there when they begin."""

    actors: tuple[Actor, ...]
    rows: tuple[Row, ...]
    storage: Storage
    there: bool = False
    losses: int = 0
    """Calls that may be lost at the same time."""
    rejections: int = 0
    """Calls that may be rejected. ANY is any number."""
    abandons: int = 0
    upgrade: bool = False


class Explorer:
    """All states of a scenario under the rules, or under one mistake in them."""

    def __init__(self, scenario: Scenario, mistake: Mistake = Mistake.NONE) -> None:
        self._scenario, self._mistake = scenario, mistake

    def run(self) -> Explored:
        """Raise ViolationError with the shortest way there when the rules do not hold."""
        return explore(self)

    def first(self) -> State:
        scenario = self._scenario
        return State(
            there=scenario.there,
            ours=scenario.there and scenario.storage.state != ABSENT,
            on_purpose=scenario.storage.kept,
            abandoned=False,
            storage=scenario.storage,
            rows=scenario.rows,
            actors=scenario.actors,
            calls=(),
            losses=scenario.losses,
            rejections=scenario.rejections,
            abandons=scenario.abandons,
            gate=not scenario.upgrade,
            old=scenario.upgrade,
            swept=0,
        )

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        for name, after in self._steps(state):
            written = after if name == PASSES else self._mistaken(state.storage, after)
            yield name, settled(state, written)

    def is_needed(self, name: str) -> bool:
        return not name.endswith(FREELY)

    def at_rest(self, state: State) -> bool:
        resting = {START, DONE, ABANDONED, CLAIMED}
        return not state.calls and state.gate and all(actor.step in resting for actor in state.actors)

    def check(self, state: State, *, at_rest: bool) -> None:
        if state.ready and not state.there:
            raise ViolationError("a storage that a ready record names does not exist")
        if state.claims and not state.there:
            raise ViolationError("a storage that has a claim does not exist")
        if self._mistake is Mistake.NONE and state.gate:
            self._check_books(state)
        if not at_rest:
            return
        storage = state.storage
        if storage.state == LEAVING:
            raise ViolationError("S is leaving by an operation that is closed")
        if storage.writers and not state.claims:
            raise ViolationError("S counts claims that are not there")
        kept = storage.kept or state.on_purpose
        if state.there and state.ours and not (state.ready or kept or state.abandoned):
            raise ViolationError("a storage that a create made is named by nothing")

    def _check_books(self, state: State) -> None:
        """S says what is: its records are the ready ones, its counters the claims."""
        storage = state.storage
        if storage.records != state.ready:
            raise ViolationError(f"S has {storage.records}, ready are {state.ready}")
        if storage.shared and storage.writers != state.claims:
            raise ViolationError(f"S counts {storage.writers} claims of {state.claims}")
        for record, row in enumerate(state.rows):
            claims = sum(a.record == record and not a.departed for a in state.actors if is_claimed(a))
            if row.writers != claims:
                raise ViolationError(f"record {record} counts {row.writers} claims of {claims}")
        if state.on_purpose != (storage.kept and storage.state in {FREE, HELD}):
            raise ViolationError("S does not know what was deregistered on purpose")

    def _steps(self, state: State) -> Iterator[tuple[str, State]]:
        for number, actor in enumerate(state.actors):
            for name, after in self._actions(state, number):
                yield f"{actor.name}: {name}", after
        for place, call in enumerate(state.calls):
            actor = state.actors[call.operation]
            for name, after in land(state, place):
                yield f"{actor.name}: {name}" + (FREELY if "rejected" in name else ""), after
        later = ticked(state)
        if later is not None:
            yield PASSES, later
        yield from upgrade(state, self._mistake)
        if self._mistake is Mistake.LEAVING_EXPIRES and state.storage.state == LEAVING and state.storage.until < 0:
            yield "S expires", state._replace(storage=Storage())

    def _actions(self, state: State, number: int) -> Iterator[tuple[str, State]]:
        actor, mistake = state.actors[number], self._mistake
        if is_open(actor):
            for name, after in work(state, number, mistake):
                yield name + (FREELY if name == LOSES else ""), after
            if state.abandons:
                yield "is abandoned" + FREELY, abandon(state, number, mistake)
        elif actor.verb in BEGIN:
            for name, after in BEGIN[actor.verb](state, number, mistake):
                yield name + (FREELY if actor.step in {START, CLAIMED} else ""), after

    def _mistaken(self, before: Storage, after: State) -> State:
        """Return what two of the mistakes make of S when it is written."""
        storage = after.storage
        if storage == before:
            return after
        if self._mistake is Mistake.VERSION_TWICE:
            version = before.version + 1 if before.state == HELD else 1
            return after._replace(storage=storage._replace(version=version))
        if self._mistake is Mistake.LEAVING_EXPIRES and storage.state == LEAVING != before.state:
            return after._replace(storage=storage._replace(until=CALL))
        return after
