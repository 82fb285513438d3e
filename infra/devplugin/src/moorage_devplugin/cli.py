"""The command `moorage-devplugin`."""

import dataclasses
import os
import signal
import socket
from pathlib import Path

import click

from moorage_devplugin import __version__, faults, server
from moorage_devplugin.groups import Groups
from moorage_devplugin.identity import IdentityService
from moorage_devplugin.mounts import MountOption
from moorage_devplugin.node import Node
from moorage_devplugin.plugin import Plugin
from moorage_devplugin.profile import LIKE, Profile
from moorage_devplugin.snapshots import Snapshots
from moorage_devplugin.vault import Unusable, Vault
from moorage_devplugin.volumes import Volumes

GRACE_SECONDS = 5.0


class RuleType(click.ParamType[faults.Rule]):
    """A fault that faults.Rule can parse."""

    name = "rule"

    def convert(
        self, value: str | faults.Rule, param: click.Parameter | None, ctx: click.Context | None
    ) -> faults.Rule:
        if isinstance(value, faults.Rule):
            return value
        try:
            return faults.Rule.parse(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


@click.command(context_settings={"show_default": True, "max_content_width": 120})
@click.option("--endpoint", required=True, help="Socket to listen on: unix:///absolute/path.")
@click.option(
    "--root", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of all state and data."
)
@click.option("--like", type=click.Choice(sorted(LIKE)), default="directory", help="Which plugin to behave like.")
@click.option("--name", default=None, help="Plugin name; default: that of --like.")
@click.option("--vendor-version", default=None, help="Version to report; default: that of --like.")
@click.option("--node-id", default=socket.gethostname, show_default="host name", help="This node's ID at the provider.")
@click.option("--node", "other_nodes", multiple=True, help="Another node that volumes can be published to; repeatable.")
@click.option("--topology-key", default=None, help="Key of the one topology segment; default: that of --like.")
@click.option(
    "--ids", type=click.Choice(["named", "uuid"]), default=None, help="How IDs are made; default: that of --like."
)
@click.option(
    "--capacity", type=click.IntRange(min=0), default=0, help="Bytes of all volumes together; 0: what the disk has."
)
@click.option(
    "--mounts",
    type=click.Choice(["auto", "bind", "symlink"]),
    default="auto",
    help="How volumes are shown at paths.",
)
@click.option(
    "--writable-links", is_flag=True, help="Make a link even where read-only was asked for and cannot be kept."
)
@click.option("--fault", "rules", multiple=True, type=RuleType(), help="RPC=2.5s|CODE|die[@after][*TIMES]; repeatable.")
@click.option(
    "--faults", "file", type=click.Path(path_type=Path), help="File of such rules, one a line, read when it changes."
)
@click.option("--die-at", type=click.Choice(faults.POINTS), help="End as by SIGKILL at this step of a write.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning"]), default="info")
@click.version_option(__version__)
def main(  # noqa: PLR0913 - one parameter per option
    *,
    endpoint: str,
    root: Path,
    like: str,
    name: str | None,
    vendor_version: str | None,
    node_id: str,
    other_nodes: tuple[str, ...],
    topology_key: str | None,
    ids: str | None,
    capacity: int,
    mounts: MountOption,
    writable_links: bool,
    rules: tuple[faults.Rule, ...],
    file: Path | None,
    die_at: str | None,
    log_level: str,
) -> None:
    """Serve a CSI plugin whose volumes are plain folders in ROOT/volumes."""
    server.log_to_stderr(log_level)
    wishes = {"name": name, "version": vendor_version, "topology_key": topology_key, "ids": ids}
    profile: Profile = dataclasses.replace(LIKE[like], **{key: one for key, one in wishes.items() if one is not None})  # type: ignore[arg-type]
    trouble = faults.Faults(rules=list(rules), file=file, die_at=die_at)
    try:
        vault = Vault(root, trouble.reach)
        vault.open()
        plugin = Plugin(profile, vault, node_id, frozenset((node_id, *other_nodes)), capacity)
        run(endpoint, plugin, trouble, mounts=mounts, writable_links=writable_links)
    except Unusable as exc:
        raise click.ClickException(str(exc)) from exc


def run(endpoint: str, plugin: Plugin, trouble: faults.Faults, *, mounts: MountOption, writable_links: bool) -> None:
    """Serve until SIGTERM or SIGINT, and let calls that run then end."""
    volumes, snapshots = Volumes(plugin), Snapshots(plugin)
    services: dict[str, tuple[object, ...]] = {
        "Identity": (IdentityService(plugin),),
        "Controller": (volumes, snapshots),
        "Node": (Node(plugin, volumes, option=mounts, writable_links=writable_links),),
    }
    if plugin.profile.groups:
        services["GroupController"] = (Groups(plugin, snapshots),)
    # A pipe, not an Event: the handler may run while this thread, in `wait`, holds the lock that `set` needs.
    told, tell = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(tell, b"."))
    serving = server.serve(endpoint, services, trouble)
    server.log.info("ready", extra={"endpoint": endpoint, "root": str(plugin.vault.root)})
    os.read(told, 1)
    trouble.stopping.set()
    serving.stop(GRACE_SECONDS).wait()
    server.log.info("stopped")
