"""moorage ls: show what is mounted on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from moorage.mounts.place import Place, place_options

if TYPE_CHECKING:
    from pathlib import Path

    from moorage.mounts.mounting import Mounts, MountStatus


@click.command("ls")
@click.option("--json", "json_wanted", is_flag=True, help="Print JSON.")
@place_options
def ls(*, json_wanted: bool, state: Path, api_url: str | None, node: str | None, wait: float) -> None:
    """Show what is mounted here, and whether the claim behind it still stands.

    Exit code 0: shown, in order or not (--json says OK for each); 1: it could not be shown.
    """
    from moorage.mounts.terminal import as_json, run, status_json

    async def work(mounts: Mounts) -> list[MountStatus]:
        mounts.say("asking for the claims")
        return await mounts.statuses()

    statuses = run(Place(state, api_url, node, wait), work)
    if json_wanted:
        click.echo(as_json([status_json(status) for status in statuses]))
        return
    rows = [("TARGET", "VOLUME", "MODE", "STATE", "CLAIM", "ALLOCATION")]
    rows += [
        (
            status.entry.target,
            status.entry.name,
            status.entry.mode,
            _state(status),
            status.claim,
            status.entry.allocation,
        )
        for status in statuses
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for status in statuses:
        if status.entry.reason:
            click.echo(f"{status.entry.target}: {status.entry.reason}")
    if not all(status.ok for status in statuses):
        click.echo("moorage reconcile finishes, undoes or mounts again what is not in order", err=True)


def _state(status: MountStatus) -> str:
    return status.entry.stage.value if status.shown or status.entry.stage != "mounted" else "not there"
