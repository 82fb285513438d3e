"""What starting the command costs: help and version need click and nothing else."""

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from moorage import __version__
from moorage.cli import COMMANDS, main

PROGRAM = """
import sys
before = set(sys.modules)
from moorage.cli import main
try:
    main()
finally:
    print(*sorted(set(sys.modules) - before), file=sys.stderr)
"""


def paths(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The names that lead to each command, from `moorage` itself on."""
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from paths(below, (*path, name))


def started(*arguments: str) -> tuple[str, set[str]]:
    """What a new process prints, and the modules that it imports."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout, set(done.stderr.split())


def others(modules: set[str]) -> set[str]:
    """The packages among them that are neither the standard library's nor ours."""
    return {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - {"moorage"}


@pytest.mark.parametrize("path", list(paths(main)), ids=lambda path: " ".join(("moorage", *path)))
def test_help_imports_click_alone(path: tuple[str, ...]) -> None:
    printed, modules = started(*path, "--help")
    assert printed.startswith("Usage: ")
    assert others(modules) == {"click"}


def test_version_imports_click_alone() -> None:
    printed, modules = started("--version")
    assert printed.rstrip().endswith(f"version {__version__}")
    assert others(modules) == {"click"}


def test_help_imports_no_command_and_a_commands_help_no_other_command() -> None:
    ours = {name for name in started("--help")[1] if name.startswith("moorage.")}
    assert ours == {"moorage.cli"}
    commands = {name for name in started("ls", "--help")[1] if name.startswith("moorage.commands.")}
    assert commands == {"moorage.commands.ls"}


def test_a_command_that_works_imports_what_it_needs(tmp_path: Path) -> None:
    """The modules are counted, so the short lists above mean something."""
    assert "cryptography" in others(started("certs", "show", str(tmp_path))[1])


@pytest.mark.parametrize("name", COMMANDS)
def test_the_short_help_is_the_commands_own(name: str) -> None:
    module, short_help = COMMANDS[name]
    command = getattr(import_module(module), name)
    assert (command.name, command.get_short_help_str(limit=500)) == (name, short_help)


def test_every_module_of_commands_is_in_the_table() -> None:
    """A command that is missing there cannot be called."""
    names = {path.name for path in files("moorage.commands").iterdir() if path.name.endswith(".py")}
    assert {name.removesuffix(".py") for name in names} - {"__init__", "units"} == set(COMMANDS)


def test_help_shows_each_command_with_its_short_help() -> None:
    printed = CliRunner().invoke(main, ["--help"], terminal_width=200).output
    for name, (_, short_help) in COMMANDS.items():
        assert f"{name} " in printed
        assert short_help in printed


def test_a_command_that_is_none_is_refused() -> None:
    refused = CliRunner().invoke(main, ["mounts"])
    assert (refused.exit_code, "No such command 'mounts'" in refused.output) == (2, True)
