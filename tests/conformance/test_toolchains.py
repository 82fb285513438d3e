"""The packages on PyPI that `make conformance` falls back on carry programs that are new enough and run here."""

import subprocess

import pytest

from infra.local import environments, toolchains
from infra.local.toolchains import GO, JAVA, Tool


@pytest.mark.conformance
@pytest.mark.timeout(900)
@pytest.mark.parametrize("tool", [GO, JAVA])
def test_without_one_on_the_path_the_packaged_one_is_found_and_runs(
    tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = environments.ensure(environments.TOOLCHAINS)
    monkeypatch.setenv("PATH", "/nowhere")
    found = toolchains.find(tool)
    assert python.parents[1] in found.parents
    said = subprocess.run([found, tool.version_argument], check=True, capture_output=True, text=True, timeout=60)
    assert "version" in said.stdout + said.stderr
