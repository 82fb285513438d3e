"""python-nomad 2.1, unmodified, against a whole local system: its own modules, and volumes on its base class."""

from collections.abc import Iterator
from typing import Any

import nomad
import pytest
from nomad.api import exceptions

from infra.local import environments, private
from tests.conformance.python_nomad.volumes import Plugin, Plugins, Volume, Volumes

pytestmark = [pytest.mark.conformance, pytest.mark.enable_socket, pytest.mark.timeout(600)]

CAPABILITY = {"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}
SLOW_SECONDS = 8
DEFAULT_TIMEOUT = 5
"""Seconds that python-nomad waits when nothing else is said."""
PATIENCE = 60
"""Seconds that the clients of these tests wait: on a busy machine a start of a function alone may take the default."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[private.System]:
    """A plugin whose first CreateVolume takes longer than the client waits; the first test needs it."""
    environments.ensure(environments.EMULATOR)
    folder = tmp_path_factory.mktemp("python_nomad") / "system"
    with private.running(folder, PLUGIN_ARGS=f"--fault CreateVolume={SLOW_SECONDS}s@after*1") as running:
        yield running


@pytest.fixture
def client(system: private.System) -> nomad.Nomad:
    return nomad.Nomad(host="127.0.0.1", port=system.port, timeout=PATIENCE)


@pytest.fixture
def volumes(system: private.System) -> Volumes:
    return Volumes(address=system.api_url, timeout=PATIENCE)


@pytest.fixture
def volume(system: private.System) -> Volume:
    return Volume(address=system.api_url, timeout=PATIENCE)


def definition(volume_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "ID": volume_id,
        "Name": volume_id,
        "PluginID": "directory",
        "RequestedCapabilities": [CAPABILITY],
    } | fields


def test_a_create_that_takes_longer_than_the_client_waits_is_joined_by_its_repetition(
    system: private.System, volume: Volume
) -> None:
    impatient = Volume(address=system.api_url)
    assert impatient.timeout == DEFAULT_TIMEOUT
    with pytest.raises(exceptions.BaseNomadException, match="Read timed out"):
        impatient.create(definition("slow"))
    # The second wait ends with the operation of the first: the storage was made once.
    made = volume.create(definition("slow"))
    assert [p.name for p in (system.plugin_root() / "volumes").iterdir()] == [made["Volumes"][0]["ExternalID"]]
    assert volume.delete("slow").status_code == 200


def test_a_volume_from_create_to_delete(system: private.System, volumes: Volumes, volume: Volume) -> None:
    made = volume.create(definition("data", Secrets={"password": "xyzzy"}, RequestedCapacityMin=1024))
    assert made["Volumes"][0]["ExternalID"]
    assert volume.read("data")["Secrets"] is None
    assert [v["ID"] for v in volumes.all()] == ["data"]
    assert [v["ID"] for v in volumes.all(plugin_id="directory", namespace="*", filter='ID == "data"')] == ["data"]
    assert volume.create(definition("data", RequestedCapacityMin=4096))["Volumes"][0]["Capacity"] >= 4096
    deleted = volume.delete("data")
    assert (deleted.status_code, deleted.text) == (200, "")
    assert volumes.all() == []
    assert list((system.plugin_root() / "volumes").iterdir()) == []


def test_register_and_deregister(volumes: Volumes, volume: Volume) -> None:
    external_id = volume.create(definition("kept"))["Volumes"][0]["ExternalID"]
    assert volume.deregister("kept").status_code == 200
    assert [v["ExternalID"] for v in volumes.external("directory")["Volumes"]] == [external_id]
    volume.register(definition("kept", ExternalID=external_id))
    assert volume.read("kept")["ExternalID"] == external_id
    assert volume.delete("kept").status_code == 200


def test_post_where_nomad_wants_put_is_refused_as_in_nomad(volume: Volume) -> None:
    for send in (volume.create, volume.register):
        with pytest.raises(exceptions.BaseNomadException, match="Invalid method"):
            send(definition("posted"), method="post")


def test_snapshots(volumes: Volumes, volume: Volume) -> None:
    volume.create(definition("source"))
    taken = volumes.snapshot("source", "first")["Snapshots"][0]
    assert [s["ID"] for s in volumes.snapshots("directory")["Snapshots"]] == [taken["ID"]]
    assert volumes.delete_snapshot("directory", taken["ID"]).status_code == 200
    assert volume.delete("source").status_code == 200


def test_errors_are_the_classes_that_users_catch(volumes: Volumes, volume: Volume) -> None:
    with pytest.raises(exceptions.URLNotFoundNomadException, match="volume not found"):
        volume.read("none")
    with pytest.raises(exceptions.BaseNomadException, match="volume not found: none"):
        volume.delete("none")
    with pytest.raises(exceptions.BadRequestNomadException, match="per_page"):
        volumes.all(per_page="x")
    with pytest.raises(exceptions.BaseNomadException, match="missing plugin id"):
        volume.create(definition("bad", PluginID=""))


def test_plugins(system: private.System) -> None:
    plugins, plugin = (
        Plugins(address=system.api_url, timeout=PATIENCE),
        Plugin(address=system.api_url, timeout=PATIENCE),
    )
    assert [p["ID"] for p in plugins.all()] == ["directory"]
    found = plugin.read("directory")
    assert found["ControllersHealthy"] == found["ControllersExpected"] == 1
    with pytest.raises(exceptions.URLNotFoundNomadException, match="plugin not found"):
        plugin.read("none")


def test_namespaces(client: nomad.Nomad, volume: Volume) -> None:
    assert "team" not in client.namespace
    client.namespace.create_namespace({"Name": "team", "Description": "a"})
    assert "team" in client.namespace
    assert "team" in client.namespaces
    assert client.namespaces["team"]["Description"] == "a"
    client.namespace.update_namespace("team", {"Name": "team", "Description": "b"})
    assert client.namespace.get_namespace("team")["Description"] == "b"
    assert [n["Name"] for n in client.namespaces.get_namespaces(prefix="te")] == ["team"]
    assert len(client.namespaces) == 2
    volume.create(definition("here"), namespace="team")
    with pytest.raises(exceptions.BaseNomadException, match="has volumes associated"):
        client.namespace.delete_namespace("team")
    volume.delete("here", namespace="team")
    client.namespace.delete_namespace("team")
    assert [n["Name"] for n in client.namespaces] == ["default"]


def test_nodes(client: nomad.Nomad) -> None:
    (found,) = client.nodes.get_nodes()
    assert found["ID"] in client.node
    assert found["ID"] in client.nodes
    assert client.nodes[found["ID"]]["Status"] == "ready"
    assert set(client.node.get_node(found["ID"])["CSIControllerPlugins"]) == {"directory"}
    assert client.node.get_allocations(found["ID"]) == []
    assert "none" not in client.node


def test_search(client: nomad.Nomad, volume: Volume) -> None:
    volume.create(definition("searched"))
    assert client.search.search("sear", "volumes")["Matches"] == {"volumes": ["searched"]}
    assert client.search.search("sear", "all")["Matches"]["volumes"] == ["searched"]
    fuzzy = client.search.fuzzy_search("direc", "plugins")
    assert fuzzy["Matches"] == {"plugins": [{"ID": "directory"}]}
    volume.delete("searched")


def test_status_regions_and_agent(client: nomad.Nomad) -> None:
    leader = client.status.leader.get_leader()
    assert leader in client.status.leader
    assert client.status.peers.get_peers() == [leader]
    assert "global" in client.regions
    assert len(client.regions) == 1
    assert client.agent.get_agent()["member"]["Status"] == "alive"
    assert len(client.agent.get_members()["Members"]) == 1
    assert client.agent.get_servers() == [leader]
    assert client.agent.join_agent("nomad.invalid")["num_joined"] == 0
    assert client.agent.force_leave("none") == 200


def test_jobs_allocations_evaluations_and_deployments_are_empty(client: nomad.Nomad) -> None:
    assert client.jobs.get_jobs() == []
    assert client.allocations.get_allocations() == []
    assert client.evaluations.get_evaluations() == []
    assert client.deployments.get_deployments() == []
    assert "none" not in client.job


def test_acls_are_off(client: nomad.Nomad) -> None:
    assert client.acl.get_self_token()["AccessorID"] == "acls-disabled"
    with pytest.raises(exceptions.BadRequestNomadException, match="ACL support disabled"):
        client.acl.get_policies()


def test_namespace_region_and_token_of_the_client_are_sent_and_taken(system: private.System) -> None:
    other = nomad.Nomad(
        host="127.0.0.1", port=system.port, namespace="default", region="global", token="any", timeout=PATIENCE
    )
    assert other.jobs.get_jobs() == []
    assert [n["Name"] for n in other.namespaces.get_namespaces()] == ["default"]
    wrong = nomad.Nomad(host="127.0.0.1", port=system.port, region="none", timeout=PATIENCE)
    with pytest.raises(exceptions.BaseNomadException, match="No path to region"):
        wrong.namespaces.get_namespaces()
