"""The index: numbers only grow, every write that allocates is published or repaired, the floor is below what is under
way.
"""

from chalicelib.store.index import NODES, PLUGINS, REPAIR_AFTER, VOLUME_SCOPES, Watch, volume_scope
from chalicelib.store.stores import Stores
from tests.store.conftest import raw, together

SCOPE = volume_scope("default")
NOW = 1_800_000_000.0


def entries(stores: Stores) -> list[str]:
    """What is left of writes under way."""
    item = raw(stores, "meta", "index", "index")
    return sorted(name for name in item if name.startswith(("pend#", "at#")))


def test_before_any_write_every_index_is_1_and_the_first_write_is_above_it(stores: Stores) -> None:
    before = stores.index.watch()

    ticket = stores.index.allocate(SCOPE, name="a", now=NOW)

    assert (before.now, before.floor(SCOPE), before.of(SCOPE), before.of_volumes("*")) == (1, 1, 0, 0)
    assert ticket.index == 2


def test_a_write_is_under_way_from_its_allocation_to_its_publication(stores: Stores) -> None:
    ticket = stores.index.allocate(SCOPE, NODES, name="a", now=NOW)
    during = stores.index.watch()
    published = stores.index.publish(ticket)
    after = stores.index.watch()

    assert during.writing == [((SCOPE, NODES), ticket.index)]
    assert during.of(SCOPE) == 0
    assert published > ticket.index
    assert (after.of(SCOPE), after.of(NODES), after.of(PLUGINS)) == (published, published, 0)
    assert after.writing == []
    assert entries(stores) == []


def test_a_refused_write_leaves_nothing_and_publishes_nothing(stores: Stores) -> None:
    stores.index.abandon(stores.index.allocate(SCOPE, name="a", now=NOW))

    assert stores.index.watch().published == {}
    assert entries(stores) == []


def test_a_lists_index_is_never_that_of_a_write_which_it_may_not_have_seen(stores: Stores) -> None:
    ticket = stores.index.allocate(SCOPE, name="a", now=NOW)
    during = stores.index.watch().now
    stores.index.publish(ticket)

    assert ticket.index < during < stores.index.watch().now


def test_publishing_again_takes_a_fresh_number(stores: Stores) -> None:
    ticket = stores.index.allocate(SCOPE, name="a", now=NOW)

    assert stores.index.publish(ticket) < stores.index.publish(ticket) == stores.index.watch().of(SCOPE)


def test_the_floor_is_below_every_write_under_way_in_that_scope_only(stores: Stores) -> None:
    first = stores.index.allocate(SCOPE, name="first", now=NOW)
    second = stores.index.allocate(SCOPE, name="second", now=NOW)
    stores.index.publish(second)

    during = stores.index.watch()
    stores.index.publish(first)
    after = stores.index.watch()

    assert during.floor(SCOPE) == max(first.index - 1, 1)
    assert during.floor(NODES) == during.seq == during.now
    assert after.floor(SCOPE) == after.seq > during.floor(SCOPE)


def test_nothing_is_repaired_while_its_writer_may_live(stores: Stores) -> None:
    stores.index.allocate(SCOPE, name="a", now=NOW)

    assert stores.index.repair(NOW + REPAIR_AFTER) == 0
    assert stores.index.watch().of(SCOPE) == 0
    assert len(entries(stores)) == 2


def test_what_a_dead_writer_left_is_published_even_if_the_scope_shows_a_larger_number(stores: Stores) -> None:
    stores.index.allocate(SCOPE, name="dead", now=NOW)
    stores.index.allocate(NODES, PLUGINS, name="dead too", now=NOW)
    larger = stores.index.publish(stores.index.allocate(SCOPE, name="alive", now=NOW + 600))

    repaired = stores.index.repair(NOW + REPAIR_AFTER + 1)

    watch = stores.index.watch()
    assert repaired == 2
    assert watch.of(SCOPE) > larger
    assert watch.of(NODES) == watch.of(PLUGINS) > 0
    assert entries(stores) == []
    assert stores.index.repair(NOW + 2 * REPAIR_AFTER) == 0


def test_no_number_is_given_out_twice(stores: Stores) -> None:
    def write(writer: int) -> list[int]:
        numbers = []
        for count in range(10):
            ticket = stores.index.allocate(SCOPE, name=f"{writer}x{count}", now=NOW)
            numbers += [ticket.index, stores.index.publish(ticket)]
        return numbers

    given = together(*(lambda writer=writer: write(writer) for writer in range(8)))

    numbers = [number for numbers in given for number in numbers]
    assert len(numbers) == len(set(numbers)) == 160
    assert all(numbers == sorted(numbers) for numbers in given)
    assert stores.index.watch().of(SCOPE) == max(numbers)
    assert entries(stores) == []


def test_namespaces_share_a_bounded_number_of_scopes_and_star_is_all_of_them() -> None:
    scopes = {volume_scope(f"team-{number}") for number in range(500)}
    watch = Watch(9, {volume_scope("a"): 5, volume_scope("default"): 7, PLUGINS: 9})

    assert len(scopes) == VOLUME_SCOPES
    assert (watch.of_volumes("a"), watch.of_volumes("default"), watch.of_volumes("*")) == (5, 7, 7)
