"""Volumes on real parts: proxy, gateway, functions, tables, queue, bridge with mutual TLS, plugin, a folder on disk."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest

from infra.local import private
from tests.e2e.api import Reply, answered, create, kill_workers, request, stored, wait_for
from tests.shared import Shared

pytestmark = [pytest.mark.e2e, pytest.mark.enable_socket, pytest.mark.timeout(600)]


@pytest.fixture
def system(shared: Shared) -> private.System:
    return shared.system


def test_a_volume_from_create_to_delete(system: private.System) -> None:
    made = create(system, "data", RequestedCapacityMin=1024)
    assert made.status == 200, made.text
    external_id = made.json["Volumes"][0]["ExternalID"]
    assert [path.name for path in stored(system)] == [external_id]

    read = request(system, "GET", "/v1/volume/csi/data")
    assert read.json["ExternalID"] == external_id
    assert int(read.headers["x-nomad-index"]) == read.json["ModifyIndex"]
    listed = request(system, "GET", "/v1/volumes?type=csi")
    assert [v["ID"] for v in listed.json] == ["data"]

    assert request(system, "DELETE", "/v1/volume/csi/data/delete").status == 200
    assert stored(system) == []
    assert request(system, "GET", "/v1/volume/csi/data").status == 404
    assert request(system, "GET", "/v1/volumes?type=csi").json == []


def test_register_and_deregister_leave_the_storage_alone(system: private.System) -> None:
    external_id = create(system, "kept").json["Volumes"][0]["ExternalID"]
    assert request(system, "DELETE", "/v1/volume/csi/kept").status == 200
    assert [path.name for path in stored(system)] == [external_id]

    capability = {"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}
    known = {"ID": "again", "Name": "again", "PluginID": "directory", "ExternalID": external_id}
    body = {"Volumes": [known | {"RequestedCapabilities": [capability]}]}
    assert request(system, "PUT", "/v1/volume/csi/again", body).status == 200
    assert request(system, "GET", "/v1/volume/csi/again").json["ExternalID"] == external_id
    assert request(system, "DELETE", "/v1/volume/csi/again/delete").status == 200
    assert stored(system) == []


def test_secrets_reach_the_plugin_and_nobody_else(system: private.System) -> None:
    secret = "correct-horse-battery"
    assert create(system, "sealed", Secrets={"password": secret}).status == 200
    answers = [request(system, "GET", p).text for p in ("/v1/volume/csi/sealed", "/v1/volumes?type=csi")]
    assert not any(secret in text for text in answers)
    dynamodb = system.client("dynamodb")
    for name in ("volumes", "operations", "meta", "plugins"):
        items = dynamodb.scan(TableName=f"moorage-{system.stage}-{name}")["Items"]
        assert secret not in repr(items)
    assert not any(secret in path.read_text(errors="replace") for path in (system.state / "logs").iterdir())
    assert request(system, "DELETE", "/v1/volume/csi/sealed/delete").status == 200


def test_snapshot_and_restore(system: private.System) -> None:
    source = create(system, "source").json["Volumes"][0]["ExternalID"]
    (system.plugin_root() / "volumes" / source / "letter").write_text("hello")
    body = {"Snapshots": [{"SourceVolumeID": "source", "Name": "first"}]}
    taken = request(system, "PUT", "/v1/volumes/snapshot", body)
    assert taken.status == 200, taken.text
    snapshot_id = taken.json["Snapshots"][0]["ID"]
    restored = create(system, "restored", SnapshotID=snapshot_id).json["Volumes"][0]["ExternalID"]
    assert (system.plugin_root() / "volumes" / restored / "letter").read_text() == "hello"
    gone = request(system, "DELETE", f"/v1/volumes/snapshot?plugin_id=directory&snapshot_id={snapshot_id}")
    assert gone.status == 200
    for volume_id in ("source", "restored"):
        assert request(system, "DELETE", f"/v1/volume/csi/{volume_id}/delete").status == 200
    assert stored(system) == []


def test_sixteen_creates_and_deletes_of_one_volume_at_once_leave_nothing(system: private.System) -> None:
    """Nomad leaves orphans in such a race in every run."""

    def make() -> Reply:
        return create(system, "raced")

    def remove() -> Reply:
        return request(system, "DELETE", "/v1/volume/csi/raced/delete")

    def work(number: int) -> list[Reply]:
        return [answered(make if (number + turn) % 2 else remove) for turn in range(3)]

    with ThreadPoolExecutor(16) as pool:
        answers = list(chain.from_iterable(pool.map(work, range(16))))
    assert {a.status for a in answers} <= {200, 409, 500}
    refused = {a.text for a in answers if a.status == 500}
    assert refused <= {"volume not found: raced"}, refused

    read = request(system, "GET", "/v1/volume/csi/raced")
    if read.status == 200:
        assert [path.name for path in stored(system)] == [read.json["ExternalID"]]
        assert request(system, "DELETE", "/v1/volume/csi/raced/delete").status == 200
    wait_for(lambda: stored(system) == [], seconds=10)


@pytest.fixture
def slow(shared: Shared) -> private.System:
    """A plugin that keeps the answer of its next CreateVolume, after the effect, until the test lets it go."""
    shared.strike("CreateVolume=hold@after*1")
    return shared.system


def test_a_worker_that_dies_after_the_provider_made_the_volume(slow: private.System, shared: Shared) -> None:
    """The waiting request itself has the operation taken up again: no sweeper is waited for."""
    answers: list[Reply] = []
    client = threading.Thread(target=lambda: answers.append(answered(lambda: create(slow, "data"))))
    client.start()
    wait_for(lambda: stored(slow))
    assert kill_workers(slow, "run_operation") >= 1  # those of earlier tests that lie idle die with it
    shared.strike()
    client.join()
    assert answers[0].status == 200, answers[0].text
    external_id = answers[0].json["Volumes"][0]["ExternalID"]
    assert [path.name for path in stored(slow)] == [external_id]
    assert request(slow, "GET", "/v1/volume/csi/data").json["ExternalID"] == external_id
    assert request(slow, "DELETE", "/v1/volume/csi/data/delete").status == 200
    assert stored(slow) == []


def test_a_worker_that_dies_while_nobody_waits(slow: private.System, shared: Shared) -> None:
    """The sweeper finds it: nothing is lost, nothing leaked."""
    with pytest.raises(TimeoutError):
        create(slow, "left", seconds=1)
    wait_for(lambda: stored(slow))
    # The function of the client that left goes on waiting, as it would on AWS: it dies with the worker.
    assert kill_workers(slow, "run_operation") >= 1
    shared.strike()
    wait_for(slow.workers)
    kill_workers(slow)
    wait_for(lambda: request(slow, "GET", "/v1/volume/csi/left").status == 200, seconds=150)
    external_id = request(slow, "GET", "/v1/volume/csi/left").json["ExternalID"]
    assert [path.name for path in stored(slow)] == [external_id]
    operations = request(slow, "GET", "/v1/operations?volume_id=left").json["Operations"]
    assert [o["Status"] for o in operations] == ["succeeded"]
    assert operations[0]["Attempt"] > 1
    assert request(slow, "DELETE", "/v1/volume/csi/left/delete").status == 200
