"""Every interleaving of two writers and a blocked reader, a crash allowed after any step, over the index protocol.

Each step of the model is one request of the real code to DynamoDB, atomic there as here:

| step | code |
|---|---|
| writer: look | `VolumeStore.get` in `service.volumes._existing`, `service.definitions.register` |
| writer: allocate | `IndexStore.allocate`, like all that follows called by `store.commit.Committer.commit` |
| writer: write | `Dynamo.write` of `register`, `replace_definition`, `deregistered` in `store.volumes` |
| writer: write, its answer lost | the same; the repeat is refused and `store.commit._is_mine` finds the own number |
| writer: abandon, then look again | `IndexStore.abandon`, then `build` again |
| writer: publish | `IndexStore.publish` |
| anybody: repair | `IndexStore.repair` for an entry whose writer is dead (it is older than the longest writer) |
| list: watch | the strong `IndexStore.watch` of `service.listing.list_volumes`, `Watch.now` |
| list: read each item | the strong Query of `VolumeStore.in_namespace` (or `of_plugin`, that sees no tombstones) |
| list: wait | `service.listing.current` in `service.blocking.until_changed` |
| read: get, floor, get again | `service.volumes.read`, `Watch.floor` |
| read: wait | `service.volumes.current` in `service.blocking.until_changed` |
| list or read: the time is up | `until_changed` returns, and what follows reads anew |

tests/blocking/test_steps.py holds the calls of the real code against this table.

Violations: an answer with a ModifyIndex above its index; an index of one URL that goes back; a state in which nothing
moves any more while the reader sleeps and has not seen what is stored; a state from which no rest is reachable
unless somebody dies.

Where both writers have the same to do, states that differ by which of them is where are one: nothing else in a state
names a writer, each step treats them alike, and so does what counts as a violation. Whatever way leads to a violation
in one of two such states leads to it in the other, with the writers' names exchanged.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from tests.exploring import Explored, ViolationError, explore

ABSENT: Final = 0
THERE: Final = 1
TOMBSTONE: Final = 2
DEATH: Final = "dies"


class Item(NamedTuple):
    """A volume's record: its modify_index, and whether it is there."""

    number: int = 0
    kind: int = ABSENT


class Writer(NamedTuple):
    """`todo` are (verb, key) still to do; `number` is the ticket's; `entry` stands in the index item for it."""

    todo: tuple[tuple[str, int], ...]
    step: str = "look"
    number: int = 0
    entry: int = 0
    seen: Item = Item()


class Reader(NamedTuple):
    """`known` is what the client was told, `given` the index with it, `highest` the largest that this URL answered;
    `base` and `found` belong to a read under way.
    """

    kind: str
    step: str = "start"
    known: tuple[Item, ...] = ()
    given: int = 0
    highest: int = 0
    base: int = 0
    found: tuple[Item, ...] = ()


class State(NamedTuple):
    seq: int
    published: int
    items: tuple[Item, ...]
    before: tuple[Item, ...]
    writers: tuple[Writer, ...]
    reader: Reader
    losses: int
    """How many answers of writes may still be lost."""
    cuts: int = 1
    """How many waits may still end because the time is up."""


@dataclass(frozen=True)
class Scenario:
    """What the two writers do, to the items as they are at first, and how the reader reads.

    Readers: `list`; `members`, a list that sees no tombstones; `read`, of item 0; `read after list`, of item 0 with
    the index of a list.
    """

    writers: tuple[tuple[tuple[str, int], ...], ...]
    reader: str
    items: tuple[Item, ...] = (Item(1, THERE), Item())
    losses: int = 1
    cuts: int = 1


class Explorer:
    """All states of a scenario under the protocol, or under one of its mutations."""

    def __init__(self, scenario: Scenario, mutation: str = "") -> None:
        self._scenario, self._mutation = scenario, mutation
        self._alike = len(set(scenario.writers)) == 1

    def run(self) -> Explored:
        """Raises ViolationError with the way there when the protocol does not hold."""
        return explore(self)

    def first(self) -> State:
        return State(
            seq=1,
            published=0,
            items=self._scenario.items,
            before=self._scenario.items,
            writers=tuple(Writer(todo) for todo in self._scenario.writers),
            reader=Reader(self._scenario.reader),
            losses=self._scenario.losses,
            cuts=self._scenario.cuts,
        )

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        for name, after in self._steps(state):
            yield name, self._same(after)

    def is_needed(self, name: str) -> bool:
        return not name.endswith(DEATH)

    def check(self, state: State, *, at_rest: bool) -> None:
        if at_rest and not self._wakes(state) and state.reader.known != self._shown(state):
            raise ViolationError(f"a change is missed for good: known {state.reader.known}, stored {state.items}")

    def _same(self, state: State) -> State:
        """The one of the states that mean the same which is looked at."""
        return state._replace(writers=tuple(sorted(state.writers))) if self._alike else state

    def at_rest(self, state: State) -> bool:
        moving = any(w.step != "dead" and w.todo for w in state.writers)
        return not moving and not any(w.entry for w in state.writers) and state.reader.step == "wait"

    def _shown(self, state: State) -> tuple[Item, ...]:
        if state.reader.kind == "read":
            return state.items[:1]
        return tuple(item if self._lists(state, item) else Item() for item in state.items)

    def _lists(self, state: State, item: Item) -> bool:
        return state.reader.kind != "members" or item.kind == THERE

    def _steps(self, state: State) -> Iterator[tuple[str, State]]:
        for number, writer in enumerate(state.writers):
            if writer.step == "dead":
                if writer.entry:
                    yield f"repair {number}", self._repair(state, number)
            elif writer.todo:
                for name, after in self._write(state, number, writer):
                    yield f"writer {number}: {name}", after
                yield f"writer {number}: {DEATH}", _with(state, number, writer._replace(step="dead", seen=Item()))
        for name, after in self._read(state, state.reader):
            yield f"reader: {name}", after

    # The writers.

    def _write(self, state: State, number: int, writer: Writer) -> Iterator[tuple[str, State]]:
        verb, key = writer.todo[0]
        item = state.items[key]
        match writer.step:
            case "look":
                # A register of a volume that is there is an update; what is gone cannot be changed: an error, over.
                possible = item.kind == THERE or verb == "register"
                after = writer._replace(step="allocate", seen=item) if possible else _done(writer)
                yield "looks", _with(state, number, after)
            case "allocate":
                yield "allocates", self._allocate(state, number, writer)
            case "write" if self._allowed(verb, item, writer):
                gone = Item() if self._mutation == "no tombstone" else Item(writer.number, TOMBSTONE)
                written = gone if verb == "deregister" else Item(writer.number, THERE)
                stored = state._replace(items=_put(state.items, key, written), before=_put(state.before, key, item))
                yield "writes", _with(stored, number, writer._replace(step="publish"))
                if state.losses:
                    yield "writes, the answer is lost", stored._replace(losses=state.losses - 1)
            case "write" if item.number == writer.number:
                yield "finds its own write", _with(state, number, writer._replace(step="publish"))
            case "write":
                again = "look again" if self._mutation == "the same number again" else "abandon"
                yield "is refused", _with(state, number, writer._replace(step=again, seen=Item()))
            case "look again":
                yield "looks again", _with(state, number, writer._replace(step="write", seen=item))
            case "abandon":
                yield "abandons", _with(state, number, writer._replace(step="look", number=0, entry=0))
            case "publish":
                yield "publishes", self._publish(state, number, writer)

    def _allocate(self, state: State, number: int, writer: Writer) -> State:
        given = state.seq + 1
        ready = writer._replace(step="write", number=given, entry=given)
        if self._mutation == "bump only after":
            return _with(state, number, ready._replace(entry=0))
        published = given if self._mutation == "bump only before" else state.published
        seq = given if self._mutation == "lists have the numbers of writes" else given + 1
        return _with(state._replace(seq=seq, published=published), number, ready)

    def _allowed(self, verb: str, item: Item, writer: Writer) -> bool:
        if item.number >= writer.number:
            return False
        if verb == "deregister":
            return item.kind == THERE
        if verb == "register" and writer.seen.kind != THERE:
            return item.kind != THERE
        return item == writer.seen and item.kind == THERE

    def _publish(self, state: State, number: int, writer: Writer) -> State:
        return _with(self._published(state, writer), number, _done(writer))

    def _published(self, state: State, writer: Writer) -> State:
        if self._mutation == "bump only before":
            return state
        if self._mutation == "publish the write's own number":
            return state._replace(published=max(state.published, writer.number))
        return state._replace(seq=state.seq + 1, published=state.seq + 1)

    def _repair(self, state: State, number: int) -> State:
        writer = state.writers[number]
        compared = self._mutation == "compare in repair" and state.published > writer.entry
        after = state if compared else self._published(state, writer)
        return _with(after, number, writer._replace(entry=0))

    # The reader.

    def _read(self, state: State, reader: Reader) -> Iterator[tuple[str, State]]:
        if reader.step == "wait":
            if self._wakes(state):
                yield "wakes", _reading(state, reader._replace(step="start"))
            if state.cuts:
                yield "has waited", _reading(state._replace(cuts=state.cuts - 1), reader._replace(step="start"))
        elif reader.kind == "read":
            yield self._read_one(state, reader)
        else:
            yield from self._read_list(state, reader)

    def _wakes(self, state: State) -> bool:
        reader = state.reader
        if reader.kind != "read":
            return state.published > reader.given
        own = state.items[0].number
        if own >= reader.given or self._mutation == "a read waits on its own index only":
            return own > reader.given
        return max(own, state.published) > reader.given

    def _read_list(self, state: State, reader: Reader) -> Iterator[tuple[str, State]]:
        watched = self._watch(state)
        last = self._mutation == "watch read last"
        if reader.step == "start" and not last:
            yield "watches", _reading(state, reader._replace(step="item", base=watched))
            return
        if len(reader.found) < len(state.items):
            key = len(reader.found)
            stale = self._mutation == "eventually consistent list"
            for item in {state.items[key], state.before[key]} if stale else {state.items[key]}:
                seen = item if self._lists(state, item) else Item()
                yield f"reads {key}", _reading(state, reader._replace(step="item", found=(*reader.found, seen)))
            return
        base = watched if last else reader.base
        newest = max(item.number for item in reader.found)
        index = base if self._mutation == "answer the watch only" else max(base, newest)
        yield "answers", self._answer(state, reader, index)

    def _watch(self, state: State) -> int:
        return state.published if self._mutation == "index from the publications" else state.seq

    def _read_one(self, state: State, reader: Reader) -> tuple[str, State]:
        item = state.items[0]
        match reader.step:
            case "start" if item.number:
                return "reads", self._answer(state, reader._replace(found=(item,)), item.number)
            case "start":
                return "finds nothing", _reading(state, reader._replace(step="floor"))
            case "floor":
                floor = min((w.entry - 1 for w in state.writers if w.entry), default=state.seq)
                if self._mutation == "absence has the newest index":
                    floor = state.seq
                if self._mutation == "floor read last":
                    return "reads the floor", self._answer(state, reader._replace(found=(Item(),)), floor)
                return "reads the floor", _reading(state, reader._replace(step="again", base=floor))
            case _:
                return "reads again", self._answer(state, reader._replace(found=(item,)), item.number or reader.base)

    def _answer(self, state: State, reader: Reader, index: int) -> State:
        if any(item.number > index for item in reader.found):
            raise ViolationError(f"the answer {reader.found} shows more than its index {index}")
        if index < reader.highest:
            raise ViolationError(f"the index goes back from {reader.highest} to {index}")
        told = reader._replace(step="wait", known=reader.found, given=index, highest=index, base=0, found=())
        if reader.kind == "read after list":
            told = told._replace(kind="read", known=told.known[:1], highest=0)
        return _reading(state, told)


def _done(writer: Writer) -> Writer:
    return Writer(writer.todo[1:])


def _put(items: tuple[Item, ...], key: int, item: Item) -> tuple[Item, ...]:
    return (*items[:key], item, *items[key + 1 :])


def _with(state: State, number: int, writer: Writer) -> State:
    return state._replace(writers=(*state.writers[:number], writer, *state.writers[number + 1 :]))


def _reading(state: State, reader: Reader) -> State:
    return state._replace(reader=reader)
