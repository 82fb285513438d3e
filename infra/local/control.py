"""Show, stop and remove a local system from another terminal."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Final

import psutil

from infra.local import say
from infra.local.emulator import Emulator, kill_workers
from infra.local.plugins import registered_plugins
from infra.local.processes import ProcessId, end_leftovers
from infra.local.supervisor import pid_files

if TYPE_CHECKING:
    from infra.local.settings import Settings

STOP_WITHIN: Final = 90.0


def stop(settings: Settings) -> int:
    """Stop the system and what a killed one left behind. Its state stays. Return the exit code."""
    supervisor = _supervisor(settings)
    if supervisor is not None:
        with say.step(f"Stopping the local system (pid {supervisor.pid})"):
            supervisor.terminate()
            try:
                supervisor.wait(STOP_WITHIN)
            except psutil.TimeoutExpired as exc:
                raise say.Trouble(
                    f"pid {supervisor.pid} did not end within {STOP_WITHIN:.0f} s; look into {settings.logs}"
                ) from exc
    left = end_leftovers(pid_files(settings))
    if left.get("emulator"):
        Emulator(settings).mark_clean()
    workers = kill_workers(settings)
    if left or workers:
        say.line(
            f"  Ended what an earlier run left behind: {', '.join([*left, *(['worker processes'] if workers else [])])}"
        )
    if supervisor is None and not left and not workers:
        say.line("Nothing runs.")
    return 0


def status(settings: Settings) -> int:
    """Print what runs, and where. Return the exit code."""
    supervisor = _supervisor(settings)
    if supervisor is None:
        files = sorted(pid_files(settings))
        left = [path.stem for path in files if (found := ProcessId.read(path)) and found.process()]
        say.line(
            "The local system does not run."
            + (f" Left of an earlier one: {', '.join(left)}; make stop ends them." if left else "")
        )
        return 0
    say.line(f"The local system of {settings.state} runs (pid {supervisor.pid}).")
    try:
        ready = json.loads(settings.ready_file.read_text())
    except FileNotFoundError:
        say.line("  It is still starting.")
        return 0
    plugins = registered_plugins(ready["api_url"])
    say.line(f"  API        {ready['api_url']}  (stage {ready['stage']})")
    say.line(f"  emulator   {ready['endpoint']}")
    say.line(f"  bridge     {ready['bridge']}")
    for plugin_id, root in ready["plugins"].items():
        say.line(
            f"  plugin     {plugin_id}: {'registered' if plugin_id in plugins else 'not registered'}, volumes in {root}"
        )
    for path in sorted(pid_files(settings)):
        found = ProcessId.read(path)
        runs = found is not None and found.process() is not None
        say.line(f"  {path.stem:<17} {f'pid {found.pid}' if found and runs else 'does not run'}")
    say.line(f"  logs       {settings.logs}")
    return 0


def forget(settings: Settings, *, sure: bool) -> int:
    """Stop the system and remove its state, volumes too. Asks before, unless `sure`. Return the exit code."""
    if not settings.state.exists():
        say.line(f"There is no {settings.state}: nothing to forget.")
        return 0
    mounted = [
        part.mountpoint for part in psutil.disk_partitions(all=True) if part.mountpoint.startswith(f"{settings.state}/")
    ]
    if mounted:
        raise say.Trouble(f"{mounted[0]} is still mounted: unmount it first, or its content would be deleted too")
    if not sure:
        _ask(settings)
    stop(settings)
    with say.step(f"Forgetting {settings.state}"), say.readable_errors(str(settings.state)):
        shutil.rmtree(settings.state)
    return 0


def _ask(settings: Settings) -> None:
    """Ask whether to remove the state. Raises Trouble unless the answer is yes."""
    say.line(f"This removes {settings.state} for good, with the data of {_volumes(settings)}.")
    if sys.stdin is None or not sys.stdin.isatty():
        raise say.Trouble("nothing was removed: make forget asks on a terminal; without one, add YES=1")
    try:
        answer = input("Type yes to go on: ")
    except EOFError:
        answer = ""
    if answer.strip().lower() != "yes":
        raise say.Trouble("nothing was removed")


def _volumes(settings: Settings) -> str:
    """Return the number of volumes of the directory plugins in the state folder, as text."""
    count = sum(1 for _ in settings.state.glob("*/volumes/*"))
    return f"{count} volume{'' if count == 1 else 's'}"


def _supervisor(settings: Settings) -> psutil.Process | None:
    process_id = ProcessId.read(settings.supervisor_file)
    return process_id.process() if process_id else None
