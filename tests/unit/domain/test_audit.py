"""What an audit calls the things it finds."""

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.clock import Clock
from chalicelib.domain.audit import Entry, Finding, Inventory, StorageKind, Verdict
from chalicelib.domain.operation import Kind, Operation, Status
from chalicelib.domain.volume import Definition, Volume, VolumeState

NOW = 1_800_000_000.0


class At(Clock):
    def __init__(self, moment: float) -> None:
        self._moment = moment

    def now(self) -> float:
        return self._moment


def storage_name(moment: float = NOW - 60, readable: str = "data") -> str:
    return f"{readable}-{At(moment).new_id()}"


def operation(status: Status, kind: Kind = Kind.CREATE_VOLUME, **fields: Any) -> Operation:
    base = Operation("op", kind, "default", "data", "directory", digest="", step="create", status=status)
    return replace(base, **fields)


def judged(inventory: Inventory, entry: Entry) -> Finding:
    return inventory.judge(entry, NOW)


@pytest.mark.parametrize(
    "external_id",
    [
        storage_name(),
        f"{storage_name(readable='my-volume-2')}-0123456789",
        f"server#share#{storage_name()}#x",
        f"pool/{storage_name()}",
        storage_name(NOW + 3600),
    ],
    ids=["plain", "with a digest", "between words", "in a path", "by a clock that is ahead"],
)
def test_an_id_that_carries_a_storage_name_of_ours_is_an_orphan(external_id: str) -> None:
    assert judged(Inventory(), Entry(StorageKind.VOLUME, external_id)).verdict is Verdict.ORPHAN


@pytest.mark.parametrize(
    "external_id",
    [
        "",
        "vol-0123456789abcdef0",
        "pvc-2f9a8d6e-3b1c-4e5f-8a7b-6c5d4e3f2a1b",
        "data-abcdefghijklmnopqrstuv",  # right letters, a time long before us
        "data-zzzzzzzzzaaaaaaaaaaaaa",  # and one in the next century
        storage_name() + "x",
        storage_name()[:-1],
        storage_name().upper(),
    ],
    ids=["empty", "AWS", "Kubernetes", "too old", "too new", "too long", "too short", "in capitals"],
)
def test_everything_else_is_of_unknown_origin(external_id: str) -> None:
    assert judged(Inventory(), Entry(StorageKind.VOLUME, external_id)).verdict is Verdict.UNKNOWN


def test_a_name_in_the_context_counts_too() -> None:
    name = storage_name()
    found = judged(Inventory(), Entry(StorageKind.VOLUME, "vol-1", words=("fast", name)))
    assert (found.verdict, found.detail) == (Verdict.ORPHAN, f"made under the name {name}")


def volume(volume_id: str, external_id: str, **fields: Any) -> Volume:
    return Volume("default", volume_id, "directory", definition=Definition(external_id=external_id), **fields)


def test_a_record_comes_before_everything() -> None:
    inventory = Inventory()
    inventory.add_operation(operation(Status.IN_DOUBT, storage_name=storage_name(), external_id="vol-1"))
    inventory.add_volumes([replace(volume("data", "vol-1"), namespace="prod")])
    found = judged(inventory, Entry(StorageKind.VOLUME, "vol-1"))
    assert (found.verdict, found.namespace, found.volume_id) == (Verdict.REGISTERED, "prod", "data")


def test_a_volume_without_an_external_id_goes_by_its_own() -> None:
    inventory = Inventory()
    inventory.add_volumes([Volume("default", "data", "directory")])
    assert judged(inventory, Entry(StorageKind.VOLUME, "data")).verdict is Verdict.REGISTERED


@pytest.mark.parametrize("status", [Status.PENDING, Status.RUNNING, Status.IN_DOUBT])
def test_an_open_operation_holds_what_it_names(status: Status) -> None:
    inventory, name = Inventory(), storage_name()
    inventory.add_operation(operation(status, storage_name=name))
    found = judged(inventory, Entry(StorageKind.VOLUME, f"{name}-0123456789"))
    assert (found.verdict, found.operation_id) == (Verdict.HELD, "op")


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (Status.FAILED, {"external_id": "vol-1"}),
        (Status.SUCCEEDED, {"result": {"external_id": "vol-1"}}),
    ],
)
def test_a_finished_create_says_whose_an_opaque_id_is(status: Status, fields: dict[str, Any]) -> None:
    inventory = Inventory()
    inventory.add_operation(operation(status, storage_name=storage_name(), **fields))
    found = judged(inventory, Entry(StorageKind.VOLUME, "vol-1"))
    assert (found.verdict, found.operation_id, found.detail) == (Verdict.ORPHAN, "op", f"create {status}")


def test_snapshots_belong_to_their_volume_or_to_who_took_them() -> None:
    inventory = Inventory()
    inventory.add_volumes([volume("data", "vol-1")])
    inventory.add_operation(operation(Status.SUCCEEDED, Kind.CREATE_SNAPSHOT, result={"id": "snap-2"}))
    inventory.add_operation(operation(Status.RUNNING, Kind.DELETE_SNAPSHOT, external_id="snap-3"))
    verdicts = {
        ("snap-1", "vol-1"): Verdict.REGISTERED,
        ("snap-2", "vol-gone"): Verdict.KEPT,
        ("snap-3", "vol-gone"): Verdict.HELD,
        ("snap-4", "vol-gone"): Verdict.UNKNOWN,
        (storage_name(), "vol-gone"): Verdict.UNKNOWN,
    }
    for (external_id, source), verdict in verdicts.items():
        assert judged(inventory, Entry(StorageKind.SNAPSHOT, external_id, source)).verdict is verdict


def test_what_is_registered_and_not_in_the_list_is_missing() -> None:
    inventory = Inventory()
    volumes = [
        volume("there", "vol-1"),
        volume("lost", "vol-2"),
        volume("going", "vol-3", state=VolumeState.DELETING, operation_id="op"),
        volume("gone", "vol-4", state=VolumeState.GONE),
    ]
    inventory.add_volumes(volumes)
    assert [(f.verdict, f.volume_id) for f in inventory.missing({"vol-1"})] == [(Verdict.MISSING, "lost")]


def test_two_records_of_one_storage_are_both_fine() -> None:
    inventory = Inventory()
    inventory.add_volumes([replace(volume("data", "vol-1"), namespace=n) for n in ("default", "prod")])
    assert list(inventory.missing({"vol-1"})) == []
    assert judged(inventory, Entry(StorageKind.VOLUME, "vol-1")).verdict is Verdict.REGISTERED
