"""The official Go client, unmodified, against a whole local system of its own."""

import subprocess
from pathlib import Path

import pytest

from infra.local import environments, private
from infra.local.settings import Settings

HERE = Path(__file__).parent
STEPS = 12


@pytest.mark.conformance
@pytest.mark.enable_socket
@pytest.mark.timeout(600)
def test_every_method_that_makes_sense_here_with_all_its_options(tmp_path: Path) -> None:
    environments.ensure(environments.EMULATOR)
    program = tmp_path / "go_client"
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=HERE, check=True, timeout=280)
    with private.running(tmp_path / "system") as system:
        environment = {**Settings.from_env().base_environment, "NOMAD_ADDR": system.api_url}
        done = subprocess.run([str(program)], env=environment, capture_output=True, text=True, timeout=280, check=False)
        left = sorted((system.plugin_root() / "volumes").iterdir())
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert done.stdout.count("right: ") == STEPS
    assert left == []
