"""What the commands about mounts share: where the state is, progress on standard error, exit codes."""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from moorage.bridge.settings import BadSetting, parse_api
from moorage.mounts import api, paths
from moorage.mounts.journal import Entry, Journal, JournalTrouble
from moorage.mounts.mounting import Mounts, MountTrouble, Seen, StillRunning

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
FAILED: Final = 1
STILL_RUNNING: Final = 3
QUIET_SECONDS: Final = 1.0
AGAIN_SECONDS: Final = 10.0
STATE_VARIABLE: Final = "MOORAGE_BRIDGE_STATE"
DEFAULT_STATE: Final = "/var/lib/moorage"
DEFAULT_WAIT: Final = 300.0


@dataclass(frozen=True)
class Place:
    """Which bridge's machine this is; None: as its state folder says."""

    state: Path
    api_url: str | None = None
    node: str | None = None
    wait: float = DEFAULT_WAIT


class NotOver(click.ClickException):
    """It goes on; the exit code says so."""

    exit_code = STILL_RUNNING


def place_options(command: F) -> F:
    """--state, --api, --node and --wait."""
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


def run(place: Place, work: Callable[[Mounts], Awaitable[T]]) -> T:
    """What `work` answers; its errors become text for a person, and exit codes."""
    try:
        return asyncio.run(_run(place, work))
    except (MountTrouble, JournalTrouble, BadSetting, paths.BadTarget) as exc:
        raise click.ClickException(str(exc)) from exc
    except StillRunning as exc:
        raise NotOver(str(exc)) from exc


def shown(seen: Seen) -> dict[str, Any]:
    """A mount for scripts."""
    return described(seen.entry) | {"Claim": seen.claim, "Shown": seen.shown, "OK": seen.well}


def described(entry: Entry) -> dict[str, Any]:
    """An entry for scripts."""
    return {
        "Target": entry.target,
        "Namespace": entry.namespace,
        "VolumeID": entry.volume,
        "AllocationID": entry.allocation,
        "NodeID": entry.node,
        "PluginID": entry.plugin,
        "Mode": entry.mode,
        "AccessMode": entry.access_mode,
        "AttachmentMode": entry.attachment_mode,
        "LeaseSeconds": entry.lease,
        "Stage": entry.stage.value,
        "Reason": entry.reason,
    }


def as_json(value: Any) -> str:
    """JSON as these commands print it."""
    return json.dumps(value, indent=2)


def complete_mounted(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Targets and volumes of the journal that begin like this; nothing when it cannot be read."""
    state = context.params.get("state") or Path(os.environ.get(STATE_VARIABLE) or DEFAULT_STATE)
    try:
        entries = Journal(state).entries()
    except JournalTrouble:
        return []  # an error message would be mixed into the command line
    names = [name for entry in entries for name in (entry.target, entry.volume)]
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


class Progress:
    """Lines on standard error about what takes more than a second; nothing about what is done at once."""

    def __init__(self) -> None:
        self._text, self._told, self._told_at = "working", "", 0.0
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """What is being done, or waited for, now."""
        self._text = text

    async def run(self) -> None:
        """Tell it until cancelled."""
        while True:
            await asyncio.sleep(0.1)
            now = time.monotonic()
            if now - self._began < QUIET_SECONDS:
                continue
            if self._text != self._told or now - self._told_at > AGAIN_SECONDS:
                click.echo(f"moorage: {now - self._began:.0f} s: {self._text}", err=True)
                self._told, self._told_at = self._text, now


async def _run(place: Place, work: Callable[[Mounts], Awaitable[T]]) -> T:
    journal = Journal(place.state)
    journal.open()
    url = parse_api(place.api_url or _kept(place.state, "api", "--api URL"))
    node = place.node or _kept(place.state, "node-id", "--node ID")
    progress = Progress()
    async with api.connected(url, place.state / api.TOKEN_FILE) as connected:
        telling = asyncio.create_task(progress.run())
        try:
            return await work(Mounts(journal, connected, node, place.wait, progress.say))
        finally:
            telling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await telling
            sys.stderr.flush()


def _kept(state: Path, name: str, option: str) -> str:
    try:
        return (state / name).read_text().strip()
    except OSError as exc:
        raise BadSetting(
            f"{state / name} cannot be read ({exc.strerror}): --state names the folder of the bridge on this machine; "
            f"or give {option}"
        ) from exc
