"""A program that a test runs: one command about mounts that dies, as by SIGKILL, at a step that the test names.

Arguments: STATE STEP COMMAND [ARGUMENTS]. Steps are those of the journal and of the control plane, `NAME:N` for the
Nth of that name: `put`, `forget` (after it), `claim`, `release` (when it was answered), `ask claim`, `ask release`
(it was sent, and nobody will hear the answer). What dies is the product's own code, between two of its own steps.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from moorage.mounts import paths
from moorage.mounts.api import LONGEST_WAIT, ControlPlane, connected
from moorage.mounts.journal import Entry, Journal
from moorage.mounts.mounting import MountRequest, Mounts

SENT_SECONDS = 0.1


class Death:
    """Ends this process at the step."""

    def __init__(self, step: str) -> None:
        self._name, _, number = step.partition(":")
        self._number = int(number or 1)
        self._count = Counter[str]()

    def is_now(self, name: str) -> bool:
        self._count[name] += 1
        return (name, self._count[name]) == (self._name, self._number)

    def reach(self, name: str) -> None:
        if self.is_now(name):
            os.kill(os.getpid(), signal.SIGKILL)


class DyingJournal(Journal):
    """A journal of a process that dies."""

    death: Death

    def put(self, entry: Entry) -> Entry:
        super().put(entry)
        self.death.reach("put")
        return entry

    def forget(self, entry: Entry) -> None:
        super().forget(entry)
        self.death.reach("forget")


class DyingPlane(ControlPlane):
    """Requests of a process that dies."""

    death: Death

    async def claim(self, entry: Entry, *, wait: float = LONGEST_WAIT) -> dict[str, Any]:
        taken = await self._unheard("claim", super().claim(entry, wait=wait))
        self.death.reach("claim")
        return taken  # type: ignore[no-any-return]

    async def release(self, entry: Entry, *, wait: float = LONGEST_WAIT) -> None:
        await self._unheard("release", super().release(entry, wait=wait))
        self.death.reach("release")

    async def _unheard(self, name: str, request: Any) -> Any:
        if self.death.is_now(f"ask {name}"):
            sending = asyncio.ensure_future(request)
            await asyncio.wait([sending], timeout=SENT_SECONDS)
            os.kill(os.getpid(), signal.SIGKILL)
        return await request


async def main(state: Path, step: str, command: str, *arguments: str) -> None:
    """Run it; a step that is not reached is an error."""
    death = Death(step)
    journal = DyingJournal(state)
    journal.death = death
    journal.open()
    async with connected((state / "api").read_text().strip()) as plane:
        plane.__class__ = DyingPlane
        assert isinstance(plane, DyingPlane)
        plane.death = death
        mounts = Mounts(journal, plane, (state / "node-id").read_text().strip(), 60.0)
        if command == "mount":
            volume, target = arguments
            request = MountRequest(
                namespace="default", volume=volume, target=paths.resolve_target(target), mode="write", lease=60
            )
            await mounts.mount(request)
        elif command == "umount":
            await mounts.umount(arguments[0], "default")
        else:
            await mounts.reconcile()
    raise AssertionError(f"{command} never came to {step}")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
