"""What `make` refuses on a bare checkout: it says what is missing, and installs nothing."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local import clock
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
        (("plugin", "ID=mine", "SOCKET=/csi.sock"), "the local system was never started here: start it with make run"),
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


@pytest.fixture
def with_uv(checkout: Path) -> Path:
    """A checkout whose uv does what the file `does-this` says, after the file `asked` is there."""
    for file in ("requirements-run.txt", "requirements-emulator.txt", "requirements.txt"):
        shutil.copy2(ROOT / file, checkout)
    for package in ("bridge", "devplugin"):
        (checkout / "infra" / package).mkdir()
        shutil.copy2(ROOT / "infra" / package / "pyproject.toml", checkout / "infra" / package)
    uv = checkout / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(f"""#!/bin/sh
if [ "$1" = --version ]; then echo "uv 99.0.0"; exit; fi
touch {checkout}/asked
. {checkout}/does-this
""")
    uv.chmod(0o755)
    return checkout


def local(checkout: Path, command: str) -> subprocess.Popen[str]:
    base = Settings.from_env().base_environment
    environment = {**base, "PATH": f"{checkout}/bin{os.pathsep}{base['PATH']}"}
    return subprocess.Popen(
        [sys.executable, "-m", "infra.local", command],
        cwd=checkout,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # pytest-xdist's processes ignore SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


@pytest.mark.parametrize("command", ["forget", "stop", "status", "logs"])
def test_after_a_clean_state_is_not_said_to_be_nothing(with_uv: Path, command: str) -> None:
    """`make clean` says that `make forget` removes the state that it left."""
    (with_uv / ".moorage" / "directory").mkdir(parents=True)
    (with_uv / "does-this").write_text("echo 'no route to the index'; exit 2")
    process = local(with_uv, command)
    out, err = process.communicate(timeout=60)
    assert "no route to the index" in err
    assert "Nothing was ever started" not in out
    assert process.returncode == 1


def test_an_interrupt_while_environments_are_made_is_one_line(with_uv: Path) -> None:
    (with_uv / "does-this").write_text("exec sleep 60")
    process = local(with_uv, "run")
    deadline = clock.monotonic() + 30
    while not (with_uv / "asked").exists():
        assert clock.monotonic() < deadline
        clock.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert err == "moorage: interrupted\n"
    assert process.returncode == 130
