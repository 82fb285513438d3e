"""Mounting and unmounting: journal first, then the claim, then a look at the target.

The control plane mounts (its worker calls the plugin through this machine's bridge) and the bridge unmounts what is no
longer ours. A mount found half-done is finished by doing the same again: every request here may be repeated.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from moorage.mounts import paths
from moorage.mounts.api import LONGEST_WAIT, ApiTrouble, Away, Conflict, ControlPlane, Missing, Pending, Refused, live
from moorage.mounts.journal import Entry, Journal, Stage, key_of

POLL_SECONDS: Final = 0.2
LEASE_SHARE: Final = 0.75
"""Of a lease: how long a claim that nobody answers for is believed to be ours."""
FIRST_WAIT: Final = 3.0
"""Seconds after which it is first asked what goes on."""


class MountTrouble(Exception):
    """It was refused, or it failed; the text says why and what to do."""


class StillRunning(Exception):
    """It is not over, and nothing is lost: the same command goes on; the text says what is waited for."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What `moorage mount` was asked for; empty modes and allocation: whatever fits."""

    namespace: str
    volume: str
    target: str
    mode: str
    access_mode: str = ""
    attachment_mode: str = ""
    allocation: str = ""
    lease: int = 0


@dataclass(frozen=True)
class Seen:
    """A mount as it is now."""

    entry: Entry
    claim: str
    """State of the claim (`taken`, …), `gone`, or `unknown` when the control plane does not answer."""
    shown: bool
    """Whether anything is mounted or linked at the target."""

    @property
    def well(self) -> bool:
        return self.entry.stage is Stage.MOUNTED and self.claim == "taken" and self.shown


class _Undo(Exception):
    """A mount that did not come about and was never there before: take back what there may be."""

    def __init__(self, entry: Entry, error: MountTrouble) -> None:
        super().__init__(str(error))
        self.entry, self.error = entry, error


@dataclass
class Mounts:
    """The mounts of this machine."""

    journal: Journal
    api: ControlPlane
    node: str
    wait: float
    """Seconds that a call here may take before it gives up waiting."""
    say: Callable[[str], None] = lambda _: None

    async def mount(self, wanted: Wanted) -> Entry:
        """Have the volume at the target. Raises MountTrouble, StillRunning, JournalTrouble."""
        end = time.monotonic() + self.wait
        try:
            async with self._alone(wanted.target, end):
                entry = self.journal.get(key_of(wanted.target))
                if entry is None:
                    return await self._mounted(await self._written(wanted), None, end)
                _check_same(entry, wanted)
                return await self._again(entry, end)
        except _Undo as undo:
            await self._let_go(undo.entry, end)
            raise undo.error from undo

    async def umount(self, name: str, namespace: str) -> Entry:
        """Unmount what a target or a volume names. Raises MountTrouble, StillRunning, JournalTrouble."""
        entry = self.named(name, namespace)
        end = time.monotonic() + self.wait
        async with self._alone(entry.target, end):
            now = self.journal.get(entry.key)
            if now is None or now.allocation != entry.allocation:
                raise MountTrouble(f"{entry.target} was unmounted or mounted anew meanwhile: moorage ls shows it")
            entry = self.journal.put(now.at(Stage.UNMOUNTING))
        await self._let_go(entry, end)
        return entry

    async def reconcile(self) -> list[tuple[Entry, Exception | None]]:
        """Finish or undo what is half-done and mount again what should be: each entry, and why it could not be."""
        done: list[tuple[Entry, Exception | None]] = []
        for entry in self.journal.entries():
            self.say(f"{entry.name} at {entry.target}: {entry.stage}")
            try:
                done.append((await self._reconciled(entry), None))
            except (MountTrouble, StillRunning) as exc:
                done.append((entry, exc))
        return done

    async def seen(self) -> list[Seen]:
        """All mounts, as the journal, the control plane and the file system have them."""
        return list(await asyncio.gather(*(self._seen(entry) for entry in self.journal.entries())))

    def named(self, name: str, namespace: str) -> Entry:
        """The entry of a target or of a volume; raises MountTrouble when it is none or not one."""
        entries = self.journal.entries()
        spellings = paths.spellings(name)
        at_target = [entry for entry in entries if entry.target in spellings]
        found = at_target or [entry for entry in entries if (entry.namespace, entry.volume) == (namespace, name)]
        if not found:
            raise MountTrouble(f"nothing of Moorage's is at {name}, and no volume of that name: see moorage ls")
        if len(found) > 1:
            targets = ", ".join(entry.target for entry in found)
            raise MountTrouble(f"volume {name} is mounted more than once: name one of {targets}")
        return found[0]

    async def _reconciled(self, entry: Entry) -> Entry:
        end = time.monotonic() + self.wait
        if entry.stage is Stage.UNMOUNTING:
            await self._let_go(entry, end)
            return entry
        try:
            async with self._alone(entry.target, end):
                now = self.journal.get(entry.key)
                if now is None or now.allocation != entry.allocation or now.stage is Stage.UNMOUNTING:
                    return now or entry  # somebody else was here meanwhile
                return await self._again(now, end)
        except _Undo as undo:
            await self._let_go(undo.entry, end)
            raise undo.error from undo

    async def _written(self, wanted: Wanted) -> Entry:
        """The journal's new entry, before anything is done."""
        problem = paths.obstacle(wanted.target, ours=False)
        if problem:
            raise MountTrouble(problem)
        allocation = wanted.allocation or str(uuid.uuid4())
        for other in self.journal.entries():
            if (other.name, other.allocation) == (f"{wanted.namespace}/{wanted.volume}", allocation):
                raise MountTrouble(f"allocation {allocation} has this volume at {other.target}: use another --alloc")
        volume = await self._read(wanted.namespace, wanted.volume)
        entry = Entry(
            target=wanted.target,
            namespace=wanted.namespace,
            volume=wanted.volume,
            allocation=allocation,
            node=self.node,
            mode=wanted.mode,
            access_mode=wanted.access_mode,
            attachment_mode=wanted.attachment_mode,
            staging=str(self.journal.staging_of(wanted.namespace, wanted.volume)),
            lease=wanted.lease,
            plugin=volume["PluginID"],
            external_id=volume["ExternalID"],
            stage=Stage.WANTED,
            folder_mode=paths.folder_mode(wanted.target),
            renewed_at=time.time(),
        )
        return self.journal.put(entry)

    async def _read(self, namespace: str, volume: str) -> dict[str, Any]:
        try:
            return await self.api.volume(namespace, volume)
        except Missing as exc:
            raise MountTrouble(f"there is no volume {volume} in namespace {namespace}: create it first") from exc
        except ApiTrouble as exc:
            raise MountTrouble(f"volume {volume} cannot be read: {exc}") from exc

    async def _again(self, entry: Entry, end: float) -> Entry:
        """An entry that was there before: mounted when this returns, whatever was left half-done."""
        claim = await self._claim_of(entry, end)
        if entry.stage is Stage.MOUNTED and live(claim) and paths.sight(entry.target):
            return entry
        return await self._mounted(self.journal.put(entry.at(Stage.WANTED, renewed_at=time.time())), claim, end)

    async def _mounted(self, entry: Entry, claim: dict[str, Any] | None, end: float) -> Entry:
        """The entry, mounted; `claim` is what its allocation has on the volume. Raises _Undo, StillRunning."""
        if claim is not None and not (live(claim) and (paths.sight(entry.target) or not claim["Published"])):
            # Its mount went with a reboot, or it is on its way out: a claim that is published is not published again.
            await self._released(entry, end)
        problem = paths.obstacle(entry.target, ours=True)
        if problem:
            raise self._failure(entry, MountTrouble(problem))
        self.journal.make_staging(entry)
        taken = await self._claimed(entry, end)
        shows = paths.sight(entry.target)
        if not shows:
            text = (
                f"the plugin says that it published the volume, and nothing is at {entry.target}: if the plugin runs "
                "in a container, its mounts must reach this machine (mount propagation, CSI spec, NodePublishVolume)"
            )
            raise self._failure(entry, MountTrouble(text))
        volume, sent_at = await self._ours(entry, end)
        return self.journal.put(
            entry.at(
                Stage.MOUNTED,
                settled=True,
                reason="",
                renewed_at=sent_at,
                shows=shows,
                access_mode=taken["AccessMode"],
                attachment_mode=taken["AttachmentMode"],
                plugin=volume["PluginID"],
                external_id=volume["ExternalID"],
                capacity=volume["Capacity"],
            )
        )

    async def _ours(self, entry: Entry, end: float) -> tuple[dict[str, Any], float]:
        """The volume, once the claim is proven to be ours still; and when its lease was renewed last."""
        sent_at = time.time()

        async def ask(_wait: float) -> dict[str, Any]:
            nonlocal sent_at
            if entry.lease:
                sent_at = time.time()
                await self.api.renew(entry)
            return await self.api.volume(entry.namespace, entry.volume)

        try:
            volume: dict[str, Any] = await self._retried(ask, entry, end)
        except ApiTrouble as exc:
            text = f"{entry.volume} was mounted, and its claim does not stand: {exc}"
            raise self._failure(entry, MountTrouble(text)) from exc
        return volume, sent_at

    def _failure(self, entry: Entry, error: MountTrouble) -> Exception:
        """What to raise for a mount that failed; one that was there before stays wanted, and the bridge cleans up."""
        if not entry.settled:
            return _Undo(self.journal.put(entry.at(Stage.UNMOUNTING)), error)
        self.journal.put(entry.at(Stage.LOSING, reason=str(error)))
        return error

    async def _claimed(self, entry: Entry, end: float) -> dict[str, Any]:
        """The claim, taken and published."""
        try:
            taken: dict[str, Any] = await self._retried(lambda wait: self.api.claim(entry, wait=wait), entry, end)
        except Conflict as exc:
            raise self._conflict(entry, exc) from exc
        except (Missing, Refused) as exc:
            hint = ""
            if not entry.access_mode and "AccessMode" in str(exc):
                hint = " (--access-mode and --attachment-mode name them)"
            if "max claims reached" in str(exc):
                where = f"/v1/volume/csi/{quote(entry.volume, safe='')}/claims?namespace={entry.namespace}"
                hint = f": unmount it elsewhere first; GET {where} says who holds it"
            raise self._failure(entry, MountTrouble(f"{entry.volume} was not mounted: {exc}{hint}")) from exc
        return taken

    def _conflict(self, entry: Entry, exc: Conflict) -> Exception:
        """Another claim of the same allocation is not ours to release."""
        if entry.settled:
            return self._failure(entry, MountTrouble(str(exc)))
        self.journal.forget(entry)
        return MountTrouble(str(exc))

    async def _retried(self, ask: Callable[[float], Any], entry: Entry, end: float, *, or_else: str = "") -> Any:
        """The answer to a request that may be repeated; `ask` is told how many seconds it may wait. Raises StillRunning
        when it takes too long.
        """
        # The first one is short: what goes wrong meanwhile is shown while it still does.
        heard, wait = time.monotonic(), FIRST_WAIT
        while True:
            asked = time.monotonic()
            try:
                return await ask(min(wait, end - asked))
            except Pending as exc:
                wait = LONGEST_WAIT
                trouble, pause, heard = str(exc), 0.0, time.monotonic()
            except Conflict as exc:
                if not await self._passes(entry):
                    raise
                trouble, pause, heard = str(exc), 1.0, time.monotonic()
            except Away as exc:
                trouble, pause = str(exc), exc.retry_after
                # The bridge unmounts before the lease ends, and cannot while this command holds the entry.
                if entry.lease:
                    end = min(end, heard + entry.lease * LEASE_SHARE)
            now = time.monotonic()
            if now + pause > end:
                or_else = or_else or f"give it up with: moorage umount {entry.target}"
                raise StillRunning(f"{trouble}; repeat the command to go on, or {or_else}")
            self.say(trouble)
            await asyncio.sleep(max(pause, asked + 0.5 - now))

    async def _passes(self, entry: Entry) -> bool:
        """Whether a conflict can pass by itself: it cannot when the allocation holds another claim."""
        try:
            claim = await self.api.claim_of(entry)
        except ApiTrouble:
            return True
        return claim is None or not live(claim) or claim["TargetPath"] == entry.target

    async def _claim_of(self, entry: Entry, end: float) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] | None = await self._retried(lambda _: self.api.claim_of(entry), entry, end)
        except ApiTrouble as exc:
            raise MountTrouble(f"the claims of {entry.volume} cannot be read: {exc}") from exc
        return found

    async def _released(self, entry: Entry, end: float) -> None:
        """No claim of the entry's allocation is there when this returns."""
        try:
            await self._retried(lambda wait: self.api.release(entry, wait=wait), entry, end, or_else="see moorage ls")
        except ApiTrouble as exc:
            raise MountTrouble(
                f"{entry.volume} was not released: {exc}; if something uses {entry.target}, end it (fuser -vm "
                f"{entry.target} shows what), then: moorage umount {entry.target}"
            ) from exc

    async def _let_go(self, entry: Entry, end: float) -> None:
        """Released, unmounted and forgotten. The entry says so already, and is not held: the bridge may need it."""
        await self._released(entry, end)
        while paths.sight(entry.target):
            # Its claim was gone before: nobody but the bridge here can unmount it, and it does.
            if time.monotonic() > end:
                raise StillRunning(
                    f"the claim is released and {entry.target} is still mounted: the bridge unmounts it (is it "
                    f"running? its log says why not); then repeat: moorage umount {entry.target}"
                )
            self.say(f"waiting for the bridge to unmount {entry.target}")
            await asyncio.sleep(POLL_SECONDS)
        async with self._alone(entry.target, end):
            now = self.journal.get(entry.key)
            if now is None or now.allocation != entry.allocation:
                return  # somebody else finished it
            self.journal.drop_staging(entry)
            paths.restore_folder(entry.target, entry.folder_mode)
            self.journal.forget(entry)

    async def _seen(self, entry: Entry) -> Seen:
        try:
            claim = await self.api.claim_of(entry)
            state = "gone" if claim is None else str(claim["State"])
        except ApiTrouble:
            state = "unknown"
        return Seen(entry, state, bool(paths.sight(entry.target)))

    @asynccontextmanager
    async def _alone(self, target: str, end: float) -> AsyncIterator[None]:
        """Hold the target's entry; waits for another command, or the bridge, to be done with it."""
        while True:
            with self.journal.held(key_of(target)) as ours:
                if ours:
                    yield
                    return
            if time.monotonic() > end:
                raise StillRunning(f"another moorage is at work at {target}: try again when it is done")
            self.say(f"waiting for another moorage that is at work at {target}")
            await asyncio.sleep(POLL_SECONDS)


def _check_same(entry: Entry, wanted: Wanted) -> None:
    """Raises MountTrouble when the target is taken by something else than what is wanted."""
    if entry.stage is Stage.UNMOUNTING:
        raise MountTrouble(f"{entry.target} is being unmounted: finish that first (moorage umount {entry.target})")
    same = (entry.namespace, entry.volume, entry.mode) == (wanted.namespace, wanted.volume, wanted.mode)
    for given, has in (
        (wanted.access_mode, entry.access_mode),
        (wanted.attachment_mode, entry.attachment_mode),
        (wanted.allocation, entry.allocation),
    ):
        same = same and given in ("", has)
    if not same:
        raise MountTrouble(
            f"{entry.target} has volume {entry.name} to {entry.mode} for allocation {entry.allocation}: unmount it "
            f"first (moorage umount {entry.target}), or use another target"
        )
