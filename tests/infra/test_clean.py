"""`make clean` removes what was built and keeps state. `make forget` removes state, and asks before."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.clean import clean
from infra.local.say import Trouble
from infra.local.settings import ROOT, Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A state folder with two volumes."""
    settings = Settings.from_env({"MOORAGE_STATE": str(tmp_path / "state")})
    settings.run.mkdir(parents=True)
    for name in ("a", "b"):
        (settings.plugin_root("directory") / "volumes" / name).mkdir(parents=True)
    return settings


def test_clean_removes_what_was_built_and_no_state(settings: Settings, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in (".venv/bin", ".venv-emulator", "build/x", "chalicelib/__pycache__", ".moorage/directory", "docs"):
        (tree / name).mkdir(parents=True)
    (tree / ".venv-linked").symlink_to(tmp_path / "state")
    assert clean(settings, tree) == 0
    assert sorted(path.name for path in tree.iterdir()) == [".moorage", ".venv-linked", "chalicelib", "docs"]
    assert not (tree / "chalicelib" / "__pycache__").exists()
    assert (settings.plugin_root("directory") / "volumes" / "a").is_dir()
    assert clean(settings, tree) == 0


def test_clean_leaves_alone_what_a_volume_holds(tmp_path: Path) -> None:
    """State is in the tree by default, and a volume may hold a program with its bytecode."""
    for state in (".moorage", "infra/state", "build/state"):
        settings = Settings.from_env({"MOORAGE_STATE": str(tmp_path / state)})
        held = settings.plugin_root("directory") / "volumes" / "a" / "__pycache__" / "program.pyc"
        held.parent.mkdir(parents=True)
        held.write_text("")
        assert clean(settings, tmp_path) == 0
        assert held.exists()
    (tmp_path / "infra" / "__pycache__").mkdir(parents=True)
    assert clean(Settings.from_env({"MOORAGE_STATE": str(tmp_path / "other")}), tmp_path) == 0
    assert (tmp_path / ".moorage/directory/volumes/a/__pycache__/program.pyc").exists()
    assert not (tmp_path / "infra" / "__pycache__").exists()


def test_clean_is_refused_while_the_system_runs(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    with (settings.run / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(Trouble, match="make stop first"):
            clean(settings, tmp_path)
    assert (tmp_path / ".venv").exists()


def forget(settings: Settings, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**Settings.from_env().base_environment, "MOORAGE_STATE": str(settings.state), **variables}
    command = [sys.executable, "-m", "infra.local", "forget"]
    return subprocess.run(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def test_forget_asks_and_without_a_terminal_removes_nothing(settings: Settings) -> None:
    done = forget(settings)
    assert done.returncode == 1
    assert "with the data of 2 volumes" in done.stdout
    assert "YES=1" in done.stderr
    assert (settings.plugin_root("directory") / "volumes" / "a").is_dir()
    assert forget(settings, YES="1").returncode == 0
    assert not settings.state.exists()
    assert "nothing to forget" in forget(settings, YES="1").stdout


@pytest.mark.parametrize(("typed", "removed"), [(b"yes\n", True), (b"no\n", False), (b"\x04", False), (b"\x03", False)])
def test_forget_takes_yes_on_a_terminal_and_nothing_else(settings: Settings, typed: bytes, removed: bool) -> None:
    environment = {**Settings.from_env().base_environment, "MOORAGE_STATE": str(settings.state)}
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # pytest-xdist's processes ignore it, and children inherit that
        os.chdir(ROOT)
        os.execve(sys.executable, [sys.executable, "-m", "infra.local", "forget"], environment)  # noqa: S606
    said = b""
    while b"Type yes to go on" not in said:
        said += os.read(terminal, 1000)
    with contextlib.suppress(OSError):  # Linux says EIO at a terminal's end
        while True:
            os.write(terminal, typed)  # again, where it came before the question was read
            while select.select([terminal], [], [], 1.0)[0]:
                said += os.read(terminal, 1000)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert b"Traceback" not in said
    assert settings.state.exists() != removed
    assert (code == 0) == removed


def test_forget_without_a_standard_input_removes_nothing(settings: Settings) -> None:
    environment = {**Settings.from_env().base_environment, "MOORAGE_STATE": str(settings.state)}
    command = ["sh", "-c", f"exec {sys.executable} -m infra.local forget <&-"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert "without one, add YES=1" in done.stderr
    assert settings.state.exists()


@pytest.mark.parametrize("command", ["run", "status", "stop", "logs"])
def test_a_state_folder_that_cannot_be_made_is_told_in_a_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("")
    environment = {**Settings.from_env().base_environment, "MOORAGE_STATE": str(tmp_path / "file" / "state")}
    command_line = [sys.executable, "-m", "infra.local", command]
    done = subprocess.run(
        command_line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert "Traceback" not in done.stdout + done.stderr
    if command in ("run", "logs"):
        assert done.returncode == 1
        assert str(tmp_path / "file") in done.stderr
