"""The one way to a visible change: what it does with every end that a try can have."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from chalicelib.domain.volume import Volume
from chalicelib.errors import StoreError, StoreUnavailable, Throttled, WriteConflict
from chalicelib.store import volumes
from chalicelib.store.commit import PAUSE, TRIES, Change, Commit, Committer, RefusedWrites, Writes
from chalicelib.store.dynamo import Dynamo, Write
from chalicelib.store.index import MEMBERS, volume_scope
from chalicelib.store.stores import Stores
from tests.store.conftest import raw, together
from tests.store.test_volumes import SOME, stored

SCOPE = volume_scope("default")


def registers(volume: Volume = SOME) -> Writes:
    return lambda index: volumes.register(volume, index)


def once(writes: Writes) -> Callable[[RefusedWrites], Change[str]]:
    return lambda _: Change("done", writes)


def pending(stores: Stores) -> list[str]:
    """Indexes that were allocated and neither published nor abandoned."""
    return [name for name in raw(stores, "meta", "index", "index") if name.startswith("pend#")]


class Dynamos(Dynamo):
    """The stores' client, with a say in what becomes of each write."""

    def __init__(self, stores: Stores, *does: Callable[[Callable[[], None]], None]) -> None:
        self.__dict__.update(stores.dynamo.__dict__)
        self.does = list(does)
        self.wrote: list[list[str]] = []

    def write(self, writes: Sequence[Write], *, token: str) -> None:
        self.wrote.append([write.label for write in writes])
        token += "x" * len(self.does)

        def send() -> None:
            super(Dynamos, self).write(writes, token=token)

        self.does.pop(0)(send) if self.does else send()


def committer(stores: Stores, dynamo: Dynamo, *listeners: Callable[[Commit], None]) -> Committer:
    return Committer(dynamo, stores.index, stores.clock, listeners=listeners)


def test_a_listener_that_fails_does_not_fail_the_change(stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Commit) -> None:
        raise ValueError("no")

    heard: list[Commit] = []
    index, result = committer(stores, stores.dynamo, fail, heard.append).commit(
        SCOPE, MEMBERS, build=once(registers()), what="volume data"
    )
    assert (index, result) == (stored(stores).modify_index, "done")
    assert [commit.index for commit in heard] == [index], "the next listener is called"
    assert f"index {index}" in caplog.text


def test_a_change_is_written_under_its_index_published_and_told(stores: Stores) -> None:
    heard: list[Commit] = []
    index, result = committer(stores, stores.dynamo, heard.append).commit(
        SCOPE, MEMBERS, build=once(registers()), what="volume data"
    )
    assert (index, result) == (stored(stores).modify_index, "done")
    watch = stores.index.watch()
    assert min(watch.of(SCOPE), watch.of(MEMBERS)) > index
    (told,) = heard
    assert (told.index, told.scopes, told.tries) == (index, (SCOPE, MEMBERS), 1)
    assert [(w.label, w.key) for w in told.writes] == [
        ("volume", ("ns#default", "data")),
        ("member", ("plugin#directory", "default#data")),
    ]
    assert pending(stores) == []


def test_a_refused_try_is_built_anew_from_what_refused_it_under_another_index(stores: Stores) -> None:
    first, _ = stores.committer.commit(SCOPE, build=once(registers()), what="volume data")
    seen: list[RefusedWrites] = []

    def build(refused: RefusedWrites) -> Change[str]:
        seen.append(refused)
        found = volumes.volume_of(refused.get("volume"))
        if found is None:
            return Change("new", registers())
        return Change("updated", lambda index: [volumes.replace_definition(found, index, read=found)])

    index, result = stores.committer.commit(SCOPE, build=build, what="volume data")
    assert (index, result) == (stored(stores).modify_index, "updated")
    assert index > first
    assert [list(refused) for refused in seen] == [[], ["volume"]]
    assert pending(stores) == []


@pytest.mark.parametrize("alone", [False, True], ids=["transaction", "single write"])
def test_a_write_whose_answer_was_lost_is_known_by_its_own_index(stores: Stores, alone: bool) -> None:
    def loses_the_answer(send: Callable[[], None]) -> None:
        send()
        dynamo.does.append(lambda again: again())  # another token: nothing but the item tells whose write it was
        send()

    dynamo = Dynamos(stores, loses_the_answer)
    if alone:
        stores.committer.commit(SCOPE, build=once(registers()), what="volume data")
    read = stored(stores) if alone else SOME
    writes: Writes = (lambda index: [volumes.replace_definition(read, index, read=read)]) if alone else registers()
    index, _ = committer(stores, dynamo).commit(SCOPE, build=once(writes), what="volume data")
    assert len(dynamo.wrote) == 1
    assert stored(stores).modify_index == index
    assert stores.index.watch().of(SCOPE) > index


def test_a_single_delete_that_finds_nothing_has_had_its_effect(stores: Stores) -> None:
    from chalicelib.store import namespaces

    index, _ = stores.committer.commit("namespaces", build=once(lambda _: [namespaces.remove("gone")]), what="it")
    assert stores.index.watch().of("namespaces") > index


def test_one_that_is_refused_for_ever_says_what_was_in_the_way_and_leaves_nothing(stores: Stores) -> None:
    stores.committer.commit(SCOPE, build=once(registers()), what="volume data")
    began, published = stores.clock.now(), stores.index.watch().of(SCOPE)
    with pytest.raises(WriteConflict, match="volume data is being changed by others: try again in a moment"):
        stores.committer.commit(SCOPE, build=once(registers()), what="volume data")
    assert pending(stores) == []
    assert stores.index.watch().of(SCOPE) == published
    assert stores.clock.now() - began <= 12 * PAUSE * TRIES


@pytest.mark.parametrize("error", [Throttled("busy"), WriteConflict("busy")], ids=["throttled", "conflict"])
def test_what_was_surely_not_written_leaves_no_index_behind(stores: Stores, error: StoreError) -> None:
    def refuse(_: Callable[[], None]) -> None:
        raise error

    with pytest.raises(type(error)):
        committer(stores, Dynamos(stores, refuse)).commit(SCOPE, build=once(registers()), what="volume data")
    assert pending(stores) == []
    assert stores.volumes.get("default", "data") is None


def test_the_index_of_what_may_have_been_written_is_kept_for_the_repair(stores: Stores) -> None:
    def no_answer(send: Callable[[], None]) -> None:
        send()
        raise StoreUnavailable("no answer")

    with pytest.raises(StoreUnavailable):
        committer(stores, Dynamos(stores, no_answer)).commit(SCOPE, build=once(registers()), what="volume data")
    assert len(pending(stores)) == 1
    assert stored(stores).modify_index > stores.index.watch().of(SCOPE)
    assert stores.index.repair(stores.clock.now() + 24 * 3600) == 1
    assert stored(stores).modify_index < stores.index.watch().of(SCOPE)


def test_what_no_client_sees_gets_no_index_and_nothing_to_write_costs_nothing(stores: Stores) -> None:
    before = stores.index.watch()
    dynamo = Dynamos(stores)
    mark = volumes.reserve(SOME, operation_id="o", kind="create")
    invisible: Change[Any] = Change("marked", lambda index: [mark] if index == 0 else [], visible=False)
    assert committer(stores, dynamo).commit(SCOPE, build=lambda _: invisible, what="it") == (0, "marked")
    assert committer(stores, dynamo).commit(SCOPE, build=lambda _: Change("found"), what="it") == (0, "found")
    assert dynamo.wrote == [["volume"]]
    assert stores.index.watch() == before


def test_a_visible_change_without_scopes_is_a_fault_of_ours(stores: Stores) -> None:
    with pytest.raises(ValueError, match="must name the scopes"):
        stores.committer.commit(build=once(registers()), what="it")
    assert stores.volumes.get("default", "data") is None


def test_a_builder_that_gives_up_has_allocated_nothing(stores: Stores) -> None:
    def gives_up(_: RefusedWrites) -> Change[str]:
        raise StoreUnavailable("no more")

    before = stores.index.watch()
    with pytest.raises(StoreUnavailable):
        stores.committer.commit(SCOPE, build=gives_up, what="it")
    assert stores.index.watch() == before


def test_many_at_once_all_come_through(stores: Stores) -> None:
    """Each counts the revision up from what it read: none is lost, and each has an index of its own."""
    stores.committer.commit(SCOPE, build=once(registers()), what="volume data")

    def build(_: RefusedWrites) -> Change[str]:
        read = stored(stores)
        return Change("", lambda index: [volumes.replace_definition(read, index, read=read)])

    before = stored(stores).revision
    results = together(*[lambda: stores.committer.commit(SCOPE, build=build, what="volume data")] * 16)
    assert all(isinstance(result, tuple) for result in results), results
    assert len({result[0] for result in results}) == 16
    assert stored(stores).revision == before + 16
    assert pending(stores) == []
