"""What the commands about mounts share: progress on standard error, exit codes, JSON."""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from moorage.bridge.settings import BadSetting, parse_api
from moorage.files import read_whole
from moorage.mounts import api, paths
from moorage.mounts.journal import Entry, Journal, JournalTrouble
from moorage.mounts.mounting import Mounts, MountStatus, MountTrouble, StillRunning
from moorage.mounts.place import Place

T = TypeVar("T")
FAILED: Final = 1
STILL_RUNNING: Final = 3
QUIET_SECONDS: Final = 1.0
AGAIN_SECONDS: Final = 10.0


class StillRunningExit(click.ClickException):
    """The work is not over, which the exit code says."""

    exit_code = STILL_RUNNING


def run(place: Place, work: Callable[[Mounts], Awaitable[T]]) -> T:
    """Return what `work` returns. Its errors become text for a person and an exit code."""
    try:
        return asyncio.run(_run(place, work))
    except (MountTrouble, JournalTrouble, BadSetting, paths.BadTarget) as exc:
        raise click.ClickException(str(exc)) from exc
    except StillRunning as exc:
        raise StillRunningExit(str(exc)) from exc


def status_json(status: MountStatus) -> dict[str, Any]:
    """Return a mount's status as JSON for scripts."""
    return entry_json(status.entry) | {"Claim": status.claim, "Shown": status.shown, "OK": status.ok}


def entry_json(entry: Entry) -> dict[str, Any]:
    """Return a journal entry as JSON for scripts."""
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
    """Return the JSON text that these commands print."""
    return json.dumps(value, indent=2)


class Progress:
    """Lines on standard error about work that takes more than a second."""

    def __init__(self) -> None:
        self._text, self._printed, self._printed_at = "working", "", 0.0
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Set what is being done or waited for now."""
        self._text = text

    async def run(self) -> None:
        """Print the text when it changes, and every ten seconds, until cancelled."""
        while True:
            await asyncio.sleep(0.1)
            now = time.monotonic()
            if now - self._began < QUIET_SECONDS:
                continue
            if self._text != self._printed or now - self._printed_at > AGAIN_SECONDS:
                click.echo(f"moorage: {now - self._began:.0f} s: {self._text}", err=True)
                self._printed, self._printed_at = self._text, now


async def _run(place: Place, work: Callable[[Mounts], Awaitable[T]]) -> T:
    journal = Journal(place.state)
    journal.open()
    url = parse_api(place.api_url or _read_setting(place.state, "api", "--api URL"))
    node = place.node or _read_setting(place.state, "node-id", "--node ID")
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


def _read_setting(state: Path, name: str, option: str) -> str:
    try:
        return read_whole(state / name).decode().strip()
    except OSError as exc:
        raise BadSetting(
            f"{state / name} cannot be read ({exc.strerror}): name the state folder of the bridge on this machine with "
            f"--state, or give {option}"
        ) from exc
