"""moorage reconcile: finish and mount again after a crash or a reboot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from moorage.mounts.journal import Entry, Stage
from moorage.mounts.place import Place, place_options

if TYPE_CHECKING:
    from pathlib import Path

    from moorage.mounts.mounting import Mounts


@click.command()
@click.option("--json", "json_wanted", is_flag=True, help="Print JSON.")
@place_options
def reconcile(*, json_wanted: bool, state: Path, api_url: str | None, node: str | None, wait: float) -> None:
    """Finish what a crash left half-done, and mount again what a reboot or a lost claim took away.

    What was to be unmounted is unmounted; everything else is mounted. Safe at any time, and to repeat.

    Exit code 0: everything is as it should be; 1: something failed; 3: something is not over yet, do it again.
    """
    from moorage.mounts.mounting import StillRunning
    from moorage.mounts.terminal import FAILED, STILL_RUNNING, as_json, entry_json, run

    async def work(mounts: Mounts) -> list[tuple[Entry, Exception | None]]:
        return await mounts.reconcile()

    done = run(Place(state, api_url, node, wait), work)
    if json_wanted:
        click.echo(as_json([entry_json(e) | {"Error": "" if trouble is None else str(trouble)} for e, trouble in done]))
    else:
        for entry, trouble in done:
            what = "unmounted" if entry.stage is Stage.UNMOUNTING else "mounted"
            click.echo(f"{entry.target}: {entry.name} {what if trouble is None else f'failed: {trouble}'}")
    troubles = [trouble for _, trouble in done if trouble is not None]
    if troubles:
        click.get_current_context().exit(
            STILL_RUNNING if all(isinstance(trouble, StillRunning) for trouble in troubles) else FAILED
        )
