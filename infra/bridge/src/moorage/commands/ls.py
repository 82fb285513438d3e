"""moorage ls: what is mounted on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from moorage.mounts.place import Place, place_options

if TYPE_CHECKING:
    from pathlib import Path

    from moorage.mounts.mounting import Mounts, Seen


@click.command("ls")
@click.option("--json", "json_wanted", is_flag=True, help="Print JSON.")
@place_options
def ls(*, json_wanted: bool, state: Path, api_url: str | None, node: str | None, wait: float) -> None:
    """Show what is mounted here, and whether the claim behind it still stands.

    Exit code 0: shown, well or not (--json says OK for each); 1: it could not be shown.
    """
    from moorage.mounts.terminal import as_json, run, shown

    async def work(mounts: Mounts) -> list[Seen]:
        mounts.say("asking for the claims")
        return await mounts.seen()

    found = run(Place(state, api_url, node, wait), work)
    if json_wanted:
        click.echo(as_json([shown(one) for one in found]))
        return
    rows = [("TARGET", "VOLUME", "MODE", "STATE", "CLAIM", "ALLOCATION")]
    rows += [
        (one.entry.target, one.entry.name, one.entry.mode, _state(one), one.claim, one.entry.allocation)
        for one in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for one in found:
        if one.entry.reason:
            click.echo(f"{one.entry.target}: {one.entry.reason}")
    if not all(one.well for one in found):
        click.echo("moorage reconcile finishes, undoes or mounts again what is not well", err=True)


def _state(seen: Seen) -> str:
    return seen.entry.stage.value if seen.shown or seen.entry.stage != "mounted" else "not there"
