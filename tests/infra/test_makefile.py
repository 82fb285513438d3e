"""What `make` refuses on a bare checkout: it says what is missing, and installs nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.settings import ROOT, Settings


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of the tree as a command needs before it has an environment."""
    shutil.copy2(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "infra" / "local", tmp_path / "infra" / "local")
    return tmp_path


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", f"PYTHON={sys.executable}", *arguments]
    environment = Settings.from_env().base_environment
    return subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("deploy",), "make deploy needs STAGE=..., for example: make deploy STAGE=prod ARGS="),
        (("deploy", "STAGE="), "make deploy needs STAGE="),
        (("deploy", "STAGE= ", "ARGS=--open"), "make deploy needs STAGE="),
        (("plugin",), "make plugin needs ID=..., for example: make plugin ID=mine SOCKET=/path/csi.sock"),
        (("plugin", "ID=mine"), "make plugin needs SOCKET="),
        (("plugin", "ID=mine", "SOCKET=/csi.sock"), "the local system was never started here: make run"),
    ],
)
def test_what_a_command_needs_is_said_before_anything_is_installed(
    checkout: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = make(checkout, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert not list(checkout.glob(".venv*"))


def test_a_stop_where_nothing_was_started_is_no_failure(checkout: Path) -> None:
    done = make(checkout, "stop")
    assert (done.returncode, done.stdout) == (0, "Nothing was ever started here.\n")
