"""Keeps the claims of what is mounted here, and unmounts what is no longer ours, in time.

The control plane gives a volume to another node when its lease has ended, or when this node proved that it unmounted
(docs/mount.md). So a lease is counted from the moment at which the request that renewed it was sent, on a clock that
runs while the machine sleeps, and the unmount begins a margin before its end, by the plugin's own socket: it needs
nobody else.
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

from moorage.bridge.watch import Watch
from moorage.mounts import paths
from moorage.mounts.api import ApiTrouble, Conflict, ControlPlane, Missing, live
from moorage.mounts.journal import Entry, Journal, JournalTrouble, Stage
from moorage.spec import csi_pb2 as csi

LOOK_SECONDS: Final = 0.5
"""How soon a change of the journal is seen."""
RENEW_SHARE: Final = 1 / 3
MARGIN_SHARE: Final = 1 / 4
LONGEST_MARGIN: Final = 30.0
UNLEASED_SECONDS: Final = 30.0
"""How often a claim without a lease is looked at."""
CLEAN_UP_SECONDS: Final = 2.0
"""How often a half-done entry is looked at."""
EXPAND_SECONDS: Final = 60.0
"""How often the volume is looked at for an expansion."""
ANSWER_SECONDS: Final = 10.0
CALL_SECONDS: Final = 30.0
_UNSTAGES: Final = "STAGE_UNSTAGE_VOLUME"
_EXPANDS: Final = "EXPAND_VOLUME"
log: Final = logging.getLogger(__name__)


def running_time() -> float:
    """Seconds that pass also while the machine sleeps, and that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


class Standing(Enum):
    """What is known about a claim."""

    OURS = "ours"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass
class _Kept:
    """One entry, as this process knows it; times by `running_time`."""

    allocation: str
    stage: Stage
    renewed_at: float
    """The journal's time from which `until` was reckoned."""
    until: float
    """When the lease ends, at the earliest; infinity without one."""
    due: float = 0.0
    expand_due: float = 0.0
    swept: bool = False
    """Whether nothing of it is mounted or staged here any more."""
    trouble: str = ""


@dataclass
class Leases:
    """The mounts in the journal of one bridge."""

    journal: Journal
    api: ControlPlane
    watches: Mapping[str, Watch]
    jitter: Callable[[], float] = field(default=random.SystemRandom().random)
    _kept: dict[str, _Kept] = field(default_factory=dict)
    _tasks: dict[str, "asyncio.Task[None]"] = field(default_factory=dict)
    _trouble: str = ""

    async def run(self) -> None:
        """Look after all entries until cancelled, each by itself: a plugin that hangs holds up none but its own."""
        try:
            while True:
                for entry in self._entries():
                    if entry.key not in self._tasks:
                        self._tasks[entry.key] = asyncio.create_task(self._look_after(entry.key))
                for key in [key for key, task in self._tasks.items() if task.done()]:
                    self._tasks.pop(key).result()  # a fault of ours ends the bridge with its traceback
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _entries(self) -> list[Entry]:
        try:
            found = self.journal.entries()
        except JournalTrouble as exc:
            if str(exc) != self._trouble:
                log.error("journal of mounts cannot be read", extra={"reason": str(exc)})  # noqa: TRY400 - for a person
            self._trouble = str(exc)
            return []
        self._trouble = ""
        return found

    async def _look_after(self, key: str) -> None:
        """Until the entry is gone."""
        while True:
            try:
                entry = self.journal.get(key)
                if entry is None:
                    self._kept.pop(key, None)
                    return
                kept = self._known(entry)
                if running_time() >= kept.due:
                    kept.due = running_time() + await self._turn(entry, kept)
            except JournalTrouble as exc:
                log.error("journal of mounts cannot be used", extra={"reason": str(exc)})  # noqa: TRY400 - likewise
                await asyncio.sleep(UNLEASED_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)

    def _known(self, entry: Entry) -> _Kept:
        """What is known of the entry; after a change by somebody else it is its turn at once."""
        kept = self._kept.get(entry.key)
        if kept is None or kept.allocation != entry.allocation:
            kept = _Kept(entry.allocation, entry.stage, entry.renewed_at, _until(entry))
            if kept.until - running_time() > entry.lease * (1 - RENEW_SHARE):
                kept.due = running_time() + entry.lease * RENEW_SHARE / 2
            self._kept[entry.key] = kept
        if kept.renewed_at != entry.renewed_at:
            kept.renewed_at, kept.until, kept.due, kept.swept = entry.renewed_at, _until(entry), 0.0, False
        if kept.stage is not entry.stage:
            kept.stage, kept.due, kept.swept, kept.trouble = entry.stage, 0.0, False, ""
        return kept

    async def _turn(self, entry: Entry, kept: _Kept) -> float:
        """What is to be done about the entry now; seconds until its next turn."""
        if entry.stage is Stage.MOUNTED:
            return await self._keep(entry, kept)
        if entry.stage is Stage.LOSING:
            return await self._lose(entry, kept, entry.reason)
        if entry.stage is Stage.LOST or kept.swept:
            return UNLEASED_SECONDS
        return await self._clean_up(entry, kept)

    async def _keep(self, entry: Entry, kept: _Kept) -> float:
        margin = min(LONGEST_MARGIN, entry.lease * MARGIN_SHARE)
        left = kept.until - margin - running_time()
        standing = await self._renew(entry, kept, seconds=max(1.0, min(ANSWER_SECONDS, left)))
        if standing is Standing.GONE:
            return await self._lose(entry, kept, "its claim is no longer ours")
        left = kept.until - margin - running_time()
        if left <= 0:
            return await self._lose(entry, kept, f"its lease could not be renewed in time: {kept.trouble}")
        if standing is Standing.UNKNOWN:
            return min(left, max(LOOK_SECONDS, entry.lease / 10), ANSWER_SECONDS)
        if running_time() >= kept.expand_due:
            await self._expand(entry)
            kept.expand_due = running_time() + EXPAND_SECONDS
        return (entry.lease * RENEW_SHARE if entry.lease else UNLEASED_SECONDS) * (0.8 + 0.4 * self.jitter())

    async def _renew(self, entry: Entry, kept: _Kept, *, seconds: float) -> Standing:
        """Renew the lease, or look whether a claim without one stands."""
        sent, sent_at = running_time(), time.time()
        try:
            if not entry.lease:
                standing = await self._standing(entry, seconds=seconds)
            else:
                await self.api.renew(entry, seconds=seconds)
                standing = Standing.OURS
        except (Missing, Conflict):
            # One answer is not enough to take a volume from under its users: a wrong address answers 404, too.
            standing = await self._standing(entry, seconds=seconds)
            kept.trouble = "the control plane refused to renew it"
            return Standing.UNKNOWN if standing is Standing.OURS else standing
        except ApiTrouble as exc:
            if not kept.trouble:
                log.warning("lease not renewed", extra=_extra(entry, reason=str(exc), seconds=_left(kept)))
            kept.trouble = str(exc)
            return Standing.UNKNOWN
        if standing is Standing.OURS:
            if kept.trouble:
                log.info("lease renewed again", extra=_extra(entry))
            kept.trouble = ""
            if entry.lease:
                kept.until = sent + entry.lease
                kept.renewed_at = self._remembered(entry, sent_at)
        return standing

    async def _standing(self, entry: Entry, *, seconds: float) -> Standing:
        try:
            return Standing.OURS if live(await self.api.claim_of(entry, seconds=seconds)) else Standing.GONE
        except ApiTrouble:
            return Standing.UNKNOWN

    async def _has_claim(self, entry: Entry) -> bool:
        """Whether the control plane has a claim, one on its way out too: then it is the one who unmounts."""
        try:
            return await self.api.claim_of(entry, seconds=ANSWER_SECONDS) is not None
        except ApiTrouble:
            return True

    def _remembered(self, entry: Entry, sent_at: float) -> float:
        """Write down when the lease was renewed, for the next start of the bridge; what the journal then says."""
        with self._held(entry) as now:
            if now is not None and now.stage is Stage.MOUNTED:
                return self.journal.put(now.at(now.stage, renewed_at=sent_at)).renewed_at
        return entry.renewed_at

    async def _lose(self, entry: Entry, kept: _Kept, reason: str) -> float:
        """Unmount it here; again until it is done."""
        with self._held(entry) as now:
            if now is None or now.stage not in (Stage.MOUNTED, Stage.LOSING):
                return LOOK_SECONDS
            if now.stage is Stage.MOUNTED:
                extra = _extra(entry, reason=reason, seconds=_left(kept))
                log.warning("unmounting what is no longer ours", extra=extra)
            losing = self.journal.put(now.at(Stage.LOSING, reason=reason))
            kept.stage = Stage.LOSING
            trouble = await self._unmount(losing)
            if trouble:
                self._complain(entry, kept, trouble)
                return LOOK_SECONDS * 2
            self.journal.put(losing.at(Stage.LOST))
            log.warning("unmounted; moorage reconcile mounts it again", extra=_extra(entry, reason=reason))
        return UNLEASED_SECONDS

    async def _clean_up(self, entry: Entry, kept: _Kept) -> float:
        """A mount or unmount is under way; if its command died and no claim is left, nothing may stay mounted."""
        with self._held(entry) as now:
            if now is not None and now.stage is entry.stage:
                over = entry.stage is Stage.WANTED and running_time() > kept.until
                if not over and await self._has_claim(entry):
                    return CLEAN_UP_SECONDS
                trouble = await self._unmount(now)
                if trouble:
                    self._complain(entry, kept, trouble)
                    return LOOK_SECONDS * 2
                log.info("nothing of it is left here", extra=_extra(entry))
                kept.swept = True
                return UNLEASED_SECONDS
        if entry.stage is Stage.WANTED and entry.lease:
            # Its command waits for the plugin, perhaps for longer than the lease: there may be no claim yet.
            with contextlib.suppress(ApiTrouble):
                await self.api.renew(entry, seconds=ANSWER_SECONDS)
            return entry.lease * RENEW_SHARE
        return LOOK_SECONDS

    async def _unmount(self, entry: Entry) -> str:
        """NodeUnpublishVolume and, for its last target, NodeUnstageVolume; "" or what is in the way."""
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
                await _call(watch, rpc, request)
            except grpc.aio.AioRpcError as exc:
                if exc.code() is not grpc.StatusCode.NOT_FOUND:  # the volume is gone, and its mount with it
                    return f"{rpc}: {exc.code().name}: {exc.details()}"
        return f"the plugin unpublished it and {entry.target} is still mounted" if paths.sight(entry.target) else ""

    def _others_stage(self, entry: Entry) -> bool:
        """Whether the volume is, or is about to be, used at another target here (CSI spec, NodeUnstageVolume)."""
        using = (Stage.WANTED, Stage.MOUNTED)
        return any(
            other.staging == entry.staging and other.key != entry.key and other.stage in using
            for other in self.journal.entries()
        )

    async def _expand(self, entry: Entry) -> None:
        """NodeExpandVolume after the volume grew, where the plugin has it (CSI spec, NodeExpandVolume)."""
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
            await _call(watch, "NodeExpandVolume", request)
        except ApiTrouble:
            return  # the next look is soon
        except grpc.aio.AioRpcError as exc:
            text = f"NodeExpandVolume: {exc.code().name}: {exc.details()}"
            log.warning("file system not expanded", extra=_extra(entry, reason=text))
            return
        with self._held(entry) as now:
            if now is not None and now.stage is Stage.MOUNTED:
                self.journal.put(now.at(now.stage, capacity=volume["Capacity"]))
        log.info("file system expanded", extra=_extra(entry))

    @contextlib.contextmanager
    def _held(self, entry: Entry) -> Iterator[Entry | None]:
        """The entry as it is now, held alone; None when a command works at it, or it is another mount by now."""
        with self.journal.held(entry.key) as ours:
            now = self.journal.get(entry.key) if ours else None
            yield now if now is not None and now.allocation == entry.allocation else None

    def _complain(self, entry: Entry, kept: _Kept, trouble: str) -> None:
        if trouble != kept.trouble:
            log.error("not unmounted yet", extra=_extra(entry, reason=trouble, seconds=_left(kept)))
        kept.trouble = trouble


async def _call(watch: Watch, rpc: str, request: Any) -> None:
    call = watch.channel.unary_unary(
        f"/csi.v1.Node/{rpc}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=getattr(csi, rpc + "Response").FromString,
    )
    await call(request, timeout=CALL_SECONDS)


def _until(entry: Entry) -> float:
    """When the lease ends, as far as the journal tells; a clock that was set back makes it end now."""
    if not entry.lease:
        return float("inf")
    age = time.time() - entry.renewed_at
    return running_time() + (entry.lease - age if 0 <= age <= entry.lease else 0.0)


def _left(kept: _Kept) -> float | None:
    left = kept.until - running_time()
    return round(left, 1) if left < float("inf") else None


def _extra(entry: Entry, **more: Any) -> dict[str, Any]:
    fields = {"volume": entry.name, "target": entry.target, "allocation": entry.allocation, "plugin": entry.plugin}
    return fields | {name: value for name, value in more.items() if value is not None}
