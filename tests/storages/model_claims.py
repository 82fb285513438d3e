"""Claims of records, which all write, and the recount.

| step | rule of protocols, 6 |
|---|---|
| reads its record, takes its claim | 13 |
| reads its record, releases | 13, 11 (a record that is gone) |
| reads S, reads claims, writes counters | 12 |

The access mode admits one writer, so at most one claim may be there.
"""

from collections.abc import Iterator

from tests.exploring import ViolationError
from tests.storages.model import (
    CLAIMED,
    DONE,
    FREE,
    HELD,
    READY,
    START,
    Actor,
    Mistake,
    State,
    Storage,
)


def claim(state: State, number: int, mistake: Mistake) -> Iterator[tuple[str, State]]:
    actor = state.actors[number]
    row = state.rows[actor.record]
    match actor.step:
        case "start" if row.state == READY and (state.old or not actor.old):
            yield "reads its record", state.act(number, actor._replace(step="take", seen=_seen(state, actor)))
        case "take":
            yield _take(state, number, mistake)
        case "claimed":
            yield "reads its record", state.act(number, actor._replace(step="release", seen=_seen(state, actor)))
        case "release":
            yield _release(state, number, mistake)


def _seen(state: State, actor: Actor) -> int:
    return int(state.rows[actor.record].shared and not actor.old)


def _take(state: State, number: int, mistake: Mistake) -> tuple[str, State]:
    actor, storage = state.actors[number], state.storage
    row = state.rows[actor.record]
    again = state.act(number, actor._replace(step=START, seen=0, departed=False))
    as_read = actor.seen == _seen(state, actor) or mistake is Mistake.SHARED_UNSEEN
    if row.state != READY or actor.departed or not as_read:
        return "is overtaken", again
    if (storage.writers if actor.seen else row.writers) > 0:
        return "is refused", again
    if state.claims and state.gate:
        raise ViolationError(f"{actor.name}: two claims of one storage write")
    if actor.seen:
        state = state._replace(storage=storage._replace(writers=storage.writers + 1))
    taken = state.row(actor.record, row._replace(writers=row.writers + 1))
    return "takes its claim", taken.act(number, actor._replace(step=CLAIMED, seen=0))


def _release(state: State, number: int, mistake: Mistake) -> tuple[str, State]:
    actor, storage = state.actors[number], state.storage
    row = state.rows[actor.record]
    counted = storage._replace(writers=max(storage.writers - 1, 0))
    if actor.departed:
        if counted.state == HELD and not counted.records and not counted.writers:
            counted = Storage(FREE, until=storage.create_until, kept=True)
        return "releases", state._replace(storage=counted).end(number)
    if actor.seen != _seen(state, actor) and mistake is not Mistake.RELEASE_UNSEEN:
        return "is overtaken", state.act(number, actor._replace(step=CLAIMED, seen=0))
    if actor.seen:
        state = state._replace(storage=counted)
    return "releases", state.row(actor.record, row._replace(writers=row.writers - 1)).end(number)


def recount(state: State, number: int, mistake: Mistake) -> Iterator[tuple[str, State]]:
    """Read S, then the claims of its records one record after the other, then write under the version of S."""
    actor, storage = state.actors[number], state.storage
    if actor.step == START:
        if storage.state == HELD and storage.shared:
            yield "reads S", state.act(number, actor._replace(step="count", version=storage.version, changed=False))
    elif actor.step == "count" and actor.place < len(state.rows):
        found = sum(other.record == actor.place for other in state.actors if is_claimed(other))
        read = actor._replace(place=actor.place + 1, seen=actor.seen + found)
        yield f"reads the claims of {'ABC'[actor.place]}", state.act(number, read)
    elif actor.step == "count":
        as_read = storage.version == actor.version if mistake is Mistake.VERSION_TWICE else not actor.changed
        if as_read and storage.state == HELD and storage.shared:
            yield "writes the counters", _counted(state, actor.seen).end(number)
        else:
            yield "is overtaken", state.end(number, DONE)


def _counted(state: State, writers: int) -> State:
    storage = state.storage
    if not writers and not storage.records:
        return state._replace(storage=Storage(FREE, until=storage.create_until, kept=True))
    return state._replace(storage=storage._replace(writers=writers))


def is_claimed(actor: Actor) -> bool:
    return actor.verb == "claim" and actor.step in {CLAIMED, "release"}
