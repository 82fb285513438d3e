"""Options that the commands about mounts share. Imports only what their help needs."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from moorage.mounts.journal import Journal, JournalTrouble

F = TypeVar("F", bound=Callable[..., Any])
STATE_VARIABLE: Final = "MOORAGE_BRIDGE_STATE"
DEFAULT_STATE: Final = "/var/lib/moorage"
DEFAULT_WAIT: Final = 300.0


@dataclass(frozen=True)
class Place:
    """The bridge of this machine. None stands for what its state folder says."""

    state: Path
    api_url: str | None = None
    node: str | None = None
    wait: float = DEFAULT_WAIT


def place_options(command: F) -> F:
    """Add --state, --api, --node and --wait to a command."""
    options = (
        click.option(
            "--state",
            type=click.Path(path_type=Path, file_okay=False),
            default=DEFAULT_STATE,
            envvar=STATE_VARIABLE,
            show_envvar=True,
            help="The bridge's state folder.",
        ),
        click.option("--api", "api_url", default=None, metavar="URL", help="The control plane; default: the bridge's."),
        click.option("--node", default=None, metavar="ID", help="This node; default: the bridge's."),
        click.option(
            "--wait",
            type=click.FloatRange(min=0),
            default=DEFAULT_WAIT,
            metavar="SECONDS",
            help="How long to wait before exit code 3.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def complete_mounted(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the targets and volumes in the journal that begin with `incomplete`, or none if it cannot be read."""
    state = context.params.get("state") or Path(os.environ.get(STATE_VARIABLE) or DEFAULT_STATE)
    try:
        entries = Journal(state).entries()
    except JournalTrouble:
        return []  # an error message would be mixed into the command line
    names = [name for entry in entries for name in (entry.target, entry.volume)]
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]
