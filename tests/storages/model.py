"""The state of the model: one storage at one plugin, its item S, the records that name it, and the actors.

Times are relative to now, which is 0. A call may land up to one tick after it was sent (CALL). Times that no later
comparison can tell apart are made equal, so there are few of them, and an endless history has finitely many states.

A transaction that demands what was read before it under a version is one step with that read: if the version moved,
it is refused and begins anew. Only a read that a transaction does not demand, or a mistake does not, is its own step.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

CALL: Final = 1
"""Ticks from sending a call to the last moment at which it may land: its deadline and the grace."""
NEVER: Final = -9
"""A time before all others: nothing may land any more, or nothing was removed."""
UNNOTED: Final = -99
NOBODY: Final = -1

ABSENT, HELD, LEAVING, FREE = "absent", "held", "leaving", "free"
GONE, CREATING, READY, DELETING = "gone", "creating", "ready", "deleting"
START, DONE, ABANDONED, CLAIMED = "start", "done", "abandoned", "claimed"
CALLING, OK, REJECTED = "calling", "ok", "rejected"


class Mistake(StrEnum):
    """What does not hold: rules of docs/protocols.md, section 6, as one could get them wrong."""

    NONE = ""
    UNDO_LOOKS = "an undo only looks whether a record exists, then deletes"
    STALE_ANSWER = "an answer from before a removal"
    STALE_VALIDATION = "a validation from before a removal"
    NO_MARK = "a delete closes without a mark `free until`"
    MARK_FORGETS_CALLS = "a mark forgets calls that may still land"
    UNDO_CLOSES_AT_LEAVING = "an undo sees `leaving` and closes"
    UNDO_CLOSES_AT_FREE = "an undo sees `free until` and closes"
    UNDO_CLOSES_EARLY = "an undo closes while its own older call may land"
    NO_CREATE_UNTIL = "a removal forgets `create_until`"
    UNDO_REMOVES_KEPT = "an undo removes what was deregistered on purpose"
    UNDO_REMOVES_COUNTED = "an undo removes what a departed claim is on"
    LEAVING_EXPIRES = "`leaving` expires"
    ABANDON_FORGETS = "an abandon leaves nothing behind"
    ABANDON_FORGETS_CREATES = "an abandon forgets `create_until`"
    ABANDON_GOES_ON = "an operation goes on after it was abandoned"
    ABANDON_LOCKS = "an abandon leaves `leaving` behind"
    FORCE_DROPS = "forced deregistration drops counters"
    LAST_DROPS = "the last deregistration drops the counters of departed records"
    VERSION_TWICE = "a version of S is used twice"
    SHARED_UNSEEN = "a claim is not conditioned on `shared`"
    RELEASE_UNSEEN = "a release is not conditioned on `shared`"
    COPY_UNSEEN = "counters are copied without the record's version"
    DELETE_READS_BEFORE = "a delete decides by an earlier read of `records`"
    DELETE_UNCOUNTED = "a delete does not look at the counters of S"
    FIRST_TOUCH = "building S at the first touch"
    NO_GATE = "a sweep beside old code, without a gate"
    SWEEP_BESIDE = "a sweep beside old code"
    OLD_REMOVES = "new code goes on with a removal that old code decided"


class Storage(NamedTuple):
    """S."""

    state: str = ABSENT
    records: tuple[int, ...] = ()
    create_until: int = NEVER
    shared: bool = False
    writers: int = 0
    operation: int = NOBODY
    until: int = NEVER
    kept: bool = False
    version: int = 0
    """Counted only under VERSION_TWICE."""


class Row(NamedTuple):
    """A volume's record. All records of a model name the one storage."""

    state: str = GONE
    operation: int = NOBODY
    shared: bool = False
    writers: int = 0


class Actor(NamedTuple):
    """A request with its operation, or a claim. An operation's number is its actor's."""

    verb: str
    record: int
    step: str = START
    answer: str = ""
    """Of the call in hand: none, not yet, or what it says."""
    noted: int = UNNOTED
    """b, of what is in hand."""
    calls_until: int = NEVER
    unanswered: int = 0
    sent: int = 0
    create_until: int = NEVER
    """Until when creates may land that this removal waits for."""
    seen: int = 0
    """What an earlier read showed: a sum of claims, or whether the record is shared."""
    place: int = 0
    """The next record whose claims a recount reads."""
    version: int = 0
    """Of S as it was read. Counted only under VERSION_TWICE."""
    changed: bool = False
    """Whether S has changed since it was read."""
    departed: bool = False
    """Whether the record of this claim is gone, whatever has its ID now."""
    old: bool = False
    """Whether old code began it."""
    again: bool = False
    """Whether it may begin anew when it is done."""

    @property
    def name(self) -> str:
        return f"{self.verb} {'ABC'[self.record]}"


class Call(NamedTuple):
    """A call on its way to the provider. Nobody hears its answer if its worker is dead."""

    operation: int
    verb: str
    until: int
    heard: bool


class State(NamedTuple):
    there: bool
    """Whether the storage exists at the provider."""
    ours: bool
    """Whether a create made it."""
    on_purpose: bool
    """Whether its last record was deregistered, and it has none since."""
    abandoned: bool
    """Whether an abandoned operation names it: a create for good, a removal until it has a record again."""
    storage: Storage
    rows: tuple[Row, ...]
    actors: tuple[Actor, ...]
    calls: tuple[Call, ...]
    losses: int
    rejections: int
    abandons: int
    gate: bool
    old: bool
    swept: int

    @property
    def ready(self) -> tuple[int, ...]:
        return tuple(record for record, row in enumerate(self.rows) if row.state == READY)

    @property
    def claims(self) -> int:
        return sum(actor.verb == "claim" and actor.step in {CLAIMED, "release"} for actor in self.actors)

    def act(self, number: int, actor: Actor) -> "State":
        return self._replace(actors=(*self.actors[:number], actor, *self.actors[number + 1 :]))

    def end(self, number: int, step: str = DONE) -> "State":
        """End the actor, and nothing of it is remembered. A call of it that is under way has no worker any more."""
        actor = self.actors[number]
        step = START if actor.again and step == DONE else step
        return self.unheard(number).act(number, Actor(actor.verb, actor.record, step, again=actor.again))

    def unheard(self, number: int) -> "State":
        calls = (call._replace(heard=False) if call.operation == number else call for call in self.calls)
        return self._replace(calls=tuple(sorted(calls)))

    def row(self, record: int, row: Row) -> "State":
        return self._replace(rows=(*self.rows[:record], row, *self.rows[record + 1 :]))


def ticked(state: State) -> State | None:
    """Return the state one tick later. None if a worker would wait for longer than its call can take."""
    if any(call.heard and call.until <= 0 for call in state.calls):
        return None
    storage = state.storage._replace(
        until=_earlier(state.storage.until), create_until=_earlier(state.storage.create_until)
    )
    actors = tuple(
        actor._replace(
            noted=_earlier(actor.noted),
            calls_until=_earlier(actor.calls_until),
            create_until=_earlier(actor.create_until),
        )
        for actor in state.actors
    )
    calls = tuple(call._replace(until=call.until - 1) for call in state.calls if call.until > 0)
    return state._replace(storage=storage, actors=actors, calls=calls)


def _earlier(time: int) -> int:
    return time - 1 if time > NEVER else time


def settled(before: State, after: State) -> State:
    """Return `after` with what its transaction did to the reads of others, and with its times made few."""
    left = () if after.rows is before.rows else _left(before.rows, after.rows)
    written = after.storage is not before.storage and after.storage != before.storage
    if written or left:
        after = after._replace(actors=tuple(_overtaken(actor, left, written=written) for actor in after.actors))
    return _with_few_times(after)


def _left(before: tuple[Row, ...], after: tuple[Row, ...]) -> tuple[int, ...]:
    return tuple(n for n, row in enumerate(after) if row.state == GONE and before[n].state == READY)


def _overtaken(actor: Actor, left: tuple[int, ...], *, written: bool) -> Actor:
    if written and actor.step in {"copy", "count"}:
        return actor._replace(changed=True)
    if actor.record in left and actor.step in {"take", CLAIMED, "release"}:
        return actor._replace(departed=True)
    return actor


def _with_few_times(state: State) -> State:
    storage = state.storage
    limits = {t for t in (storage.until, storage.create_until, *(a.create_until for a in state.actors)) if t < 0}
    notes = {actor.noted for actor in state.actors if actor.noted < 0}
    rank = _ranks(sorted(limits - {NEVER}), sorted(notes - {UNNOTED}))
    if not rank and not any(_has_drained(actor) for actor in state.actors):
        return state
    until, create_until = rank.get(storage.until, storage.until), rank.get(storage.create_until, storage.create_until)
    storage = storage._replace(until=until, create_until=create_until)
    return state._replace(storage=storage, actors=tuple(_forgetting(actor, rank) for actor in state.actors))


def _has_drained(actor: Actor) -> bool:
    return actor.calls_until != NEVER and (actor.calls_until < 0 or not actor.unanswered)


def _forgetting(actor: Actor, rank: Mapping[int, int]) -> Actor:
    if rank and (actor.noted < 0 or actor.create_until < 0):
        noted, create_until = rank.get(actor.noted, actor.noted), rank.get(actor.create_until, actor.create_until)
        actor = actor._replace(noted=noted, create_until=create_until)
    return actor._replace(calls_until=NEVER, unanswered=0) if _has_drained(actor) else actor


def _ranks(limits: list[int], notes: list[int]) -> dict[int, int]:
    """Number the past times so that each note compares with each limit as before (`limit >= note`).

    A note that no limit reaches is as good as one of now, and a limit that reaches no note as good as NEVER.
    """
    if not limits and not notes:
        return {}
    reached = {note: next((limit for limit in limits if limit >= note), 0) for note in notes}
    classes = sorted({limit for limit in reached.values() if limit})
    number = {limit: place - len(classes) for place, limit in enumerate(classes)}
    ranks = {note: number.get(limit, 0) for note, limit in reached.items()}
    for limit in limits:
        below = [number[one] for one in classes if one <= limit]
        ranks[limit] = below[-1] if below else NEVER
    return ranks
