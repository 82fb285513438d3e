"""The recorded exchanges of a real Nomad against the whole local system (tests/replay has them in process)."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from infra.local import private
from tests.e2e.api import request
from tests.replay.replayer import Exchange, replay, scenarios

pytestmark = [pytest.mark.e2e, pytest.mark.enable_socket, pytest.mark.timeout(600)]

DATA = Path(__file__).parents[1] / "data"
KNOWN: dict[str, str] = json.loads((DATA / "replay_differences.json").read_text())
NODE_ID = "34fb716a-8d81-0f92-b3f2-54bdd8ec437b"
CAPABILITY = {"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}


class OverHttp:
    """The system's proxy; its node goes by a UUID, as every node in the recordings does."""

    def __init__(self, system: private.System) -> None:
        self._system = system

    def send(self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes | None) -> Exchange:
        target = path + ("?" + query if query else "")
        reply = request(self._system, method, target, body, headers=headers)
        return Exchange(reply.status, reply.headers, reply.text.replace('"local"', f'"{NODE_ID}"'))


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[private.System]:
    folder = tmp_path_factory.mktemp("replay") / "system"
    arguments = {"MOORAGE_PLUGINS": "hostpath", "PLUGIN_ARGS": "--node-id node-14646"}
    with private.running(folder, **arguments) as running:
        yield running


@pytest.fixture
def nomad(system: private.System) -> Iterator[OverHttp]:
    yield OverHttp(system)
    _forget_all(system)


@pytest.mark.parametrize("file", scenarios(DATA / "corpus"), ids=lambda f: f.stem)
def test_answers_are_nomads_but_for_the_differences_that_are_named(file: Path, nomad: OverHttp) -> None:
    found = {o.name: o.differences for o in replay(file, nomad) if o.differences}
    assert {name: differences[:3] for name, differences in found.items() if name not in KNOWN} == {}


def _forget_all(system: private.System) -> None:
    """Leave the plugin and the tables as they were: no volume, no snapshot, no namespace."""
    for volume in request(system, "GET", "/v1/volumes?type=csi&namespace=*").json:
        request(system, "DELETE", f"/v1/volume/csi/{volume['ID']}?namespace={volume['Namespace']}")
    external = request(system, "GET", "/v1/volumes/external?plugin_id=hostpath").json["Volumes"]
    for number, volume in enumerate(external or ()):
        known = {"ID": f"left-{number}", "PluginID": "hostpath", "ExternalID": volume["ExternalID"]}
        body = {"Volumes": [known | {"RequestedCapabilities": [CAPABILITY]}]}
        assert request(system, "PUT", f"/v1/volume/csi/left-{number}", body).status == 200
        assert request(system, "DELETE", f"/v1/volume/csi/left-{number}/delete").status == 200
    for snapshot in request(system, "GET", "/v1/volumes/snapshot?plugin_id=hostpath").json["Snapshots"] or ():
        target = f"/v1/volumes/snapshot?plugin_id=hostpath&snapshot_id={snapshot['ID']}"
        assert request(system, "DELETE", target).status == 200
    for namespace in request(system, "GET", "/v1/namespaces").json:
        if namespace["Name"] != "default":
            assert request(system, "DELETE", f"/v1/namespace/{namespace['Name']}").status == 200
    assert request(system, "GET", "/v1/volumes?type=csi&namespace=*").json == []
