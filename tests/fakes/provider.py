"""A storage provider behind the worker's `Calls`: what CSI promises of names and IDs, with hooks for every way to fail.

The real thing is the directory plugin behind a bridge (tests/e2e) or on its socket (tests/replay); this one is for the
many cases that need no wire.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chalicelib.domain.call import CallOptions
from chalicelib.domain.claim import Use
from chalicelib.domain.external import Snapshot
from chalicelib.domain.volume import Made, Volume
from chalicelib.errors import PluginRejected


@dataclass
class Stored:
    """A volume or snapshot as the provider has it."""

    id: str
    name: str
    capacity: int = 0
    source: str = ""


Hook = Callable[[str, "FakeProvider"], None]
Attempt = tuple[str, int]


class Stranded(Exception):
    """A `before` hook raises it to let the call out of sight: its caller is told `error`, its effect waits in
    `stranded` until somebody lands it.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__("stranded")
        self.error = error


@dataclass
class FakeProvider:
    """`before` and `after` are called around the effect of each call and may raise a PluginError or die."""

    volumes: dict[str, Stored] = field(default_factory=dict)
    snapshots: dict[str, Stored] = field(default_factory=dict)
    before: list[Hook] = field(default_factory=list)
    after: list[Hook] = field(default_factory=list)
    log: list[tuple[str, str, Attempt]] = field(default_factory=list)
    secrets: list[Mapping[str, str]] = field(default_factory=list)
    attached: set[tuple[str, str]] = field(default_factory=set)
    mounted: set[tuple[str, str, str]] = field(default_factory=set)
    stranded: list[Callable[[], Any]] = field(default_factory=list)
    context: Mapping[str, str] = field(default_factory=lambda: {"made": "yes"})
    topologies: Sequence[Mapping[str, str]] = ()
    """Both of every volume it makes."""
    made: int = 0

    def create_volume(self, volume: Volume, *, name: str, call: CallOptions) -> Made:
        found = self._call("CreateVolume", name, call, lambda: self.make_volume(name, volume.definition.capacity_min))
        asked = volume.definition
        return Made(
            found.id, found.capacity, dict(self.context), tuple(self.topologies), asked.snapshot_id, asked.clone_id
        )

    def make_volume(self, name: str, capacity: int) -> Stored:
        """The effect of CreateVolume: the same name is the same volume."""
        found = next((v for v in self.volumes.values() if v.name == name), None)
        if found is None:
            self.made += 1
            found = Stored(f"ext-{self.made}", name, capacity or 1024)
            self.volumes[found.id] = found
        return found

    def delete_volume(self, plugin_id: str, external_id: str, *, call: CallOptions) -> None:
        self._call("DeleteVolume", external_id, call, lambda: self.volumes.pop(external_id, None))

    def controller_expand_volume(
        self,
        volume: Volume,
        *,
        required: int,
        limit: int,
        call: CallOptions,
    ) -> int:
        def grow() -> int:
            stored = self.volumes.get(volume.definition.external_id)
            if stored is None:
                raise PluginRejected("there is no such volume", code="NOT_FOUND")
            stored.capacity = max(stored.capacity, required)
            return stored.capacity

        size: int = self._call("ControllerExpandVolume", volume.definition.external_id, call, grow)
        return size

    def create_snapshot(
        self,
        plugin_id: str,
        external_id: str,
        *,
        name: str,
        parameters: Mapping[str, str],
        call: CallOptions,
    ) -> Snapshot:
        def take() -> Stored:
            found = next((s for s in self.snapshots.values() if (s.name, s.source) == (name, external_id)), None)
            if found is None:
                self.made += 1
                found = Stored(f"snap-{self.made}", name, 1024, external_id)
                self.snapshots[found.id] = found
            return found

        taken: Stored = self._call("CreateSnapshot", name, call, take)
        return Snapshot(taken.id, external_id, taken.capacity, create_time=1, ready=True)

    def delete_snapshot(self, plugin_id: str, external_id: str, *, call: CallOptions) -> None:
        self._call("DeleteSnapshot", external_id, call, lambda: self.snapshots.pop(external_id, None))

    def land(self) -> int:
        """Calls that were out of sight have their effect now; how many."""
        landing, self.stranded = self.stranded, []
        for effect in landing:
            with contextlib.suppress(PluginRejected):  # nobody is there to be told
                effect()
        return len(landing)

    def controller_publish_volume(
        self, volume: Volume, use: Use, *, external_node_id: str, call: CallOptions
    ) -> dict[str, str]:
        def attach() -> dict[str, str]:
            others = {n for v, n in self.attached if v == volume.definition.external_id} - {external_node_id}
            if others and use.capability.access_mode.startswith("single-node"):
                raise PluginRejected("attached elsewhere", code="FAILED_PRECONDITION")
            self.attached.add((volume.definition.external_id, external_node_id))
            return {"device": f"/dev/{volume.definition.external_id}"}

        subject = f"{volume.definition.external_id}@{external_node_id}"
        context: dict[str, str] = self._call("ControllerPublishVolume", subject, call, attach)
        return context

    def controller_unpublish_volume(
        self, plugin_id: str, external_id: str, *, external_node_id: str, call: CallOptions
    ) -> None:
        place = (external_id, external_node_id)
        self._call(
            "ControllerUnpublishVolume",
            f"{external_id}@{external_node_id}",
            call,
            lambda: self.attached.discard(place),
        )

    def node_stage_volume(self, volume: Volume, use: Use, *, node_id: str, call: CallOptions) -> None:
        place = (volume.definition.external_id, node_id, use.staging_path)
        self._call("NodeStageVolume", volume.definition.external_id, call, lambda: self.mounted.add(place))

    def node_publish_volume(self, volume: Volume, use: Use, *, node_id: str, call: CallOptions) -> None:
        place = (volume.definition.external_id, node_id, use.target_path)
        self._call(
            "NodePublishVolume",
            volume.definition.external_id,
            call,
            lambda: self.mounted.add(place),
        )

    def node_unpublish_volume(
        self, plugin_id: str, external_id: str, *, node_id: str, path: str, call: CallOptions
    ) -> None:
        place = (external_id, node_id, path)
        self._call("NodeUnpublishVolume", external_id, call, lambda: self.mounted.discard(place))

    def node_unstage_volume(
        self, plugin_id: str, external_id: str, *, node_id: str, path: str, call: CallOptions
    ) -> None:
        place = (external_id, node_id, path)
        self._call("NodeUnstageVolume", external_id, call, lambda: self.mounted.discard(place))

    def _call(self, rpc: str, subject: str, call: CallOptions, effect: Callable[[], Any]) -> Any:
        assert call.attempt is not None
        self.log.append((rpc, subject, (call.attempt.operation_id, call.attempt.number)))
        self.secrets.append(dict(call.secrets))
        for hook in list(self.before):
            try:
                hook(rpc, self)
            except Stranded as exc:
                self.stranded.append(effect)
                raise exc.error from exc
        done = effect()
        for hook in list(self.after):
            hook(rpc, self)
        return done


def once(rpc: str, error: BaseException) -> Hook:
    """A hook that raises `error` at the first call of `rpc` only."""
    used: list[bool] = []

    def hook(called: str, provider: FakeProvider) -> None:
        if called == rpc and not used:
            used.append(True)
            raise error

    return hook
