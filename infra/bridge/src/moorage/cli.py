"""The command `moorage`: one group, with a module in moorage.commands for each subcommand.

A subcommand's module is imported when the subcommand is asked for. It imports what only its work needs (grpc, aiohttp,
cryptography) when the work begins. So help, version and completion import click alone.
"""

from importlib import import_module
from typing import Final

import click

from moorage import __version__

COMMANDS: Final = {
    "audit": ("moorage.commands.audit", "Compare what plugins have with what is registered, and change nothing."),
    "bridge": ("moorage.commands.bridge", "Relay CSI calls from the control plane to plugins on this machine."),
    "certs": (
        "moorage.commands.certs",
        "Make a CA, issue and renew certificates for bridges and the worker, refuse some.",
    ),
    "ls": ("moorage.commands.ls", "Show what is mounted here, and whether the claim behind it still stands."),
    "mount": (
        "moorage.commands.mount",
        "Mount VOLUME at TARGET and print the path.",
    ),
    "reconcile": (
        "moorage.commands.reconcile",
        "Finish what a crash left half-done, and mount again what a reboot or a lost claim took away.",
    ),
    "umount": ("moorage.commands.umount", "Unmount what is at TARGET, or VOLUME, and release its claim."),
}
"""Module and short help of each command. The short help is the first sentence of its own help (test_cli.py)."""


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for, and lists the commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """Return the names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """Import and return the command, or None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write the list of commands from COMMANDS. Click's own would import each command for its help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, short_help) for name, (_, short_help) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"show_default": True, "max_content_width": 120})
@click.version_option(__version__)
def main() -> None:
    """Put CSI plugins behind a Moorage control plane, and mount its volumes."""
