"""Mount and unmount volumes: write the journal first, then take the claim, then look at the target.

The control plane mounts: its worker calls the plugin through this machine's bridge. The bridge unmounts what this node
may no longer use. Every request here can be repeated, so a mount found half-done is finished by doing the same again.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import quote

from moorage.mounts import paths
from moorage.mounts.api import (
    LONGEST_WAIT,
    ApiTrouble,
    Conflict,
    ControlPlane,
    Missing,
    Pending,
    Refused,
    Unavailable,
    is_taken,
)
from moorage.mounts.journal import Entry, Journal, Stage, key_of

T = TypeVar("T")
POLL_SECONDS: Final = 0.2
LEASE_SHARE: Final = 0.75
"""Share of a lease after which a command stops waiting for a control plane that does not answer."""
FIRST_WAIT: Final = 3.0
"""Seconds that the first request may wait, so that a problem is shown while it lasts."""


class MountTrouble(Exception):
    """The command was refused or failed. The text says why and what to do."""


class MountFailed(MountTrouble):
    """A mount was tried and failed. `entry` is its journal entry."""

    def __init__(self, entry: Entry, text: str) -> None:
        super().__init__(text)
        self.entry = entry


class StillRunning(Exception):
    """The work is not over, and the same command continues it. The text says what it waits for."""


@dataclass(frozen=True, kw_only=True)
class MountRequest:
    """What `moorage mount` was asked for. An empty mode or allocation leaves the choice to Moorage."""

    namespace: str
    volume: str
    target: str
    mode: str
    access_mode: str = ""
    attachment_mode: str = ""
    allocation: str = ""
    lease: int = 0


@dataclass(frozen=True)
class MountStatus:
    """A mount as the journal, the control plane and the file system have it now."""

    entry: Entry
    claim: str
    """State of the claim (`taken`, …), `gone`, or `unknown` when the control plane does not answer."""
    shown: bool
    """Whether anything is mounted or linked at the target."""

    @property
    def ok(self) -> bool:
        return self.entry.stage is Stage.MOUNTED and self.claim == "taken" and self.shown


@dataclass
class Mounts:
    """The mounts of this machine."""

    journal: Journal
    api: ControlPlane
    node: str
    wait: float
    """Seconds that one command may wait before it raises StillRunning."""
    say: Callable[[str], None] = lambda _: None

    async def mount(self, request: MountRequest) -> Entry:
        """Mount the volume at the target and return the journal's entry.

        Raises MountTrouble, StillRunning, JournalTrouble.
        """
        end = time.monotonic() + self.wait
        async with self._attempt(request.target, end):
            entry = self.journal.get(key_of(request.target))
            if entry is None:
                return await self._mount(await self._add_entry(request), None, end)
            _check_same(entry, request)
            return await self._mount_again(entry, end)

    async def umount(self, name: str, namespace: str) -> Entry:
        """Unmount the target or volume `name` and release its claim.

        Raises MountTrouble, StillRunning, JournalTrouble.
        """
        entry = self.find(name, namespace)
        end = time.monotonic() + self.wait
        async with self._hold(entry.target, end):
            now = self.journal.get(entry.key)
            if now is None or now.allocation != entry.allocation:
                raise MountTrouble(f"{entry.target} was unmounted or mounted anew meanwhile: moorage ls shows it")
            entry = self.journal.put(now.at(Stage.UNMOUNTING))
        await self._unmount(entry, end)
        return entry

    async def reconcile(self) -> list[tuple[Entry, Exception | None]]:
        """Finish or undo each half-done entry and mount again what should be mounted.

        Returns each entry with None or with the exception that kept it from being done. Raises JournalTrouble.
        """
        results: list[tuple[Entry, Exception | None]] = []
        for entry in self.journal.entries():
            self.say(f"{entry.name} at {entry.target}: {entry.stage}")
            try:
                results.append((await self._reconcile_entry(entry), None))
            except (MountTrouble, StillRunning) as exc:
                results.append((entry, exc))
        return results

    async def statuses(self) -> list[MountStatus]:
        """Return the status of every entry in the journal."""
        return list(await asyncio.gather(*(self._status(entry) for entry in self.journal.entries())))

    def find(self, name: str, namespace: str) -> Entry:
        """Return the entry whose target or volume is `name`. Raises MountTrouble if there is none or more than one."""
        entries = self.journal.entries()
        spellings = paths.spellings(name)
        at_target = [entry for entry in entries if entry.target in spellings]
        matches = at_target or [entry for entry in entries if (entry.namespace, entry.volume) == (namespace, name)]
        if not matches:
            raise MountTrouble(f"Moorage mounted nothing at {name}, and no volume of that name: see moorage ls")
        if len(matches) > 1:
            targets = ", ".join(entry.target for entry in matches)
            raise MountTrouble(f"volume {name} is mounted more than once: name one of {targets}")
        return matches[0]

    async def _reconcile_entry(self, entry: Entry) -> Entry:
        end = time.monotonic() + self.wait
        if entry.stage is Stage.UNMOUNTING:
            await self._unmount(entry, end)
            return entry
        async with self._attempt(entry.target, end):
            now = self.journal.get(entry.key)
            if now is None or now.allocation != entry.allocation or now.stage is Stage.UNMOUNTING:
                return now or entry  # another command changed it before we held it
            return await self._mount_again(now, end)

    @asynccontextmanager
    async def _attempt(self, target: str, end: float) -> AsyncIterator[None]:
        """Hold the target's entry in this block, and record a MountFailed that leaves it.

        A mount that never worked is undone. One that worked before stays wanted: the bridge unmounts what is left of
        it, and `moorage reconcile` mounts it again.
        """
        try:
            async with self._hold(target, end):
                try:
                    yield
                except MountFailed as exc:
                    failed = exc.entry
                    exc.entry = self.journal.put(
                        failed.at(Stage.LOSING, reason=str(exc)) if failed.settled else failed.at(Stage.UNMOUNTING)
                    )
                    raise
        except MountFailed as exc:
            # Only now, when the entry is not held any more: the bridge may need it to unmount.
            if exc.entry.stage is Stage.UNMOUNTING:
                await self._unmount(exc.entry, end)
            raise

    async def _add_entry(self, request: MountRequest) -> Entry:
        """Write the new entry to the journal, before anything else is done. Raises MountTrouble."""
        obstacle = paths.obstacle(request.target, ours=False)
        if obstacle:
            raise MountTrouble(obstacle)
        allocation = request.allocation or str(uuid.uuid4())
        for other in self.journal.entries():
            if (other.name, other.allocation) == (f"{request.namespace}/{request.volume}", allocation):
                raise MountTrouble(f"allocation {allocation} has this volume at {other.target}: use another --alloc")
        volume = await self._read_volume(request.namespace, request.volume)
        entry = Entry(
            target=request.target,
            namespace=request.namespace,
            volume=request.volume,
            allocation=allocation,
            node=self.node,
            mode=request.mode,
            access_mode=request.access_mode,
            attachment_mode=request.attachment_mode,
            staging=str(self.journal.staging_of(request.namespace, request.volume)),
            lease=request.lease,
            plugin=volume["PluginID"],
            external_id=volume["ExternalID"],
            stage=Stage.WANTED,
            folder_mode=paths.folder_mode(request.target),
            renewed_at=time.time(),
        )
        return self.journal.put(entry)

    async def _read_volume(self, namespace: str, volume: str) -> dict[str, Any]:
        try:
            return await self.api.volume(namespace, volume)
        except Missing as exc:
            raise MountTrouble(f"there is no volume {volume} in namespace {namespace}: create it first") from exc
        except ApiTrouble as exc:
            raise MountTrouble(f"volume {volume} cannot be read: {exc}") from exc

    async def _mount_again(self, entry: Entry, end: float) -> Entry:
        """Mount an entry that an earlier command wrote, unless it is mounted and its claim stands."""
        claim = await self._claim_of(entry, end)
        if entry.stage is Stage.MOUNTED and is_taken(claim) and paths.mount_at(entry.target):
            return entry
        return await self._mount(self.journal.put(entry.at(Stage.WANTED, renewed_at=time.time())), claim, end)

    async def _mount(self, entry: Entry, claim: dict[str, Any] | None, end: float) -> Entry:
        """Mount the entry. `claim` is the claim that its allocation already has on the volume, if any.

        Raises MountFailed, MountTrouble, StillRunning.
        """
        if claim is not None and not (is_taken(claim) and (paths.mount_at(entry.target) or not claim["Published"])):
            # The control plane does not publish a published claim again. A reboot took the mount away, or the claim is
            # being released: release it fully and take a new one.
            await self._release(entry, end)
        obstacle = paths.obstacle(entry.target, ours=True)
        if obstacle:
            raise MountFailed(entry, obstacle)
        self.journal.make_staging(entry)
        taken = await self._take_claim(entry, end)
        shows = paths.mount_at(entry.target)
        if not shows:
            raise MountFailed(
                entry,
                f"the plugin says that it published the volume, and nothing is at {entry.target}: if the plugin runs "
                "in a container, its mounts must reach this machine (mount propagation, CSI spec, NodePublishVolume)",
            )
        volume, renewed_at = await self._confirm_claim(entry, end)
        return self.journal.put(
            entry.at(
                Stage.MOUNTED,
                settled=True,
                reason="",
                renewed_at=renewed_at,
                shows=shows,
                access_mode=taken["AccessMode"],
                attachment_mode=taken["AttachmentMode"],
                plugin=volume["PluginID"],
                external_id=volume["ExternalID"],
                capacity=volume["Capacity"],
            )
        )

    async def _take_claim(self, entry: Entry, end: float) -> dict[str, Any]:
        """Take the entry's claim and wait until it is published. Raises MountFailed, MountTrouble, StillRunning."""
        try:
            return await self._retry(lambda wait: self.api.claim(entry, wait=wait), entry, end)
        except Conflict as exc:
            if entry.settled:
                raise MountFailed(entry, str(exc)) from exc
            # The allocation holds another claim, which is not ours to release: forget the entry instead of undoing it.
            self.journal.forget(entry)
            raise MountTrouble(str(exc)) from exc
        except (Missing, Refused) as exc:
            raise MountFailed(entry, f"{entry.volume} was not mounted: {exc}{_hint(entry, str(exc))}") from exc

    async def _confirm_claim(self, entry: Entry, end: float) -> tuple[dict[str, Any], float]:
        """Prove that the claim still stands, and return the volume and the time at which the lease was renewed.

        Publishing may take longer than the lease, so a claim that was taken may have run out meanwhile.
        Raises MountFailed, StillRunning.
        """

        async def renew_and_read(_wait: float) -> tuple[dict[str, Any], float]:
            # Taken before the request: the control plane counts the lease from its arrival, which is never earlier.
            sent_at = time.time()
            if entry.lease:
                await self.api.renew(entry)
            return await self.api.volume(entry.namespace, entry.volume), sent_at

        try:
            return await self._retry(renew_and_read, entry, end)
        except ApiTrouble as exc:
            raise MountFailed(entry, f"{entry.volume} was mounted, but its claim does not stand: {exc}") from exc

    async def _retry(self, ask: Callable[[float], Awaitable[T]], entry: Entry, end: float, *, or_else: str = "") -> T:
        """Repeat a request until it is answered, and return the answer. `ask` takes the seconds it may wait.

        Raises StillRunning at `end`, or when the entry's lease is about to run out, and the ApiTrouble that repeating
        does not help against.
        """
        answered_at, wait = time.monotonic(), FIRST_WAIT
        while True:
            asked_at = time.monotonic()
            try:
                return await ask(min(wait, end - asked_at))
            except Pending as exc:
                wait = LONGEST_WAIT
                trouble, pause, answered_at = str(exc), 0.0, time.monotonic()
            except Conflict as exc:
                if not await self._conflict_can_pass(entry):
                    raise
                trouble, pause, answered_at = str(exc), 1.0, time.monotonic()
            except Unavailable as exc:
                trouble, pause = str(exc), exc.retry_after
                # The bridge unmounts before the lease ends. It cannot while this command holds the entry, so give up
                # early enough to leave it the time.
                if entry.lease:
                    end = min(end, answered_at + entry.lease * LEASE_SHARE)
            now = time.monotonic()
            if now + pause > end:
                or_else = or_else or f"give it up with: moorage umount {entry.target}"
                raise StillRunning(f"{trouble}; repeat the command to go on, or {or_else}")
            self.say(trouble)
            # Half a second between two requests at least, also when the control plane answers Pending at once.
            await asyncio.sleep(max(pause, asked_at + 0.5 - now))

    async def _conflict_can_pass(self, entry: Entry) -> bool:
        """Return whether a 409 can pass by itself. It cannot when the allocation holds a claim for another target."""
        try:
            claim = await self.api.claim_of(entry)
        except ApiTrouble:
            return True
        return claim is None or not is_taken(claim) or claim["TargetPath"] == entry.target

    async def _claim_of(self, entry: Entry, end: float) -> dict[str, Any] | None:
        try:
            return await self._retry(lambda _: self.api.claim_of(entry), entry, end)
        except ApiTrouble as exc:
            raise MountTrouble(f"the claims of {entry.volume} cannot be read: {exc}") from exc

    async def _release(self, entry: Entry, end: float) -> None:
        """Release the claim of the entry's allocation, if there is one. Raises MountTrouble, StillRunning."""
        try:
            await self._retry(lambda wait: self.api.release(entry, wait=wait), entry, end, or_else="see moorage ls")
        except ApiTrouble as exc:
            raise MountTrouble(
                f"{entry.volume} was not released: {exc}; if a program uses {entry.target}, end it (fuser -vm "
                f"{entry.target} shows which), then: moorage umount {entry.target}"
            ) from exc

    async def _unmount(self, entry: Entry, end: float) -> None:
        """Release the claim, wait until the target is unmounted, and forget the entry.

        The journal must say UNMOUNTING already, and the caller must not hold the entry: the bridge may need it.
        Raises MountTrouble, StillRunning.
        """
        await self._release(entry, end)
        while paths.mount_at(entry.target):
            # The claim was gone before, so the control plane does not unmount. Only the bridge here still can.
            if time.monotonic() > end:
                raise StillRunning(
                    f"the claim is released and {entry.target} is still mounted: the bridge unmounts it (is it "
                    f"running? its log says why not); then repeat: moorage umount {entry.target}"
                )
            self.say(f"waiting for the bridge to unmount {entry.target}")
            await asyncio.sleep(POLL_SECONDS)
        async with self._hold(entry.target, end):
            now = self.journal.get(entry.key)
            if now is None or now.allocation != entry.allocation:
                return  # another command finished it
            self.journal.drop_staging(entry)
            paths.restore_folder(entry.target, entry.folder_mode)
            # Last: after a crash before this line, the entry is still there and a repeat does the rest.
            self.journal.forget(entry)

    async def _status(self, entry: Entry) -> MountStatus:
        try:
            claim = await self.api.claim_of(entry)
            state = "gone" if claim is None else str(claim["State"])
        except ApiTrouble:
            state = "unknown"
        return MountStatus(entry, state, bool(paths.mount_at(entry.target)))

    @asynccontextmanager
    async def _hold(self, target: str, end: float) -> AsyncIterator[None]:
        """Hold the lock of the target's entry in this block. Raises StillRunning if another process has it at `end`."""
        while True:
            with self.journal.try_lock(key_of(target)) as locked:
                if locked:
                    yield
                    return
            if time.monotonic() > end:
                raise StillRunning(f"another moorage is at work at {target}: try again when it is done")
            self.say(f"waiting for another moorage that is at work at {target}")
            await asyncio.sleep(POLL_SECONDS)


def _hint(entry: Entry, refusal: str) -> str:
    """Return what the user can do about a claim that was refused, or ""."""
    if "max claims reached" in refusal:
        where = f"/v1/volume/csi/{quote(entry.volume, safe='')}/claims?namespace={entry.namespace}"
        return f": unmount it elsewhere first; GET {where} says who holds it"
    if not entry.access_mode and "AccessMode" in refusal:
        return " (--access-mode and --attachment-mode name them)"
    return ""


def _check_same(entry: Entry, request: MountRequest) -> None:
    """Raise MountTrouble when the target has another mount than the one that is requested."""
    if entry.stage is Stage.UNMOUNTING:
        raise MountTrouble(f"{entry.target} is being unmounted: finish that first (moorage umount {entry.target})")
    same = (entry.namespace, entry.volume, entry.mode) == (request.namespace, request.volume, request.mode)
    for given, current in (
        (request.access_mode, entry.access_mode),
        (request.attachment_mode, entry.attachment_mode),
        (request.allocation, entry.allocation),
    ):
        same = same and given in ("", current)
    if not same:
        raise MountTrouble(
            f"{entry.target} has volume {entry.name} to {entry.mode} for allocation {entry.allocation}: unmount it "
            f"first (moorage umount {entry.target}), or use another target"
        )
