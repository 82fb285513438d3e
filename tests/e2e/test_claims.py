"""Claims on real parts: attached, staged and mounted by the worker through the bridge, and back."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.local import private
from tests.e2e.api import Reply, answered, create, kill_workers, request, stored, wait_for
from tests.shared import Shared

pytestmark = [pytest.mark.e2e, pytest.mark.enable_socket, pytest.mark.timeout(600)]

PATH = "/v1/volume/csi/data"


@pytest.fixture
def system(shared: Shared) -> private.System:
    return shared.system


@pytest.fixture
def mounts(system: private.System) -> Iterator[Path]:
    """A folder below the bridge's state folder, where a bridge without options mounts."""
    folder = (system.state / "bridge" / "claimed").resolve()
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def claim(system: private.System, mounts: Path, alloc: str = "a", **fields: Any) -> Reply:
    paths = {"StagingPath": str(mounts / f"{alloc}.staging"), "TargetPath": str(mounts / alloc)}
    body = {"AllocationID": alloc, "NodeID": "local", "Mode": "write"} | paths | fields
    return request(system, "PUT", f"{PATH}/claim", body)


def test_a_worker_that_dies_with_the_mount_in_its_hands(shared: Shared, mounts: Path) -> None:
    """The first NodePublishVolume keeps its answer; the worker is killed, and its client is answered."""
    system = shared.system
    shared.strike("NodePublishVolume=hold@after*1")
    external_id = create(system, "data").json["Volumes"][0]["ExternalID"]
    answers: list[Reply] = []
    client = threading.Thread(target=lambda: answers.append(answered(lambda: claim(system, mounts))))
    client.start()
    wait_for((mounts / "a").exists)
    assert kill_workers(system, "run_operation") >= 1
    shared.strike()
    client.join()
    assert (answers[0].status, answers[0].json["Published"]) == (200, True), answers[0].text
    (mounts / "a" / "letter").write_text("hello")
    assert (stored(system)[0] / "letter").read_text() == "hello"

    read = request(system, "GET", PATH).json
    assert (read["WriteAllocs"], read["AccessMode"]) == ({"a": None}, "single-node-writer")
    assert [v["ID"] for v in request(system, "GET", "/v1/volumes?type=csi&node_id=local").json] == ["data"]
    other = claim(system, mounts, "b")
    assert (other.status, other.text) == (500, "volume max claims reached")
    assert request(system, "DELETE", f"{PATH}/delete").text == "volume in use: data"
    assert [path.name for path in stored(system)] == [external_id]

    assert request(system, "DELETE", f"{PATH}/claim/a").status == 200
    assert not (mounts / "a").exists()
    assert request(system, "GET", f"{PATH}/claims").json == []
    published = request(system, "GET", "/v1/volumes/external?plugin_id=directory").json["Volumes"]
    assert [v["PublishedExternalNodeIDs"] for v in published] == [None]
    assert request(system, "DELETE", f"{PATH}/delete").status == 200
    assert stored(system) == []


def test_a_mount_that_cannot_be_leaves_neither_claim_nor_attachment(system: private.System, mounts: Path) -> None:
    assert create(system, "data").status == 200
    (mounts / "a").write_text("somebody's file")
    refused = claim(system, mounts)
    assert refused.status == 500
    assert "NodePublishVolume" in refused.text
    wait_for(lambda: request(system, "GET", f"{PATH}/claims").json == [], seconds=100)
    assert (mounts / "a").read_text() == "somebody's file"
    assert request(system, "DELETE", f"{PATH}/delete").status == 200


@pytest.mark.parametrize("inside", [set(), {"StagingPath"}], ids=["both paths", "only the target path"])
def test_a_claim_on_a_folder_of_the_machine_is_refused_and_leaves_nothing(
    system: private.System, mounts: Path, tmp_path: Path, inside: set[str]
) -> None:
    """As on /etc/cron.d: the claim is free at once, nothing is mounted, and the volume can be claimed again."""
    assert create(system, "data").status == 200
    outside = tmp_path / "cron.d"
    outside.mkdir()
    paths = {"StagingPath": str(outside), "TargetPath": str(outside)}
    refused = claim(system, mounts, **{name: path for name, path in paths.items() if name not in inside})
    assert refused.status == 500
    assert f"path {outside} is not below a folder that this bridge may mount in" in refused.text
    assert "--mounts-below" in refused.text
    wait_for(lambda: request(system, "GET", f"{PATH}/claims").json == [], seconds=10)
    assert (outside.is_dir(), outside.is_symlink(), list(outside.iterdir())) == (True, False, [])
    assert list((system.plugin_root() / "state" / "uses").iterdir()) == []
    assert list((system.state / "bridge" / "uses").glob("*.json")) == []
    assert claim(system, mounts, "b").status == 200
    assert request(system, "DELETE", f"{PATH}/claim/b").status == 200
    assert request(system, "DELETE", f"{PATH}/delete").status == 200


def test_a_link_at_the_target_admits_no_second_writer(system: private.System, mounts: Path, tmp_path: Path) -> None:
    assert create(system, "data").status == 200
    (tmp_path / "elsewhere").mkdir()
    (mounts / "a").symlink_to(tmp_path / "elsewhere")
    refused = claim(system, mounts)
    assert (refused.status, "something is mounted or linked at" in refused.text) == (500, True), refused.text
    wait_for(lambda: request(system, "GET", f"{PATH}/claims").json == [], seconds=10)
    assert (mounts / "a").readlink() == tmp_path / "elsewhere"
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert request(system, "DELETE", f"{PATH}/delete").status == 200
