"""A bridge that is told to stop ends, also when its parts are woken in the same moment."""

import asyncio
from collections.abc import Callable

import pytest

from infra.bridge.tests.parts import WITHIN, ControlPlane, FakePlugin
from moorage.bridge.run import Bridge
from moorage.bridge.settings import Settings

pytestmark = pytest.mark.enable_socket


async def cancelled_while_woken(task: asyncio.Task[None], wake: Callable[[], None]) -> bool:
    """Cancel a waiting task in the step of the loop that wakes it, and return whether it ended so."""
    wake()
    task.cancel()
    await asyncio.wait([task], timeout=WITHIN)
    ended = task.cancelled()
    task.cancel()  # one that went on had lost the first
    await asyncio.gather(task, return_exceptions=True)
    return ended


def test_watch_and_registration_end_though_they_are_woken_while_they_are_cancelled(
    settings: Settings, plugin: FakePlugin, control_plane: ControlPlane
) -> None:
    async def run() -> list[bool]:
        bridge = await Bridge.start(settings)
        watch, registration = bridge.watches[0], bridge.registration
        tasks = [asyncio.create_task(watch.run()), asyncio.create_task(registration.run())]
        async with asyncio.timeout(WITHIN):
            await registration.registered.wait()
        # Past the first look and the shortest pause between two messages: both wait for what may wake them.
        await asyncio.sleep(2.0)
        ended = [
            await cancelled_while_woken(tasks[0], watch.look_now),
            await cancelled_while_woken(tasks[1], registration.changed),
        ]
        await bridge.close()
        return ended

    assert asyncio.run(run()) == [True, True]
