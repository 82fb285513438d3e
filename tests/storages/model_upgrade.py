"""The upgrade: old code that knows no S, its end, and the sweep that builds S and writes the gate item.

| step | rule of protocols, 6 |
|---|---|
| old code is over | 17: the sweep begins when old code and its calls are over |
| the sweep adds record … | 17 |
| the sweep writes the gate | 16, 17 |
"""

from collections.abc import Iterator

from tests.storages.model import (
    ABSENT,
    CLAIMED,
    DELETING,
    DONE,
    HELD,
    LEAVING,
    READY,
    START,
    UNNOTED,
    Actor,
    Mistake,
    State,
    Storage,
)
from tests.storages.model_operations import is_open


def upgrade(state: State, mistake: Mistake) -> Iterator[tuple[str, State]]:
    if state.old and not state.calls:
        yield "old code is over", _over(state)
    beside = mistake in {Mistake.NO_GATE, Mistake.SWEEP_BESIDE}
    if state.gate or mistake is Mistake.FIRST_TOUCH or (state.old and not beside):
        return
    if state.swept == len(state.rows):
        yield "the sweep writes the gate", state._replace(gate=True)
    else:
        added = _added(state, state.swept)
        yield f"the sweep adds record {'ABC'[state.swept]}", added._replace(swept=state.swept + 1)


def _over(state: State) -> State:
    """End the processes of old code. Their records and operations stay."""
    return state._replace(old=False, actors=tuple(_ended(actor) if actor.old else actor for actor in state.actors))


def _ended(actor: Actor) -> Actor:
    if is_open(actor):
        return actor._replace(answer="", noted=UNNOTED)
    step = actor.step if actor.step in {CLAIMED, DONE} else START
    return actor._replace(step=CLAIMED if actor.step == "release" else step, noted=UNNOTED, seen=0, old=False)


def _added(state: State, record: int) -> State:
    row, storage = state.rows[record], state.storage
    if row.state == DELETING and storage.state == ABSENT:
        return state._replace(storage=Storage(LEAVING, operation=row.operation))
    if row.state != READY or record in storage.records:
        return state
    if storage.state != HELD:
        return state._replace(storage=Storage(HELD, (record,)))
    writers = storage.writers if storage.shared else state.rows[storage.records[0]].writers
    for member in (*storage.records, record):
        state = state.row(member, state.rows[member]._replace(shared=True))
    both = storage._replace(records=(*storage.records, record), shared=True, writers=writers + row.writers)
    return state._replace(storage=both)
