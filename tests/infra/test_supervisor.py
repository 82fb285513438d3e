"""Children stop in the order of their roles, and one that does not stay up ends the system."""

import os
import sys
from pathlib import Path

import pytest

from infra.local import clock, supervisor
from infra.local.processes import Child
from infra.local.say import Trouble
from infra.local.settings import Settings
from infra.local.supervisor import Role, Supervisor, pid_files


def child(folder: Path, name: str, code: str) -> Child:
    return Child(
        name=name,
        command=[sys.executable, "-c", code],
        environment={"PATH": os.defpath},
        log=folder / f"{name}.log",
        pid_file=folder / f"{name}.json",
    )


def test_pid_files_are_in_the_order_in_which_to_stop(tmp_path: Path) -> None:
    settings = Settings.from_env({"MOORAGE_STATE": str(tmp_path)})
    settings.run.mkdir()
    for name in ("bridge", "emulator", "plugin-b", "plugin-a", "proxy", "ready", "supervisor"):
        (settings.run / f"{name}.json").touch()
    assert [path.stem for path in pid_files(settings)] == ["proxy", "emulator", "bridge", "plugin-a", "plugin-b"]


def test_only_the_children_of_a_role_stop(tmp_path: Path) -> None:
    children = Supervisor()
    for name in ("plugin-a", "proxy"):
        children.start(child(tmp_path, name, "import time; time.sleep(60)"))
    children.stop(Role.PROXY)
    assert [each.name for each in children.children() if each.runs] == ["plugin-a"]
    children.stop(Role.PLUGIN)


def test_a_child_that_ends_again_and_again_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.001)
    children = Supervisor()
    children.start(child(tmp_path, "proxy", "print('no port', flush=True)"))
    with pytest.raises(Trouble, match=r"proxy does not stay up: .*no port"):
        watch(children, seconds=60)
    assert (tmp_path / "proxy.log").read_text().count("no port") == supervisor.TRIES + 1


def watch(children: Supervisor, seconds: float) -> None:
    deadline = clock.monotonic() + seconds
    while clock.monotonic() < deadline:
        children.restart_ended()
        clock.sleep(0.01)
