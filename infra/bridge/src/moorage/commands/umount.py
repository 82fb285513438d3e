"""moorage umount: unmount a volume of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from moorage.mounts.place import Place, complete_mounted, place_options

if TYPE_CHECKING:
    from pathlib import Path

    from moorage.mounts.journal import Entry
    from moorage.mounts.mounting import Mounts


@click.command()
@click.argument("name", metavar="TARGET|VOLUME", shell_complete=complete_mounted)
@click.option("--namespace", default="default", envvar="NOMAD_NAMESPACE", help="The volume's namespace.")
@click.option("--json", "json_wanted", is_flag=True, help="Print what was unmounted as JSON.")
@place_options
def umount(
    *,
    name: str,
    namespace: str,
    json_wanted: bool,
    state: Path,
    api_url: str | None,
    node: str | None,
    wait: float,
) -> None:
    """Unmount what is at TARGET, or VOLUME, and release its claim.

    Exit code 0: unmounted and released; 1: refused or failed; 2: wrong usage; 3: not over yet, do it again.
    """
    from moorage.mounts.terminal import as_json, entry_json, run

    async def work(mounts: Mounts) -> Entry:
        mounts.say(f"unmounting {name}")
        return await mounts.umount(name, namespace)

    entry = run(Place(state, api_url, node, wait), work)
    if json_wanted:
        click.echo(as_json(entry_json(entry)))
