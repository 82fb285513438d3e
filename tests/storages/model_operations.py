"""Creates, undos and removals: their calls, which may land late, and the transactions that follow.

| step | rule of protocols, 6 |
|---|---|
| calls | 4 (b), 5 (a removal waits) |
| its call lands, is rejected, or is lost | what a provider and a network may do |
| completes, or finds its answer stale | 4, 12 |
| frees its ID and begins its undo | 3. Operations, 7 |
| decides, may not decide yet, closes | 8 |
| has removed | 9 |
| has failed for good | 7 |
| is abandoned | 15 |

A worker that dies is a call that is lost: the next worker acquires the operation, and the call may still land.
"""

from collections.abc import Iterator

from tests.exploring import ViolationError
from tests.storages.model import (
    ABANDONED,
    CALL,
    CALLING,
    CREATING,
    FREE,
    GONE,
    HELD,
    LEAVING,
    NEVER,
    OK,
    READY,
    REJECTED,
    START,
    UNNOTED,
    Actor,
    Call,
    Mistake,
    Row,
    State,
    Storage,
)
from tests.storages.model_records import is_stale, joined, may_begin

CREATES = {"create", "find"}
REMOVALS = {"delete", "remove"}
LOSES = "loses its call"


def is_open(actor: Actor) -> bool:
    return actor.step in CREATES or actor.step in REMOVALS


def work(state: State, number: int, mistake: Mistake) -> Iterator[tuple[str, State]]:
    """Yield what the workers of an open operation may do."""
    actor = state.actors[number]
    if actor.answer == CALLING:
        if sum(not call.heard for call in state.calls) < state.losses:
            yield LOSES, state.unheard(number).act(number, actor._replace(answer="", noted=UNNOTED))
    elif actor.answer:
        yield _old_result(state, number) if actor.old and state.old else _result(state, number, mistake)
    elif actor.create_until < 0:
        if actor.old and state.old:
            yield _acquired(state, number)
        elif may_begin(state, mistake):
            yield _acquire(state, number, mistake)


def create(state: State, number: int, mistake: Mistake) -> Iterator[tuple[str, State]]:
    """Reserve the ID, and begin the operation."""
    actor = state.actors[number]
    if actor.step == START and state.rows[actor.record].state == GONE and may_begin(state, mistake):
        reserved = state.row(actor.record, Row(CREATING, number))
        yield "reserves its ID", reserved.act(number, actor._replace(step="create"))


def _acquire(state: State, number: int, mistake: Mistake) -> tuple[str, State]:
    """Call, unless old code began this removal and S is not leaving by it."""
    actor = state.actors[number]
    if actor.step in CREATES or not actor.old or _is_leaving_by(state, number) or mistake is Mistake.OLD_REMOVES:
        return _acquired(state, number)
    if actor.step == "remove":
        return "goes back to decide", state.act(number, actor._replace(step="find"))
    return "leaves the storage to others", state.row(actor.record, Row()).end(number)


def _acquired(state: State, number: int) -> tuple[str, State]:
    actor = state.actors[number]
    creates = actor.step in CREATES
    called = state.act(
        number,
        actor._replace(
            answer=CALLING,
            noted=0 if creates else UNNOTED,
            calls_until=CALL,
            unanswered=min(actor.unanswered + 1, 2),  # its own, and whether there are others
            sent=min(actor.sent + 1, 2),
        ),
    )
    call = Call(number, "create" if creates else "delete", CALL, heard=True)
    return f"calls to {actor.step}", called._replace(calls=tuple(sorted((*state.calls, call))))


def land(state: State, place: int) -> Iterator[tuple[str, State]]:
    """Yield what a call does at the provider when it lands."""
    call = state.calls[place]
    actor = state.actors[call.operation]
    after = state._replace(calls=(*state.calls[:place], *state.calls[place + 1 :]))
    if call.verb == "delete" and state.old and state.ready:
        # Old code may delete what others name. Only what new code does is looked at here.
        yield "the call to delete does nothing", _answered(after, call, REJECTED)
        return
    how = "lands" if call.heard else "lands late"
    changed = _created(after) if call.verb == "create" else _deleted(after)
    yield f"the call to {call.verb} {how}", _answered(changed, call, OK)
    if not (call.heard and state.rejections):
        return
    rejected = _answered(after, call, REJECTED)._replace(rejections=state.rejections - (state.rejections > 0))
    if actor.step == "create":
        yield "the call to create is rejected", rejected
        yield "the call to create is rejected, but made it", _created(rejected)
    elif actor.step in REMOVALS and state.there:
        yield "the call to delete is rejected", rejected


def _answered(state: State, call: Call, answer: str) -> State:
    actor = state.actors[call.operation]
    return state.act(call.operation, actor._replace(answer=answer)) if call.heard else state


def _created(state: State) -> State:
    return state._replace(there=True, ours=state.ours or not state.there)


def _deleted(state: State) -> State:
    if state.there and state.on_purpose:
        raise ViolationError("a storage is deleted that was deregistered on purpose")
    return state._replace(there=False, ours=False)


def _result(state: State, number: int, mistake: Mistake) -> tuple[str, State]:
    """Write what the answer in hand means."""
    actor = state.actors[number]
    match actor.step, actor.answer:
        case "create", "ok":
            return _complete(state, number, mistake)
        case "create", _:
            return _undo(state, number)
        case "find", _:
            return _decide(state, number, mistake)
        case "delete", "rejected" if actor.sent == 1:
            return _failed(state, number)
        case _, "rejected":
            return "is to be repeated", _postponed(state, number)
    if actor.step == "delete":
        state = state.row(actor.record, Row())
    if _is_leaving_by(state, number):
        calls = NEVER if mistake is Mistake.MARK_FORGETS_CALLS else _in_flight(actor)
        mark = Storage(FREE, until=max(0, calls))
        state = state._replace(storage=Storage() if mistake is Mistake.NO_MARK else mark)
    return "has removed the storage", state.end(number)


def _complete(state: State, number: int, mistake: Mistake) -> tuple[str, State]:
    actor, storage = state.actors[number], state.storage
    unmarked = mistake is Mistake.STALE_ANSWER and storage.state == FREE
    if is_stale(storage, actor.noted) and not unmarked:
        return "finds its answer stale", _postponed(state, number)
    return "completes", joined(state, actor.record, create_until=_in_flight(actor)).end(number)


def _undo(state: State, number: int) -> tuple[str, State]:
    actor = state.actors[number]
    begun = _postponed(state.row(actor.record, Row()), number)
    return "begins its undo", begun.act(number, begun.actors[number]._replace(step="find"))


def _decide(state: State, number: int, mistake: Mistake) -> tuple[str, State]:
    """Rule 8, of what the undo has found."""
    actor, storage = state.actors[number], state.storage
    if mistake is Mistake.UNDO_LOOKS:
        return ("closes", state.end(number)) if state.ready else _removal(state, number)
    closes = (storage.state == LEAVING and mistake is Mistake.UNDO_CLOSES_AT_LEAVING) or (
        storage.state == FREE and mistake is Mistake.UNDO_CLOSES_AT_FREE
    )
    if is_stale(storage, actor.noted) and not closes:
        return "may not decide yet", _postponed(state, number)
    counted = storage.records or mistake is not Mistake.UNDO_REMOVES_COUNTED
    held = storage.state == HELD and counted
    kept = storage.state == FREE and storage.kept and mistake is not Mistake.UNDO_REMOVES_KEPT
    if not (held or kept or closes):
        return _removal(state._replace(storage=Storage(LEAVING, operation=number)), number)
    if _in_flight(actor) != NEVER and mistake is not Mistake.UNDO_CLOSES_EARLY:
        return "may not close yet", _postponed(state, number)
    return "closes", state.end(number)


def _removal(state: State, number: int) -> tuple[str, State]:
    postponed = _postponed(state, number)
    actor = postponed.actors[number]
    return "decides to remove", postponed.act(
        number, actor._replace(step="remove", create_until=actor.calls_until if actor.unanswered else NEVER)
    )


def _failed(state: State, number: int) -> tuple[str, State]:
    """Rule 7. What S was held with comes back: `shared` from the record, `create_until` from the operation."""
    actor = state.actors[number]
    shared = state.rows[actor.record].shared
    held = Storage(HELD, (actor.record,), actor.create_until, shared=shared)
    return "has failed for good", state.row(actor.record, Row(READY, shared=shared))._replace(storage=held).end(number)


def _old_result(state: State, number: int) -> tuple[str, State]:
    """What code does with an answer that does not know S."""
    actor = state.actors[number]
    match actor.step, actor.answer:
        case "create", "ok":
            return "completes, by old code", state.row(actor.record, Row(READY)).end(number)
        case "create", _:
            return _undo(state, number)
        case "find", _:
            return _removal(state, number)
        case "delete", "ok":
            return "has deleted, by old code", state.row(actor.record, Row()).end(number)
        case "remove", "ok":
            return "has removed, by old code", state.end(number)
        case _:
            return "is to be repeated", _postponed(state, number)


def _postponed(state: State, number: int) -> State:
    actor = state.actors[number]
    return state.act(number, actor._replace(answer="", noted=UNNOTED, unanswered=max(actor.unanswered - 1, 0)))


def _in_flight(actor: Actor) -> int:
    """Until when calls may land that were sent before the one whose answer is in hand."""
    return actor.calls_until if actor.unanswered > 1 else NEVER


def _is_leaving_by(state: State, number: int) -> bool:
    return state.storage.state == LEAVING and state.storage.operation == number


def abandon(state: State, number: int, mistake: Mistake) -> State:
    """Rule 15. `until` is also not before the creates that the removal has waited for."""
    actor = state.actors[number]
    after = state._replace(abandons=state.abandons - 1, abandoned=True)
    if after.rows[actor.record].operation == number:
        after = after.row(actor.record, Row())
    if _is_leaving_by(state, number) and mistake is not Mistake.ABANDON_LOCKS:
        creates = NEVER if mistake is Mistake.ABANDON_FORGETS_CREATES else actor.create_until
        mark = Storage(FREE, until=max(0, creates, actor.calls_until if actor.unanswered else NEVER))
        after = after._replace(storage=Storage() if mistake is Mistake.ABANDON_FORGETS else mark)
    return after if mistake is Mistake.ABANDON_GOES_ON else after.end(number, ABANDONED)
