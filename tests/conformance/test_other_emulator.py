"""`AWS_ENDPOINT_URL=... make run`: the local system on an emulator that was started by hand, and is left alone."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local import environments, private
from infra.local.dynamodb_local import free_port
from infra.local.emulator import answers
from infra.local.settings import Settings
from tests.e2e.api import create, request, stored, wait_for

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(600)]


@pytest.fixture
def by_hand(tmp_path: Path) -> Iterator[str]:
    """The address of a MiniStack as its own documentation starts it, but for the port."""
    port, python = str(free_port()), environments.ensure(environments.EMULATOR)
    environment = {**Settings.from_env().base_environment, "GATEWAY_PORT": port, "BIND_HOST": "127.0.0.1"}
    with (tmp_path / "ministack.log").open("w") as log:
        process = subprocess.Popen([python, "-m", "ministack"], cwd=tmp_path, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(url))
        yield url
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait()


def test_a_volume_is_made_and_removed_and_the_emulator_goes_on(by_hand: str, tmp_path: Path) -> None:
    with private.running(tmp_path / "system", AWS_ENDPOINT_URL=by_hand) as system:
        assert f"Using the emulator at {by_hand}" in system.output
        assert create(system, "data").status == 200
        assert len(stored(system)) == 1
        assert request(system, "DELETE", "/v1/volume/csi/data/delete").status == 200
        assert stored(system) == []
        assert system.stop() == 0
        assert answers(by_hand)
        system.start()
        assert "Deploying the app" not in system.output.rpartition("Starting Moorage")[2]
        assert request(system, "GET", "/v1/volumes?type=csi").json == []


def test_without_an_emulator_there_it_says_so(tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(private.NotUpError, match="no emulator answers there"):
        private.prepare(tmp_path / "system", AWS_ENDPOINT_URL=nobody).start()
