"""Namespaces: written by who read them last, and checked in the transaction that makes something in them."""

from dataclasses import replace

import pytest

from chalicelib.domain.volume import Volume
from chalicelib.store import namespaces
from chalicelib.store.dynamo import TransactionRefused
from chalicelib.store.namespaces import Namespace, NamespaceState, must_exist
from chalicelib.store.stores import Stores
from chalicelib.store.volumes import reserve
from tests.store.conftest import together
from tests.store.test_volumes import SOME, refusal, write

TEAM = Namespace("team", {"Description": "ours", "Meta": {"k": "ä"}}, create_index=5, modify_index=5)
DELETING = replace(TEAM, state=NamespaceState.DELETING)


def test_a_namespace_comes_back_as_it_went_and_default_needs_no_record(stores: Stores) -> None:
    assert stores.namespaces.put(TEAM, read=None)

    assert stores.namespaces.get("team") == TEAM
    assert stores.namespaces.get("default") is None
    assert [stores.namespaces.exists(name) for name in ("team", "default", "nobody")] == [True, True, False]


def test_it_is_written_only_as_it_was_read(stores: Stores) -> None:
    newer = replace(TEAM, modify_index=9)

    assert stores.namespaces.put(TEAM, read=None)
    assert not stores.namespaces.put(TEAM, read=None)
    assert stores.namespaces.put(newer, read=TEAM)
    assert not stores.namespaces.put(replace(TEAM, modify_index=10), read=TEAM)
    assert stores.namespaces.get("team") == newer


def test_of_several_writers_at_once_one_wins(stores: Stores) -> None:
    stores.namespaces.put(TEAM, read=None)

    results = together(
        *(lambda n=n: stores.namespaces.put(replace(TEAM, modify_index=6 + n), read=TEAM) for n in range(5))
    )

    assert sorted(results) == [False] * 4 + [True]


def test_only_a_marked_one_is_removed_and_a_marked_one_does_not_exist_for_creates(stores: Stores) -> None:
    stores.namespaces.put(TEAM, read=None)

    assert not stores.dynamo.try_write(namespaces.remove("team"))
    assert stores.namespaces.put(DELETING, read=TEAM)
    assert not stores.namespaces.exists("team")
    assert stores.dynamo.try_write(namespaces.remove("team"))
    assert stores.namespaces.get("team") is None


def test_they_are_listed_in_order_by_prefix(stores: Stores) -> None:
    for name in ("team-b", "other", "team-a"):
        stores.namespaces.put(replace(TEAM, name=name), read=None)

    assert [n.name for n in stores.namespaces.all()] == ["other", "team-a", "team-b"]
    assert [n.name for n in stores.namespaces.all(prefix="team")] == ["team-a", "team-b"]


@pytest.mark.parametrize("state", ["missing", "deleting", "active"])
def test_nothing_is_made_in_a_namespace_that_is_missing_or_being_deleted(stores: Stores, state: str) -> None:
    if state != "missing":
        stores.namespaces.put(TEAM if state == "active" else DELETING, read=None)
    wanted = replace(SOME, namespace="team")
    reservation = reserve(wanted, operation_id="op", kind="create")

    if state == "active":
        write(stores, reservation, *must_exist("team"))
        assert stores.volumes.get("team", "data") is not None
        return
    with pytest.raises(TransactionRefused) as refused:
        write(stores, reservation, *must_exist("team"))
    assert list(refused.value.old) == ["namespace"]
    assert stores.volumes.get("team", "data") is None
    assert must_exist("default") == []


def test_of_a_delete_and_a_create_at_once_the_create_is_seen_or_refused(stores: Stores) -> None:
    """The delete marks, then reads the volumes; the create checks the mark in its own transaction."""
    for round_number in range(8):
        name = f"team-{round_number}"
        active = replace(TEAM, name=name)
        stores.namespaces.put(active, read=None)
        wanted = replace(SOME, namespace=name)

        def delete(active: Namespace = active) -> bool:
            stores.namespaces.put(replace(active, state=NamespaceState.DELETING), read=active)
            return any(stores.volumes.in_namespace(active.name).__next__())

        def create(wanted: Volume = wanted) -> bool:
            reservation = reserve(wanted, operation_id="op", kind="create")
            return not refusal(stores, reservation, *must_exist(wanted.namespace))

        seen, made = together(delete, create)

        assert seen == made, (seen, made)
