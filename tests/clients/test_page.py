"""The tours of docs/clients.md that can be run here are run as they stand: curl and python-nomad."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local import private
from infra.local.settings import Settings
from tests.shared import Shared

pytestmark = [pytest.mark.e2e, pytest.mark.enable_socket, pytest.mark.timeout(300)]

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"


def block(language: str) -> str:
    """The page's only block of a language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return str(found)


@pytest.fixture
def system(shared: Shared) -> private.System:
    return shared.system


def run(system: private.System, command: list[str]) -> str:
    environment = {**Settings.from_env().base_environment, "NOMAD_ADDR": system.api_url}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((system.plugin_root() / "volumes").iterdir()) == []
    return done.stdout


def test_the_tour_with_curl(system: private.System) -> None:
    said = run(system, ["bash", "-euo", "pipefail", "-c", block("sh")])
    assert said.count('"ExternalID"') >= 4
    assert '"Capacity":4194304' in said
    assert '"ID":"before-upgrade' in said
    assert '"Matches":{"volumes":["data"]}' in said


def test_the_tour_with_python_nomad(system: private.System) -> None:
    said = run(system, [sys.executable, "-c", block("python")])
    external_id, matches, nodes = said.splitlines()
    assert external_id.startswith("data-")
    assert matches == "{'volumes': ['data']}"
    assert nodes.startswith("['")


def test_what_was_run_by_hand_is_marked_so_with_versions() -> None:
    text = PAGE.read_text("utf-8")
    for client in ("nomad CLI", "Terraform"):
        assert f"### {client} (run by hand)" in text
    for program, version in (("nomad CLI", "2.0.6"), ("csi-driver-host-path", "1.17"), ("aws-ebs-csi-driver", "1.64")):
        assert re.search(rf"^\| {program}.* \| {re.escape(version)} \|", text, re.MULTILINE)
