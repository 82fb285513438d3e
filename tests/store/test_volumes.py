"""Volumes in their table: which write is right in which state, what it leaves, and who wins when several try."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.volume import Capability, Definition, MountOptions, TopologyRequest, Volume, VolumeState
from chalicelib.store import tables
from chalicelib.store import volumes as writes
from chalicelib.store.dynamo import TransactionRefused, Write
from chalicelib.store.stores import Stores
from tests.store.conftest import raw, together

EXPIRES = 1_900_000_000
SOME = Volume(
    namespace="default",
    id="data",
    plugin_id="directory",
    definition=Definition(
        name="data", external_id="ext-1", capabilities=(Capability("single-node-writer", "file-system"),)
    ),
    sealed_secrets=b"sealed",
)
CREATING = "op-create"
EXPANDING = "op-expand"
DELETING = "op-delete"
LATER = 1_000_000
"""A number above every number that these tests reach by themselves."""


def write(stores: Stores, *wanted: Write) -> None:
    stores.dynamo.transact(wanted, token=stores.clock.new_id())


def outcome(stores: Stores, *wanted: Write) -> TransactionRefused | None:
    try:
        write(stores, *wanted)
    except TransactionRefused as exc:
        return exc
    return None


def refusal(stores: Stores, *wanted: Write) -> list[str]:
    """Labels of the writes that were refused; none when all were done."""
    refused = outcome(stores, *wanted)
    return [] if refused is None else list(refused.old)


def register(stores: Stores, volume: Volume = SOME, index: int = 10) -> Volume:
    write(stores, *writes.register(volume, index))
    return stored(stores, volume)


def stored(stores: Stores, volume: Volume = SOME) -> Volume:
    found = stores.volumes.get(volume.namespace, volume.id)
    assert found is not None
    return found


def claimed(stores: Stores, **counts: Any) -> None:
    """A ready volume with claims, as the transaction that takes one leaves it."""
    ready = replace(register(stores), access_mode="single-node-writer", attachment_mode="file-system", **counts)
    stores.dynamo.put(writes._row(ready))


def absent(stores: Stores) -> None:
    return


def gone(stores: Stores) -> None:
    write(stores, *writes.deregister(register(stores), 20, expires_at=EXPIRES))


def creating(stores: Stores) -> None:
    write(stores, writes.reserve(SOME, operation_id=CREATING, kind="create"))


def ready(stores: Stores) -> None:
    register(stores)


def expanding(stores: Stores) -> None:
    mark(stores, EXPANDING, VolumeState.READY)


def deleting(stores: Stores) -> None:
    mark(stores, DELETING, VolumeState.DELETING)


def mark(stores: Stores, operation_id: str, state: VolumeState) -> None:
    write(
        stores,
        writes.mark(register(stores), operation_id=operation_id, kind=operation_id, state=state, unclaimed=False),
    )


def read_by(stores: Stores) -> None:
    claimed(stores, readers=1)


def written_by(stores: Stores) -> None:
    claimed(stores, writers=1)


def once_claimed(stores: Stores) -> None:
    claimed(stores, past_claims=1)


STATES: tuple[Callable[[Stores], None], ...] = (
    absent, gone, creating, ready, expanding, deleting, read_by, written_by, once_claimed,
)  # fmt: skip
KEY = writes.key("default", "data")


def _read(stores: Stores) -> Volume:
    return stores.volumes.get("default", "data") or SOME


# Each write, and the states in which it is right.
WRITES: dict[str, tuple[Callable[[Stores], list[Write]], set[str]]] = {
    "reserve": (lambda s: [writes.reserve(SOME, operation_id="op-new", kind="create")], {"absent", "gone"}),
    "register": (lambda s: writes.register(SOME, LATER), {"absent", "gone"}),
    "create": (lambda s: writes.create(SOME, LATER, operation_id=CREATING), {"creating"}),
    "release_reservation": (
        lambda s: [writes.release_reservation(KEY, operation_id=CREATING, expires_at=EXPIRES)],
        {"creating"},
    ),
    "replace_definition": (
        lambda s: [writes.replace_definition(SOME, LATER, read=_read(s))],
        {"ready", "read_by", "written_by", "once_claimed"},
    ),
    "expanded": (
        lambda s: [writes.redefine(SOME, LATER, operation_id=EXPANDING, secrets=b"new")],
        {"expanding"},
    ),
    "mark": (
        lambda s: [
            writes.mark(SOME, operation_id="op-new", kind="expand", state=VolumeState.READY, unclaimed=False)
        ],
        {"ready", "read_by", "written_by", "once_claimed"},
    ),
    "mark unclaimed": (
        lambda s: [
            writes.mark(SOME, operation_id="op-new", kind="delete", state=VolumeState.DELETING, unclaimed=True)
        ],
        {"ready"},
    ),
    "unmark": (lambda s: [writes.unmark(KEY, operation_id=DELETING, calls_until=5.0)], {"deleting"}),
    "deleted": (
        lambda s: writes.delete(
            "default", "data", "directory", LATER, expires_at=EXPIRES, operation_id=DELETING
        ),
        {"deleting"},
    ),
    "deregistered": (lambda s: writes.deregister(_read(s), LATER, expires_at=EXPIRES), {"ready"}),
}  # fmt: skip


@pytest.mark.parametrize("state", STATES, ids=lambda state: str(state.__name__))
def test_every_write_is_done_in_the_states_it_is_for_and_refused_with_the_item_in_all_others(
    stores: Stores, state: Callable[[Stores], None]
) -> None:
    for name, (wanted, right_in) in WRITES.items():
        forget(stores)
        state(stores)
        before = raw(stores, "volumes", *KEY)

        refused = outcome(stores, *wanted(stores))

        assert (refused is None) == (state.__name__ in right_in), (name, state.__name__)
        assert (raw(stores, "volumes", *KEY) == before) == (refused is not None)
        if refused is not None:
            assert list(refused.old) == ["volume"]
            assert writes.volume_of(refused.old["volume"]) == stores.volumes.get("default", "data")


def forget(stores: Stores) -> None:
    for pk, sk in (KEY, (tables.members_pk("directory"), tables.member_sk("default", "data"))):
        stores.dynamo.client.delete_item(
            TableName=stores.dynamo.table("volumes"), Key={"pk": {"S": pk}, "sk": {"S": sk}}
        )


@pytest.mark.parametrize(
    ("state", "name"),
    [
        (gone, "register"),
        (ready, "replace_definition"),
        (ready, "deregistered"),
        (expanding, "expanded"),
        (deleting, "deleted"),
    ],
)
def test_a_number_that_is_not_above_the_stored_one_is_refused(
    stores: Stores, state: Callable[[Stores], None], name: str
) -> None:
    old: dict[str, Callable[[int], list[Write]]] = {
        "register": lambda t: writes.register(SOME, t),
        "replace_definition": lambda t: [writes.replace_definition(SOME, t, read=_read(stores))],
        "deregistered": lambda t: writes.deregister(_read(stores), t, expires_at=EXPIRES),
        "expanded": lambda t: [writes.redefine(SOME, t, operation_id=EXPANDING, secrets=b"")],
        "deleted": lambda t: writes.delete(
            "default", "data", "directory", t, expires_at=EXPIRES, operation_id=DELETING
        ),
    }
    state(stores)
    index = stored(stores).modify_index

    assert refusal(stores, *old[name](index - 1)) == ["volume"]
    assert refusal(stores, *old[name](index)) == ["volume"]
    assert refusal(stores, *old[name](index + 1)) == []


def test_a_create_over_a_tombstone_cannot_take_a_smaller_number(stores: Stores) -> None:
    gone(stores)
    write(stores, writes.reserve(SOME, operation_id=CREATING, kind="create"))

    assert refusal(stores, *writes.create(SOME, 20, operation_id=CREATING)) == ["volume"]
    assert refusal(stores, *writes.create(SOME, 21, operation_id=CREATING)) == []
    assert (stored(stores).create_index, stored(stores).modify_index) == (21, 21)


def test_a_reservation_keeps_the_index_of_the_tombstone_and_never_expires(stores: Stores) -> None:
    gone(stores)

    write(stores, writes.reserve(SOME, operation_id=CREATING, kind="create"))

    assert (stored(stores).state, stored(stores).modify_index) == (VolumeState.CREATING, 20)
    assert "expires_at" not in raw(stores, "volumes", *KEY)
    write(stores, writes.release_reservation(KEY, operation_id=CREATING, expires_at=EXPIRES))
    assert (stored(stores).state, stored(stores).modify_index) == (VolumeState.GONE, 20)
    assert raw(stores, "volumes", *KEY)["expires_at"] == {"N": str(EXPIRES)}


@pytest.mark.parametrize("bury", ["deregistered", "deleted"])
def test_a_tombstone_keeps_the_index_and_nothing_of_the_payload(stores: Stores, bury: str) -> None:
    ready(stores) if bury == "deregistered" else deleting(stores)
    wanted, _ = WRITES[bury]

    write(stores, *wanted(stores))

    item = raw(stores, "volumes", *KEY)
    assert {name: item[name] for name in ("state", "modify_index", "expires_at")} == {
        "state": {"S": "gone"},
        "modify_index": {"N": str(LATER)},
        "expires_at": {"N": str(EXPIRES)},
    }
    assert not {"definition", "secrets", "plugin_id", "operation_id", "access_mode"} & item.keys()
    assert not stored(stores).exists
    assert not stores.volumes.has_members("directory")


@pytest.mark.parametrize("make", ["register", "create"])
def test_a_volume_and_its_membership_come_in_one_transaction(stores: Stores, make: str) -> None:
    creating(stores) if make == "create" else absent(stores)
    assert not stores.volumes.has_members("directory")
    wanted, _ = WRITES[make]

    write(stores, *wanted(stores))

    assert stored(stores) == replace(SOME, create_index=LATER, modify_index=LATER)
    assert stores.volumes.has_members("directory")


def test_an_expansion_leaves_claims_that_came_meanwhile(stores: Stores) -> None:
    expanding(stores)
    held = stored(stores)
    stores.dynamo.put(writes._row(replace(held, readers=2, access_mode="multi-node-reader-only")))

    grown = replace(SOME, definition=replace(SOME.definition, capacity=4096))
    write(stores, writes.redefine(grown, LATER, operation_id=EXPANDING, secrets=b""))

    after = stored(stores)
    assert (after.definition.capacity, after.readers, after.access_mode) == (4096, 2, "multi-node-reader-only")
    assert (after.operation_id, after.sealed_secrets) == ("", b"sealed")


def test_an_update_is_refused_when_anybody_wrote_since_the_read(stores: Stores) -> None:
    read = register(stores)
    write(stores, writes.mark(read, operation_id="x", kind="expand", state=VolumeState.READY, unclaimed=False))
    write(stores, writes.unmark(KEY, operation_id="x", calls_until=0))

    assert refusal(stores, writes.replace_definition(SOME, LATER, read=read)) == ["volume"]


def test_a_whole_definition_comes_back_as_it_went(stores: Stores) -> None:
    full = replace(
        SOME,
        definition=Definition(
            name="data",
            external_id="ext-1",
            capabilities=SOME.definition.capabilities,
            mount_options=MountOptions("ext4", ("noatime",)),
            parameters={"type": "fast"},
            context={"a": "b"},
            topologies=({"zone": "a"}, None),
            topology_request=TopologyRequest(required=({"zone": "a"},), preferred=None),
            capacity=2**60,
            capacity_min=1,
            capacity_max=2**62,
            snapshot_id="snap",
            provider="csi",
            provider_version="1",
        ),
        create_time=1_800_000_000_123_456_789,
        modify_time=1_800_000_000_123_456_790,
        calls_until=12.5,
    )

    register(stores, full)

    assert stored(stores) == replace(full, create_index=10, modify_index=10)


def named(number: int) -> Volume:
    return replace(SOME, definition=replace(SOME.definition, name=f"{number}"))


@pytest.mark.parametrize("wanted", ["register", "reserve", "deregistered", "mark", "replace_definition"])
def test_of_several_writers_at_once_one_wins_and_the_others_see_what_it_wrote(stores: Stores, wanted: str) -> None:
    if wanted not in ("register", "reserve"):
        ready(stores)
    read = _read(stores)
    tries: dict[str, Callable[[int], list[Write]]] = {
        "register": lambda n: writes.register(named(n), 100 + n),
        "reserve": lambda n: [writes.reserve(SOME, operation_id=f"{n}", kind="create")],
        "deregistered": lambda n: writes.deregister(SOME, 100 + n, expires_at=EXPIRES + n),
        "mark": lambda n: [
            writes.mark(SOME, operation_id=f"{n}", kind="expand", state=VolumeState.READY, unclaimed=True)
        ],
        "replace_definition": lambda n: [writes.replace_definition(named(n), 100 + n, read=read)],
    }

    results = together(*(lambda n=n: write(stores, *tries[wanted](n)) for n in range(6)))

    refused = [result for result in results if isinstance(result, TransactionRefused)]
    assert results.count(None) == 1, results
    assert len(refused) == 5
    assert {writes.volume_of(exc.old["volume"]) for exc in map(_checked, refused)} == {stores.volumes.get(*KEY_PARTS)}


KEY_PARTS = ("default", "data")


def _checked(refused: TransactionRefused) -> TransactionRefused:
    assert list(refused.old) == ["volume"]
    return refused


def names(pages: Any) -> list[list[str]]:
    return [[f"{volume.namespace}.{volume.id}" for volume in page] for page in pages]


@pytest.fixture
def many(stores: Stores) -> Stores:
    """Two namespaces, two plugins; `a-2` is a tombstone."""
    for index, (namespace, volume_id, plugin_id) in enumerate(
        [
            ("default", "a-1", "directory"),
            ("default", "a-2", "directory"),
            ("default", "a-3", "other"),
            ("default", "b-1", "directory"),
            ("default-2", "a-1", "directory"),
        ]
    ):
        volume = replace(SOME, namespace=namespace, id=volume_id, plugin_id=plugin_id)
        write(stores, *writes.register(volume, index + 2))
    dead = replace(SOME, id="a-2")
    write(stores, *writes.deregister(dead, 50, expires_at=EXPIRES))
    return stores


def test_a_namespace_is_read_in_order_page_by_page_with_its_tombstones(many: Stores) -> None:
    assert names(many.volumes.in_namespace("default", limit=3)) == [
        ["default.a-1", "default.a-2", "default.a-3"],
        ["default.b-1"],
    ]
    assert names(many.volumes.in_namespace("default", prefix="a-", start="a-2")) == [["default.a-2", "default.a-3"]]
    assert names(many.volumes.in_namespace("default", prefix="b", start="a-2")) == [["default.b-1"]]
    assert names(many.volumes.in_namespace("default", start="a-22")) == [["default.a-3", "default.b-1"]]
    assert names(many.volumes.in_namespace("nowhere")) == [[]]


def test_a_plugins_volumes_are_read_by_their_memberships_in_order_of_namespace_and_id(many: Stores) -> None:
    assert names(many.volumes.of_plugin("directory", limit=2)) == [
        ["default.a-1", "default.b-1"],
        ["default-2.a-1"],
    ]
    assert names(many.volumes.of_plugin("directory", namespace="default", prefix="b")) == [["default.b-1"]]
    assert names(many.volumes.of_plugin("directory", namespace="default", start="a-2")) == [["default.b-1"]]
    assert many.volumes.has_members("other")
    assert not many.volumes.has_members("nobody")
