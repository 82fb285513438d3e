"""The command moorage: one group, one module per subcommand in moorage.commands."""

import click

from moorage import __version__
from moorage.commands.audit import audit
from moorage.commands.bridge import bridge
from moorage.commands.certs import certs


@click.group(context_settings={"show_default": True, "max_content_width": 120})
@click.version_option(__version__)
def main() -> None:
    """Put CSI plugins behind a Moorage control plane."""


main.add_command(audit)
main.add_command(bridge)
main.add_command(certs)
