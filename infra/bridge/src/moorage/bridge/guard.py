"""Guard the machine's paths: a node call passes only with a path at which this bridge may mount.

The rules are in docs/bridge.md, the reasons in docs/decisions/025. A refusal means that the plugin was not called.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from moorage.bridge.bounds import Bounds, Place
from moorage.bridge.refusal import Refusal
from moorage.bridge.resolving import UnsafePath, clean
from moorage.bridge.uses import KINDS, Kind, Use, UseJournal
from moorage.mounts import paths
from moorage.mounts.journal import JournalTrouble
from moorage.spec import csi_pb2 as csi

PREFIX: Final = "/csi.v1.Node/"
_WITHOUT_PATH: Final = frozenset({"NodeGetCapabilities", "NodeGetInfo"})
_BEGINS: Final[dict[str, tuple[Kind, str]]] = {
    "NodeStageVolume": ("staged", "staging_target_path"),
    "NodePublishVolume": ("published", "target_path"),
}
_ENDS: Final[dict[str, tuple[Kind, str]]] = {
    "NodeUnstageVolume": ("staged", "staging_target_path"),
    "NodeUnpublishVolume": ("published", "target_path"),
}
_LOOKS: Final = frozenset({"NodeGetVolumeStats", "NodeExpandVolume"})
_NAMES: Final = {"staging_target_path": "staging path", "target_path": "target path", "volume_path": "volume path"}
_SAY_GONE: Final = (grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND)
"""Answers to an unpublish or unstage after which nothing is there any more."""


class NotBelieved(Exception):
    """The plugin says that it took a volume away. Something is still at its path, or the answer cannot be recorded."""


@dataclass(frozen=True)
class Call:
    """A call as it came in."""

    plugin: str
    method: str
    request: bytes
    operation: str = ""


@dataclass(frozen=True)
class Passage:
    """A call that may pass."""

    request: bytes
    """What the plugin gets: the request with its paths as they were resolved."""
    answered: bool = False
    """Whether the bridge answers OK itself, since this volume is not at the path."""
    use: Use | None = None
    """What the call begins or ends."""
    begins: bool = False
    """Whether the use was written for this call, and for no earlier one."""
    ends_at: str = ""
    """The path at which nothing is after the call, or "" for other calls."""


@dataclass
class Guard:
    """The node calls of one bridge."""

    bounds: Bounds
    uses: UseJournal
    _busy: set[str] = field(default_factory=set)

    @asynccontextmanager
    async def passing(self, call: Call) -> AsyncIterator[Passage]:
        """Let a call pass in this block. Raises Refusal.

        The use that a call begins is written before the block, and removed if the block raises Refusal, since then the
        call was not forwarded. In the block, no other call about the use passes.
        """
        passage = await self._admit(call)
        if passage.use is None:
            yield passage
            return
        # Nothing waited since the use was found to be idle.
        self._busy.add(passage.use.file)
        try:
            yield passage
        except Refusal:
            if passage.begins:
                with _using_journal():
                    self.uses.forget(passage.use)
            raise
        finally:
            self._busy.discard(passage.use.file)

    async def finish(self, passage: Passage, code: grpc.StatusCode) -> None:
        """Remove the use that a call ended, when the plugin has answered in the block. Raises NotBelieved."""
        if not passage.ends_at or code not in _SAY_GONE:
            return
        try:
            left = await asyncio.to_thread(paths.mount_at, passage.ends_at)
            if not left and passage.use is not None:
                self.uses.forget(passage.use)
        except OSError as exc:
            text = f"the plugin answered {code.name} and the bridge's journal cannot be used: {exc}: repeat the call"
            raise NotBelieved(text) from exc
        if left:
            raise NotBelieved(
                f"the plugin answered {code.name} and there is still a {left.partition(' ')[0]} at {passage.ends_at}: "
                "repeat the call, or unmount it by hand"
            )

    async def _admit(self, call: Call) -> Passage:
        rpc = call.method.removeprefix(PREFIX)
        if rpc == call.method or rpc in _WITHOUT_PATH:
            return Passage(call.request)
        request = _parse(rpc, call.request)
        before = request.SerializeToString(deterministic=True)
        try:
            with _using_journal():
                passage = await self._with_paths(rpc, request, call)
        except UnsafePath as exc:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(exc)) from exc
        changed = request.SerializeToString(deterministic=True) != before
        return replace(passage, request=request.SerializeToString()) if changed else passage

    async def _with_paths(self, rpc: str, request: Any, call: Call) -> Passage:
        """Put the paths as they were resolved into the request, and return its passage. Raises Refusal."""
        if rpc in _LOOKS:
            request.volume_path = await self._known(call, request, "volume_path")
            if request.staging_target_path:
                request.staging_target_path = await self._known(call, request, "staging_target_path")
            return Passage(call.request)
        if rpc in _ENDS:
            return await self._end(call, request, *_ENDS[rpc])
        kind, name = _BEGINS[rpc]
        if kind == "published" and request.staging_target_path:
            request.staging_target_path = await self._source(call, request)
        passage = await self._begin(_place(call, request, name), call, kind)
        if passage.use is not None:
            setattr(request, name, passage.use.resolved)
        return passage

    async def _begin(self, place: Place, call: Call, kind: Kind) -> Passage:
        """Write the use that a call begins, unless an earlier call did. Raises Refusal."""
        use = self.uses.find(kind, place.plugin, place.volume, place.path)
        if use is None:
            try:
                found = await asyncio.to_thread(self.bounds.resolve, place, free=True)
                use = Use(kind, place.plugin, place.volume, place.path, found, self.uses.boot)
                self._check_others(use)
            except Refusal:
                is_older: bool = await asyncio.to_thread(self._is_older, kind, place.path)
                if call.operation and is_older:
                    self.uses.note_refusal(call.operation, place.path)
                raise
        self._check_idle(use)
        # Looked for again: another call may have written it while this one looked at the path.
        begins = self.uses.find(kind, place.plugin, place.volume, place.path) is None
        if begins:
            self.uses.put(use)
        return Passage(call.request, use=use, begins=begins)

    async def _end(self, call: Call, request: Any, kind: Kind, name: str) -> Passage:
        """Return the passage of an unpublish or unstage. Raises Refusal."""
        try:
            place = _place(call, request, name)
        except UnsafePath:
            return Passage(call.request, answered=True)  # nothing was ever published at such a path
        use = self.uses.find(kind, place.plugin, place.volume, place.path)
        if use is not None:
            self._check_idle(use)
            setattr(request, name, use.resolved)
            return Passage(call.request, use=use, ends_at=use.resolved)
        if await asyncio.to_thread(self.bounds.entry_of, place) is not None:
            return Passage(call.request, ends_at=place.path)
        if not await asyncio.to_thread(self._is_older, kind, place.path):
            return Passage(call.request, answered=True)
        return await self._end_older(place, call, kind)

    async def _end_older(self, place: Place, call: Call, kind: Kind) -> Passage:
        """Return the passage of an unpublish or unstage of what may be from before the journal. Raises Refusal."""
        upgraded, refused = self.uses.beginning.upgraded, self.uses.beginning.refused
        if (call.operation, place.path) in refused:
            return Passage(call.request, answered=True)
        if upgraded and place.path not in {path for _, path in refused} and await self._is_in_bounds(place):
            # It is written nowhere. It keeps other calls about the path away, as any use does.
            use = Use(kind, place.plugin, place.volume, place.path, place.path, self.uses.boot)
            self._check_others(use)
            self._check_idle(use)
            return Passage(call.request, use=use, ends_at=place.path)
        if kind == "staged" and upgraded:
            text = (
                f"volume {place.volume} at {place.path} may be staged there since before this bridge kept a journal. "
                "If the path is below no folder of --mounts-below, start the bridge with one and repeat the call. "
                "Otherwise, the call succeeds after the next reboot of the machine"
            )
        else:
            text = (
                f"{place.name} {place.path} was mounted before this bridge kept a journal, and it may be volume "
                f"{place.volume}: look at it (findmnt {place.path}). If it is the volume, unmount it by hand and "
                "repeat the call. If it is not, leave it: the call succeeds after the next reboot of the machine"
            )
        raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, text)

    async def _is_in_bounds(self, place: Place) -> bool:
        """Return whether this bridge may mount at the place, and no link leads there."""
        with suppress(Refusal):
            found: str = await asyncio.to_thread(self.bounds.resolve, place, free=False)
            return found == place.path
        return False

    async def _source(self, call: Call, request: Any) -> str:
        """Return where the volume that a NodePublishVolume names is staged. Raises Refusal."""
        place = _place(call, request, "staging_target_path")
        use = self.uses.find("staged", place.plugin, place.volume, place.path)
        return use.resolved if use else await asyncio.to_thread(self.bounds.resolve, place, free=False)

    async def _known(self, call: Call, request: Any, name: str) -> str:
        """Return where a volume is that was staged or published before. Raises Refusal."""
        with suppress(UnsafePath):
            place = _place(call, request, name)
            for kind in KINDS:
                use = self.uses.find(kind, place.plugin, place.volume, place.path)
                if use is not None:
                    return use.resolved
            if await asyncio.to_thread(self.bounds.entry_of, place) is not None:
                return place.path
        text = f"this bridge did not have volume {request.volume_id} mounted at {getattr(request, name)}"
        raise Refusal(grpc.StatusCode.NOT_FOUND, text)

    def _check_idle(self, use: Use) -> None:
        if use.file in self._busy:
            raise Refusal(grpc.StatusCode.ABORTED, f"another call about {use.resolved} is running: repeat it later")

    def _check_others(self, use: Use) -> None:
        """Raise Refusal if another volume is, or may be, where the use is to be. Forget what a reboot ended."""
        for other in self.uses.overlapping(use):
            if other.boot == self.uses.boot:
                raise Refusal(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"{use.path} is not free: volume {other.volume} of plugin {other.plugin} is {other.kind} at "
                    f"{other.resolved}: release its claim first. If that was freed by force, unmount {other.resolved} "
                    f"by hand if anything is mounted there, then stop the bridge and remove {self.uses.file_of(other)}",
                )
            self.uses.forget(other)

    def _is_older(self, kind: Kind, path: str) -> bool:
        """Return whether a volume may be staged or published at a path since before the journal began."""
        beginning = self.uses.beginning
        if beginning.boot != self.uses.boot:
            return False  # a reboot unmounted it
        if beginning.upgraded and kind == "staged":
            return True  # a block volume leaves no mount at its staging path
        found = {one: paths.mount_at(one) for one in paths.spellings(path)}
        if beginning.upgraded and any(what.startswith(("link ", "device ")) for what in found.values()):
            return True  # the list has only mounts
        return any(what and one in beginning.mounts for one, what in found.items())


@contextmanager
def _using_journal() -> Iterator[None]:
    """Raise Refusal if a journal cannot be used in this block."""
    try:
        yield
    except (JournalTrouble, OSError) as exc:
        raise Refusal(grpc.StatusCode.UNAVAILABLE, f"the bridge's journal cannot be used: {exc}") from exc


def _parse(rpc: str, request: bytes) -> Any:
    """Return the request of a node call. Raises Refusal."""
    if rpc not in {*_BEGINS, *_ENDS, *_LOOKS}:
        raise Refusal(
            grpc.StatusCode.UNIMPLEMENTED, f"this bridge does not know {rpc}, nor which paths it names: update it"
        )
    try:
        return getattr(csi, f"{rpc}Request").FromString(request)
    except DecodeError as exc:
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"{rpc}: the request is not CSI's") from exc


def _place(call: Call, request: Any, name: str) -> Place:
    """Return the place that a field of the request names. Raises Refusal, and UnsafePath for what is no path."""
    for required in ("volume_id", name):
        if not getattr(request, required):
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"{required} is missing in the request")
    return Place(call.plugin, request.volume_id, _NAMES[name], clean(getattr(request, name)))
