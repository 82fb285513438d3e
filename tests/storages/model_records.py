"""Requests about records: register, deregister with and without force, and the beginning of a delete.

| step | rule of protocols, 6 |
|---|---|
| notes the time, validates, commits | 3, 12 |
| deregisters | 10 |
| deregisters by force | 11 |
| begins to delete | 6 |

A request that is refused may be made again.
"""

from collections.abc import Iterator

from tests.storages.model import (
    ABANDONED,
    ABSENT,
    DELETING,
    FREE,
    GONE,
    HELD,
    LEAVING,
    NEVER,
    READY,
    START,
    UNNOTED,
    Mistake,
    Row,
    State,
    Storage,
)


def may_begin(state: State, mistake: Mistake) -> bool:
    """Rule 16: new code does nothing to storages before the gate item exists."""
    return state.gate or mistake in {Mistake.FIRST_TOUCH, Mistake.NO_GATE}


def is_stale(storage: Storage, noted: int) -> bool:
    """Return whether what was seen after `noted` may be from before a removal."""
    return storage.state == LEAVING or (storage.state == FREE and storage.until >= noted)


def joined(state: State, record: int, *, create_until: int = NEVER, counters: int | None = None) -> State:
    """Make the record ready, and add it to S. `counters` are the first record's, if they were read before."""
    storage = state.storage
    created = any(actor.verb == "create" and actor.step == ABANDONED for actor in state.actors)
    state = state._replace(on_purpose=False, abandoned=created)
    if storage.state != HELD:
        held = Storage(HELD, (record,), create_until)
        return state.row(record, Row(READY))._replace(storage=held)
    writers = storage.writers
    if not storage.shared:
        (first,) = storage.records
        writers = state.rows[first].writers if counters is None else counters
        state = state.row(first, state.rows[first]._replace(shared=True))
    both = storage._replace(
        records=tuple(sorted((*storage.records, record))),
        create_until=max(storage.create_until, create_until),
        shared=True,
        writers=writers,
        kept=False,
    )
    return state.row(record, Row(READY, shared=True))._replace(storage=both)


def register(state: State, number: int, mistake: Mistake) -> Iterator[tuple[str, State]]:
    actor = state.actors[number]
    match actor.step:
        case "start" if state.old if actor.old else may_begin(state, mistake):
            yield "notes the time", state.act(number, actor._replace(step="validate", noted=0))
        case "validate" if state.there:
            yield "validates", state.act(number, actor._replace(step="commit"))
        case "validate":
            yield "finds no storage", _again(state, number)
        case "commit":
            yield _commit(state, number, mistake)
        case "copy" if actor.changed:
            yield "is overtaken", state.act(number, actor._replace(step="commit", seen=0, changed=False))
        case "copy":
            yield "joins", joined(state, actor.record, counters=actor.seen).end(number)


def _commit(state: State, number: int, mistake: Mistake) -> tuple[str, State]:
    actor, storage = state.actors[number], state.storage
    if state.rows[actor.record].state == READY:
        return "repeats what is there", state.end(number)
    if state.rows[actor.record].state != GONE:
        return "is refused", _again(state, number)
    if actor.old:
        # That old code may write a phantom is not looked at here.
        return "writes its record", _again(state, number) if not state.there else state.row(
            actor.record, Row(READY)
        ).end(number)
    unmarked = mistake is Mistake.STALE_VALIDATION and storage.state == FREE
    if is_stale(storage, actor.noted) and not unmarked:
        return "is refused", _again(state, number)
    if mistake is Mistake.COPY_UNSEEN and storage.state == HELD and not storage.shared:
        counters = state.rows[storage.records[0]].writers
        return "reads the first record", state.act(number, actor._replace(step="copy", seen=counters))
    return "joins", joined(state, actor.record).end(number)


def _again(state: State, number: int) -> State:
    actor = state.actors[number]
    return state.act(number, actor._replace(step=START, noted=UNNOTED))


def deregister(state: State, number: int, mistake: Mistake) -> Iterator[tuple[str, State]]:
    actor = state.actors[number]
    row, storage = state.rows[actor.record], state.storage
    forced = actor.verb == "force deregister"
    if actor.step != START or not may_begin(state, mistake) or row.state != READY or storage.state != HELD:
        return
    if row.writers and not forced:
        return
    counters = storage.writers if storage.shared else row.writers
    if row.writers and mistake is Mistake.FORCE_DROPS:
        counters = 0
    others = tuple(record for record in storage.records if record != actor.record)
    if others:
        left = storage._replace(records=others, writers=counters)
    elif counters and mistake is not Mistake.LAST_DROPS:
        left = Storage(HELD, (), storage.create_until, shared=True, writers=counters, kept=True)
    else:
        left = Storage(FREE, until=storage.create_until, kept=True)
    after = state.row(actor.record, Row())._replace(storage=left, on_purpose=not others)
    yield "deregisters", after.end(number)


def delete(state: State, number: int, mistake: Mistake) -> Iterator[tuple[str, State]]:
    """Begin a delete. What follows is an operation, or nothing if others hold the storage."""
    actor = state.actors[number]
    row, storage = state.rows[actor.record], state.storage
    if row.state != READY or row.writers or actor.step not in {START, "decided"}:
        return
    if actor.old:
        if state.old:
            yield "begins", state.row(actor.record, Row(DELETING, number)).act(number, actor._replace(step="delete"))
        return
    if mistake is Mistake.FIRST_TOUCH and storage.state == ABSENT:
        storage = Storage(HELD, (actor.record,))
    if not may_begin(state, mistake) or actor.record not in storage.records:
        return
    last = storage.records == (actor.record,)
    if mistake is Mistake.DELETE_READS_BEFORE:
        if actor.step == START:
            yield "reads S", state.act(number, actor._replace(step="decided", seen=int(last)))
            return
        last = bool(actor.seen)
    if not last:
        others = tuple(record for record in storage.records if record != actor.record)
        left = storage._replace(records=others)
        yield "leaves the storage to others", state.row(actor.record, Row())._replace(storage=left).end(number)
    elif not storage.writers or mistake is Mistake.DELETE_UNCOUNTED:
        waits = NEVER if mistake is Mistake.NO_CREATE_UNTIL else storage.create_until
        leaving = Storage(LEAVING, operation=number)
        begun = state.row(actor.record, row._replace(state=DELETING, operation=number))._replace(storage=leaving)
        yield "begins", begun.act(number, actor._replace(step="delete", seen=0, create_until=waits))
