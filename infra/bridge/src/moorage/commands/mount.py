"""moorage mount: mount a volume at a path of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from moorage.commands.units import unit_option
from moorage.mounts import paths
from moorage.mounts.place import Place, place_options

if TYPE_CHECKING:
    from pathlib import Path

    from moorage.mounts.journal import Entry
    from moorage.mounts.mounting import Mounts

LEASE_LIMITS = (5, 24 * 3600)


@click.command()
@click.argument("volume")
@click.argument("target", type=click.Path())
@click.option("--namespace", default="default", envvar="NOMAD_NAMESPACE", help="The volume's namespace.")
@click.option("--read-only", is_flag=True, help="Claim it to read; the plugin mounts it so.")
@click.option("--access-mode", default="", metavar="MODE", help="Where the volume allows more than one.")
@click.option("--attachment-mode", default="", metavar="MODE", help="file-system or block-device, if both are allowed.")
@click.option("--alloc", default="", metavar="ID", help="Who holds the claim; default: an ID of its own.")
@click.option(
    "--lease", type=int, default=120, metavar="SECONDS", help="Renewed by the bridge; 0: until it is unmounted."
)
@click.option("--json", "json_wanted", is_flag=True, help="Print the mount as JSON instead of its path.")
@place_options
@unit_option("moorage-mount@.service")
def mount(  # noqa: PLR0913 - one parameter per option
    *,
    volume: str,
    target: str,
    namespace: str,
    read_only: bool,
    access_mode: str,
    attachment_mode: str,
    alloc: str,
    lease: int,
    json_wanted: bool,
    state: Path,
    api_url: str | None,
    node: str | None,
    wait: float,
) -> None:
    """Mount VOLUME at TARGET and print the path. A bridge and the volume's plugin must run here.

    The directory above TARGET must exist. TARGET itself is made, or is an empty directory. The same command again
    finishes what was interrupted, and changes nothing about a mount that is in order.

    Exit code 0: mounted; 1: refused or failed, and nothing is left; 2: wrong usage; 3: not over yet, do it again.
    """
    from moorage.mounts.mounting import MountRequest
    from moorage.mounts.terminal import as_json, entry_json, run

    low, high = LEASE_LIMITS
    if lease and not low <= lease <= high:
        raise click.BadParameter(f"{lease} is not between {low} and {high}, nor 0", param_hint="--lease")
    try:
        resolved = paths.resolve_target(target)
    except paths.BadTarget as exc:
        raise click.ClickException(str(exc)) from exc
    request = MountRequest(
        namespace=namespace,
        volume=volume,
        target=resolved,
        mode="read" if read_only else "write",
        access_mode=access_mode,
        attachment_mode=attachment_mode,
        allocation=alloc,
        lease=lease,
    )

    async def work(mounts: Mounts) -> Entry:
        mounts.say(f"mounting {volume} at {resolved}")
        return await mounts.mount(request)

    entry = run(Place(state, api_url, node, wait), work)
    click.echo(as_json(entry_json(entry)) if json_wanted else entry.target)
