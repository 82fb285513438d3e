"""Renew the claims of what is mounted here, and unmount in time what this node may no longer use.

The control plane gives a volume to another node when its lease has ended, or when this node proved that it unmounted
(docs/mount.md). So the bridge counts a lease from the moment at which it sent the renewal, on a clock that also runs
while the machine sleeps, and begins to unmount a margin before the end. It unmounts by the plugin's own socket, which
works without the control plane.
"""

import asyncio
import contextlib
import logging
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import grpc

from moorage.bridge.guard import Call, Guard, NotBelieved
from moorage.bridge.refusal import Refusal
from moorage.bridge.watch import Watch
from moorage.mounts.api import ApiTrouble, Conflict, ControlPlane, Missing, is_taken
from moorage.mounts.journal import Entry, Journal, JournalTrouble, Stage
from moorage.spec import csi_pb2 as csi

LOOK_SECONDS: Final = 0.5
"""Seconds between two reads of the journal."""
RENEW_SHARE: Final = 1 / 3
"""Share of a lease after which it is renewed."""
MARGIN_SHARE: Final = 1 / 4
"""Share of a lease before whose end the unmount begins, but LONGEST_MARGIN at most."""
LONGEST_MARGIN: Final = 30.0
UNLEASED_SECONDS: Final = 30.0
"""Seconds between two looks at a claim without a lease."""
CLEAN_UP_SECONDS: Final = 2.0
"""Seconds between two looks at a half-done entry."""
EXPAND_SECONDS: Final = 60.0
"""Seconds between two looks at a volume for an expansion."""
ANSWER_SECONDS: Final = 10.0
CALL_SECONDS: Final = 30.0
_UNSTAGES: Final = "STAGE_UNSTAGE_VOLUME"
_EXPANDS: Final = "EXPAND_VOLUME"
log: Final = logging.getLogger(__name__)


def running_time() -> float:
    """Return seconds of a clock that also runs while the machine sleeps and that cannot be set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


class ClaimState(Enum):
    """What is known about a claim."""

    OURS = "ours"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass
class _EntryState:
    """What this process knows about one entry. Times are `running_time`."""

    allocation: str
    stage: Stage
    renewed_at: float
    """The journal's `renewed_at` from which `until` was computed."""
    until: float
    """Earliest end of the lease, or infinity without one."""
    due: float = 0.0
    """When the entry is looked at next."""
    expand_due: float = 0.0
    clean: bool = False
    """Whether nothing of the entry is mounted or staged here any more."""
    trouble: str = ""
    """The last trouble that was logged, so that it is not logged again."""

    @classmethod
    def of(cls, entry: Entry) -> "_EntryState":
        """Return the state of an entry that this process sees for the first time."""
        state = cls(entry.allocation, entry.stage, entry.renewed_at, _lease_end(entry))
        # A lease that was renewed just now (by `moorage mount`, or before a restart of the bridge) can wait a little.
        if state.until - running_time() > entry.lease * (1 - RENEW_SHARE):
            state.due = running_time() + entry.lease * RENEW_SHARE / 2
        return state

    def follow(self, entry: Entry) -> None:
        """Take over what another process changed in the journal, and make the entry due."""
        if self.renewed_at != entry.renewed_at:
            self.renewed_at = entry.renewed_at
            self.until = _lease_end(entry)
            self.due = 0.0
            self.clean = False
        if self.stage is not entry.stage:
            self.stage = entry.stage
            self.due = 0.0
            self.clean = False
            self.trouble = ""

    def left(self) -> float | None:
        """Return the seconds until the lease ends, for the log, or None without a lease."""
        left = self.until - running_time()
        return round(left, 1) if left < float("inf") else None


@dataclass
class Leases:
    """The mounts in the journal of one bridge."""

    journal: Journal
    api: ControlPlane
    watches: Mapping[str, Watch]
    guard: Guard
    jitter: Callable[[], float] = field(default=random.SystemRandom().random)
    _states: dict[str, _EntryState] = field(default_factory=dict)
    _tasks: dict[str, "asyncio.Task[None]"] = field(default_factory=dict)
    _trouble: str = ""

    async def run(self) -> None:
        """Watch all entries until cancelled. Each has a task of its own, so a plugin that hangs delays no other."""
        try:
            while True:
                for entry in self._entries():
                    if entry.key not in self._tasks:
                        self._tasks[entry.key] = asyncio.create_task(self._watch_entry(entry.key))
                for key in [key for key, task in self._tasks.items() if task.done()]:
                    self._tasks.pop(key).result()  # a bug of ours ends the bridge with its traceback
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _entries(self) -> list[Entry]:
        try:
            entries = self.journal.entries()
        except JournalTrouble as exc:
            if str(exc) != self._trouble:
                log.error("journal of mounts cannot be read", extra={"reason": str(exc)})  # noqa: TRY400 - for a person
            self._trouble = str(exc)
            return []
        self._trouble = ""
        return entries

    async def _watch_entry(self, key: str) -> None:
        """Look at the entry whenever it is due, until it is removed from the journal."""
        while True:
            try:
                entry = self.journal.get(key)
                if entry is None:
                    self._states.pop(key, None)
                    return
                state = self._state(entry)
                if running_time() >= state.due:
                    state.due = running_time() + await self._handle(entry, state)
            except JournalTrouble as exc:
                log.error("journal of mounts cannot be used", extra={"reason": str(exc)})  # noqa: TRY400 - for a person
                await asyncio.sleep(UNLEASED_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)

    def _state(self, entry: Entry) -> _EntryState:
        state = self._states.get(entry.key)
        # Another allocation means another mount at the same target.
        if state is None or state.allocation != entry.allocation:
            state = self._states[entry.key] = _EntryState.of(entry)
        state.follow(entry)
        return state

    async def _handle(self, entry: Entry, state: _EntryState) -> float:
        """Do what is due for the entry, and return the seconds until it is due again."""
        if entry.stage is Stage.MOUNTED:
            return await self._keep(entry, state)
        if entry.stage is Stage.LOSING:
            return await self._lose(entry, state, entry.reason)
        if entry.stage is Stage.LOST or state.clean:
            return UNLEASED_SECONDS
        return await self._clean_up(entry, state)

    async def _keep(self, entry: Entry, state: _EntryState) -> float:
        """Renew the lease of a mounted volume, or unmount it before the lease ends."""
        margin = min(LONGEST_MARGIN, entry.lease * MARGIN_SHARE)
        left = state.until - margin - running_time()
        claim = await self._renew(entry, state, seconds=max(1.0, min(ANSWER_SECONDS, left)))
        if claim is ClaimState.GONE:
            return await self._lose(entry, state, "its claim is no longer ours")
        # Computed again: the request took time, and a renewal moved the end.
        left = state.until - margin - running_time()
        if left <= 0:
            return await self._lose(entry, state, f"its lease could not be renewed in time: {state.trouble}")
        if claim is ClaimState.UNKNOWN:
            return min(left, max(LOOK_SECONDS, entry.lease / 10), ANSWER_SECONDS)
        if running_time() >= state.expand_due:
            await self._expand(entry)
            state.expand_due = running_time() + EXPAND_SECONDS
        return (entry.lease * RENEW_SHARE if entry.lease else UNLEASED_SECONDS) * (0.8 + 0.4 * self.jitter())

    async def _renew(self, entry: Entry, state: _EntryState, *, seconds: float) -> ClaimState:
        """Renew the lease, or check that a claim without one stands. Waits `seconds` for each answer."""
        # Both clocks are read before the request is sent. The control plane counts the lease from a later moment, so it
        # cannot end there before it ends here.
        sent, sent_at = running_time(), time.time()
        try:
            if not entry.lease:
                claim = await self._claim_state(entry, seconds=seconds)
            else:
                await self.api.renew(entry, seconds=seconds)
                claim = ClaimState.OURS
        except (Missing, Conflict):
            # One answer is not enough to unmount a volume that is in use: a wrong address answers 404 as well.
            claim = await self._claim_state(entry, seconds=seconds)
            state.trouble = "the control plane refused to renew it"
            return ClaimState.UNKNOWN if claim is ClaimState.OURS else claim
        except ApiTrouble as exc:
            if not state.trouble:
                log.warning("lease not renewed", extra=_extra(entry, reason=str(exc), seconds=state.left()))
            state.trouble = str(exc)
            return ClaimState.UNKNOWN
        if claim is ClaimState.OURS:
            if state.trouble:
                log.info("lease renewed again", extra=_extra(entry))
            state.trouble = ""
            if entry.lease:
                state.until = sent + entry.lease
                state.renewed_at = self._record_renewal(entry, sent_at)
        return claim

    async def _claim_state(self, entry: Entry, *, seconds: float) -> ClaimState:
        try:
            claim = await self.api.claim_of(entry, seconds=seconds)
        except ApiTrouble:
            return ClaimState.UNKNOWN
        return ClaimState.OURS if is_taken(claim) else ClaimState.GONE

    async def _has_claim(self, entry: Entry) -> bool:
        """Return whether the control plane has a claim, also one that is being released: then it unmounts, not we."""
        try:
            return await self.api.claim_of(entry, seconds=ANSWER_SECONDS) is not None
        except ApiTrouble:
            return True

    def _record_renewal(self, entry: Entry, sent_at: float) -> float:
        """Write the time of a renewal to the journal, for the next start, and return the time that it has now."""
        with self._hold(entry) as now:
            if now is not None and now.stage is Stage.MOUNTED:
                return self.journal.put(now.at(now.stage, renewed_at=sent_at)).renewed_at
        # A command holds the entry. The journal's older time is on the safe side: the lease seems to end earlier.
        return entry.renewed_at

    async def _lose(self, entry: Entry, state: _EntryState, reason: str) -> float:
        """Unmount what is no longer ours, by the plugin's socket. Called again until it is done."""
        with self._hold(entry) as now:
            if now is None or now.stage not in (Stage.MOUNTED, Stage.LOSING):
                return LOOK_SECONDS
            if now.stage is Stage.MOUNTED:
                extra = _extra(entry, reason=reason, seconds=state.left())
                log.warning("unmounting what is no longer ours", extra=extra)
            # Written before the unmount: a bridge that dies in between goes on with it at its next start.
            losing = self.journal.put(now.at(Stage.LOSING, reason=reason))
            state.stage = Stage.LOSING
            trouble = await self._unmount(losing)
            if trouble:
                self._log_trouble(entry, state, trouble)
                return LOOK_SECONDS * 2
            self.journal.put(losing.at(Stage.LOST))
            log.warning("unmounted; moorage reconcile mounts it again", extra=_extra(entry, reason=reason))
        return UNLEASED_SECONDS

    async def _clean_up(self, entry: Entry, state: _EntryState) -> float:
        """Unmount a half-done entry whose command died and whose claim is gone.

        While the claim is there, the entry is left to a repeat of the command or to `moorage reconcile`.
        """
        with self._hold(entry) as now:
            if now is not None and now.stage is entry.stage:
                over = entry.stage is Stage.WANTED and running_time() > state.until
                if not over and await self._has_claim(entry):
                    return CLEAN_UP_SECONDS
                trouble = await self._unmount(now)
                if trouble:
                    self._log_trouble(entry, state, trouble)
                    return LOOK_SECONDS * 2
                log.info("nothing of it is left here", extra=_extra(entry))
                state.clean = True
                return UNLEASED_SECONDS
        if entry.stage is Stage.WANTED and entry.lease:
            # Its command is waiting for the plugin, perhaps for longer than the lease. There may be no claim yet, so
            # the answer does not matter.
            with contextlib.suppress(ApiTrouble):
                await self.api.renew(entry, seconds=ANSWER_SECONDS)
            return entry.lease * RENEW_SHARE
        return LOOK_SECONDS

    async def _unmount(self, entry: Entry) -> str:
        """Call NodeUnpublishVolume and, for the volume's last target, NodeUnstageVolume. Return "" or the trouble."""
        watch = self.watches.get(entry.plugin)
        if watch is None:
            return f"plugin {entry.plugin} is not behind this bridge"
        request: Any = csi.NodeUnpublishVolumeRequest(volume_id=entry.external_id, target_path=entry.target)
        steps = [("NodeUnpublishVolume", request)]
        if _UNSTAGES in watch.health.fingerprint.node_capabilities and not self._others_stage(entry):
            request = csi.NodeUnstageVolumeRequest(volume_id=entry.external_id, staging_target_path=entry.staging)
            steps.append(("NodeUnstageVolume", request))
        for rpc, request in steps:
            try:
                await self._call(watch, rpc, request)
            except grpc.aio.AioRpcError as exc:
                if exc.code() is not grpc.StatusCode.NOT_FOUND:  # the volume is gone, and its mount with it
                    return f"{rpc}: {exc.code().name}: {exc.details()}"
            except (Refusal, NotBelieved) as exc:
                return f"{rpc}: {exc}"
        return ""

    def _others_stage(self, entry: Entry) -> bool:
        """Return whether another target here uses the volume or is about to (CSI spec, NodeUnstageVolume)."""
        using = (Stage.WANTED, Stage.MOUNTED)
        return any(
            other.staging == entry.staging and other.key != entry.key and other.stage in using
            for other in self.journal.entries()
        )

    async def _expand(self, entry: Entry) -> None:
        """Call NodeExpandVolume if the volume grew and the plugin has the call (CSI spec, NodeExpandVolume)."""
        watch = self.watches.get(entry.plugin)
        if watch is None or _EXPANDS not in watch.health.fingerprint.node_capabilities:
            return
        try:
            volume = await self.api.volume(entry.namespace, entry.volume)
            if volume["Capacity"] <= entry.capacity or volume["ExternalID"] != entry.external_id:
                return
            request = csi.NodeExpandVolumeRequest(
                volume_id=entry.external_id,
                volume_path=entry.target,
                staging_target_path=entry.staging if _UNSTAGES in watch.health.fingerprint.node_capabilities else "",
                capacity_range=csi.CapacityRange(required_bytes=volume["Capacity"]),
            )
            await self._call(watch, "NodeExpandVolume", request)
        except ApiTrouble:
            return  # it is looked at again soon
        except Refusal as exc:
            log.warning("file system not expanded", extra=_extra(entry, reason=str(exc)))
            return
        except grpc.aio.AioRpcError as exc:
            text = f"NodeExpandVolume: {exc.code().name}: {exc.details()}"
            log.warning("file system not expanded", extra=_extra(entry, reason=text))
            return
        with self._hold(entry) as now:
            if now is not None and now.stage is Stage.MOUNTED:
                self.journal.put(now.at(now.stage, capacity=volume["Capacity"]))
        log.info("file system expanded", extra=_extra(entry))

    async def _call(self, watch: Watch, rpc: str, request: Any) -> None:
        """Call the plugin as the worker's calls are passed on. Raises AioRpcError, Refusal, NotBelieved."""
        call = Call(watch.settings.plugin_id, f"/csi.v1.Node/{rpc}", request.SerializeToString())
        multi: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = watch.channel.unary_unary(call.method)
        async with self.guard.passing(call) as passage:
            if passage.answered:
                return
            try:
                await multi(passage.request, timeout=CALL_SECONDS)
            except grpc.aio.AioRpcError as exc:
                await self.guard.finish(passage, exc.code())
                raise
            await self.guard.finish(passage, grpc.StatusCode.OK)

    @contextlib.contextmanager
    def _hold(self, entry: Entry) -> Iterator[Entry | None]:
        """Hold the entry's lock in this block, and yield the entry as it is now.

        Yields None when a command holds the lock, or when the target has another mount by now.
        """
        with self.journal.try_lock(entry.key) as locked:
            now = self.journal.get(entry.key) if locked else None
            yield now if now is not None and now.allocation == entry.allocation else None

    def _log_trouble(self, entry: Entry, state: _EntryState, trouble: str) -> None:
        if trouble != state.trouble:
            log.error("not unmounted yet", extra=_extra(entry, reason=trouble, seconds=state.left()))
        state.trouble = trouble


def _lease_end(entry: Entry) -> float:
    """Return the `running_time` at which the lease ends as the journal has it, or infinity without one.

    The journal has times of day, since they survive a reboot. If the clock was set back since, the age cannot be
    trusted, and the lease ends now.
    """
    if not entry.lease:
        return float("inf")
    age = time.time() - entry.renewed_at
    return running_time() + (entry.lease - age if 0 <= age <= entry.lease else 0.0)


def _extra(entry: Entry, **more: Any) -> dict[str, Any]:
    fields = {"volume": entry.name, "target": entry.target, "allocation": entry.allocation, "plugin": entry.plugin}
    return fields | {name: value for name, value in more.items() if value is not None}
