"""The audit on real parts: the command, the function that does it, the plugin; and what a start after a crash says."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.local import certificates, private
from tests.e2e.api import create, request, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.enable_socket, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[private.System]:
    with private.running(tmp_path_factory.mktemp("audit") / "system") as running:
        yield running


def audit(system: private.System, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [certificates.command("moorage"), "audit", "--api", system.api_url, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def verdicts(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    said = json.loads(done.stdout)
    assert [r["Status"] for r in said["Reports"]] == ["done"], said
    return {f["ExternalID"]: f["Verdict"] for r in said["Reports"] for f in r["Findings"]}


def test_from_a_clean_system_over_a_lost_record_to_its_adoption(system: private.System) -> None:
    kept, lost = (create(system, name).json["Volumes"][0]["ExternalID"] for name in ("kept", "lost"))
    clean = audit(system)
    assert (clean.returncode, clean.stdout) == (0, "directory: 2 volumes registered\n"), clean.stderr

    assert request(system, "DELETE", "/v1/volume/csi/lost").status == 200
    found = audit(system, "--json")
    assert (found.returncode, verdicts(found)) == (2, {lost: "orphan"})
    assert f"volume  orphan   {lost}" in audit(system, "--plugin", "directory").stdout

    adopted = audit(system, "--plugin", "directory", "--adopt", lost, "--as", "default/found")
    assert adopted.returncode == 0, adopted.stderr
    assert request(system, "GET", "/v1/volume/csi/found").json["ExternalID"] == lost
    assert audit(system).returncode == 0

    twice = audit(system, "--plugin", "directory", "--adopt", kept, "--as", "default/found")
    assert (twice.returncode, "412" in twice.stderr) == (1, True)
    for volume_id in ("kept", "found"):
        assert request(system, "DELETE", f"/v1/volume/csi/{volume_id}/delete").status == 200


def crash(system: private.System) -> None:
    """Kill the supervisor and the emulator, as a power cut would."""
    emulator = psutil.Process(system.pid_of("emulator"))
    system.kill()
    emulator.kill()
    emulator.wait(10)


def test_after_a_crash_of_everything_the_start_says_that_nothing_is_lost(system: private.System) -> None:
    system.stop()
    system.start()
    assert "Comparing the plugins' volumes" not in system.output
    create(system, "data")
    crash(system)
    system.start()
    assert "Nothing is lost or left over." in system.output
    assert request(system, "DELETE", "/v1/volume/csi/data/delete").status == 200


def test_after_tables_went_back_to_an_earlier_state_the_start_says_what_they_lost(
    system: private.System, tmp_path: Path
) -> None:
    """As after a backup of the folder was put back."""
    system.stop()
    shutil.copytree(system.state / "emulator", tmp_path / "earlier")
    system.start()
    external_id = create(system, "data").json["Volumes"][0]["ExternalID"]
    crash(system)
    shutil.rmtree(system.state / "emulator")
    shutil.copytree(tmp_path / "earlier", system.state / "emulator")
    (system.state / "emulator" / "running").touch()
    system.start()
    line = "Volumes that the plugins have and the tables do not: 1; that the tables have and the plugins do not: 0."
    wait_for(lambda: line in system.output)
    found = audit(system, "--json")
    assert (found.returncode, verdicts(found)) == (2, {external_id: "orphan"})
