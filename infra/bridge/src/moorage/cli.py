"""The command moorage: one group, one module per subcommand in moorage.commands."""

import click

from moorage import __version__
from moorage.commands.audit import audit
from moorage.commands.bridge import bridge
from moorage.commands.certs import certs
from moorage.commands.ls import ls
from moorage.commands.mount import mount
from moorage.commands.reconcile import reconcile
from moorage.commands.umount import umount


@click.group(context_settings={"show_default": True, "max_content_width": 120})
@click.version_option(__version__)
def main() -> None:
    """Put CSI plugins behind a Moorage control plane, and mount its volumes."""


main.add_command(audit)
main.add_command(bridge)
main.add_command(certs)
main.add_command(ls)
main.add_command(mount)
main.add_command(reconcile)
main.add_command(umount)
