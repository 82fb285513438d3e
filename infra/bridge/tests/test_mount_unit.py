"""moorage-mount@.service: what it relies on is what the commands do."""

import shlex
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from click.testing import CliRunner

from infra.bridge.tests.mount_parts import Machine, Played, played
from infra.bridge.tests.test_unit import unit
from moorage.cli import main
from moorage.commands.units import UNIT_PROGRAM
from moorage.mounts.place import DEFAULT_WAIT

UNIT = resources.files("moorage").joinpath("systemd/moorage-mount@.service").read_text("utf-8")


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Played]:
    with played(tmp_path / "storage") as found:
        yield found


def words(line: str, variables: dict[str, str]) -> list[str]:
    """A command line as systemd.service(5) reads it: `${NAME}` is one word, `$NAME` alone is split, or left out."""
    found: list[str] = []
    for word in line.split():
        if word.startswith("${"):
            found.append(variables.get(word[2:-1], ""))
        elif word.startswith("$"):
            found += shlex.split(variables.get(word[1:], ""))
        else:
            found.append(word)
    assert found[0] == UNIT_PROGRAM
    return found[1:]


@pytest.mark.enable_socket
@pytest.mark.parametrize("options", ["", "--read-only --alloc 'a 1'"])
def test_it_mounts_at_the_start_and_unmounts_at_the_stop(
    tmp_path: Path, plane: Played, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    machine = Machine.make(tmp_path, plane)
    monkeypatch.setenv("MOORAGE_BRIDGE_STATE", str(machine.state))  # as /etc/moorage/bridge.env has it
    service = unit(UNIT.replace("EnvironmentFile=/etc/moorage/bridge.env\n", ""))["Service"]
    variables = {"VOLUME": "data", "TARGET": str(machine.target)} | ({"OPTIONS": options} if options else {})
    for _ in range(2):
        done = CliRunner().invoke(main, words(service["ExecStart"], variables))
        assert done.exit_code == 0, done.output
    (body,) = plane.requests("PUT claim")
    assert body["Mode"] == ("read" if options else "write")
    assert body["AllocationID"] == "a 1" or not options
    assert CliRunner().invoke(main, words(service["ExecStop"], variables)).exit_code == 0
    assert machine.is_clean()


def test_it_comes_after_the_bridge_which_it_does_not_bind() -> None:
    section = unit(UNIT.replace("EnvironmentFile=/etc/moorage/bridge.env\n", ""))
    assert "moorage-bridge.service" in section["Unit"]["After"].split()
    assert "moorage-bridge.service" in section["Unit"]["Wants"].split()
    assert not {"Requires", "BindsTo", "PartOf"} & set(section["Unit"])
    assert (section["Service"]["Type"], section["Service"]["RemainAfterExit"]) == ("oneshot", "yes")
    assert "\nEnvironmentFile=/etc/moorage/bridge.env\nEnvironmentFile=/etc/moorage/mounts/%i.env\n" in UNIT


def test_it_is_tried_again_after_a_failure_but_not_after_wrong_usage() -> None:
    section = unit(UNIT.replace("EnvironmentFile=/etc/moorage/bridge.env\n", ""))
    assert (section["Unit"]["StartLimitIntervalSec"], section["Service"]["Restart"]) == ("0", "on-failure")
    wrong = CliRunner().invoke(main, words(section["Service"]["ExecStart"], {"OPTIONS": "--no-such-option"}))
    assert str(wrong.exit_code) == section["Service"]["RestartPreventExitStatus"]


def test_systemd_waits_longer_than_the_commands_do() -> None:
    service = unit(UNIT.replace("EnvironmentFile=/etc/moorage/bridge.env\n", ""))["Service"]
    assert float(service["TimeoutStartSec"]) > DEFAULT_WAIT
    _, option, seconds, _ = words(service["ExecStop"], {"TARGET": "/t"})
    assert option == "--wait"
    assert float(service["TimeoutStopSec"]) > float(seconds)


def test_the_printed_unit_names_the_program_that_printed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/a/moorage"])
    printed = CliRunner().invoke(main, ["mount", "--unit"])
    assert (printed.exit_code, printed.output) == (0, UNIT.replace(UNIT_PROGRAM, "/a/moorage"))
