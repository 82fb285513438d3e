"""The main way through all rooms: create, read, list, delete, register, deregister."""

from tests.harness import System, definition


def test_a_created_volume_is_read_listed_and_at_the_provider(system: System) -> None:
    reply = system.call("PUT", "/v1/volume/csi/data/create", definition())

    assert reply.status == 200, reply.body
    assert [v["ExternalID"] for v in reply.json["Volumes"]] == list(system.provider.volumes)
    read = system.call("GET", "/v1/volume/csi/data")
    assert read.status == 200
    assert read.json["ExternalID"] == "ext-1"
    assert read.json["Schedulable"] is True
    assert (
        read.json["CreateIndex"]
        == read.json["ModifyIndex"]
        == int(read.headers["X-Nomad-Index"])
        == reply.json["Index"]
    )
    listed = system.call("GET", "/v1/volumes", query="type=csi")
    assert [v["ID"] for v in listed.json] == ["data"]
    assert int(listed.headers["X-Nomad-Index"]) >= read.json["ModifyIndex"]


def test_a_deleted_volume_is_gone_everywhere_and_its_index_stays(system: System) -> None:
    system.call("PUT", "/v1/volume/csi/data/create", definition())

    reply = system.call("DELETE", "/v1/volume/csi/data/delete")

    assert (reply.status, reply.body) == (200, "")
    assert system.provider.volumes == {}
    gone = system.call("GET", "/v1/volume/csi/data")
    assert (gone.status, gone.body) == (404, "volume not found")
    assert int(gone.headers["X-Nomad-Index"]) >= int(reply.headers["X-Nomad-Index"])
    assert system.call("GET", "/v1/volumes", query="type=csi").json == []


def test_a_volume_can_be_created_again_after_its_delete(system: System) -> None:
    first = system.call("PUT", "/v1/volume/csi/data/create", definition()).json["Index"]
    system.call("DELETE", "/v1/volume/csi/data/delete")

    again = system.call("PUT", "/v1/volume/csi/data/create", definition())

    assert again.status == 200
    assert again.json["Index"] > first
    assert len(system.provider.volumes) == 1


def test_a_registered_volume_is_forgotten_without_touching_its_storage(system: System) -> None:
    body = definition(ExternalID="vol-1")

    registered = system.call("PUT", "/v1/volume/csi/data", body)
    gone = system.call("DELETE", "/v1/volume/csi/data")

    assert (registered.status, gone.status, gone.body) == (200, 200, "")
    assert system.plugin_queries.asked[0][0] == "validate_volume"
    assert system.provider.log == []
    assert system.call("GET", "/v1/volume/csi/data").status == 404


def test_secrets_are_opened_by_the_worker_and_shown_to_nobody(system: System) -> None:
    created = system.call("PUT", "/v1/volume/csi/data/create", definition(Secrets={"password": "xyzzy"}))
    read = system.call("GET", "/v1/volume/csi/data")
    system.call("DELETE", "/v1/volume/csi/data/delete", headers={"X-Nomad-CSI-Secrets": "pin=1234,password=plugh"})

    assert "xyzzy" not in created.body + read.body
    assert read.json["Secrets"] is None
    assert system.provider.secrets == [{"password": "xyzzy"}, {"password": "plugh", "pin": "1234"}]


def test_a_volume_that_is_missing_is_said_so_in_nomads_words(system: System) -> None:
    assert system.call("DELETE", "/v1/volume/csi/nope").body == "volume not found: nope"
    assert system.call("DELETE", "/v1/volume/csi/nope").status == 500
    assert system.call("DELETE", "/v1/volume/csi/nope/delete").body == "volume not found: nope"
