"""A storage provider behind the worker's `Calls`: what CSI promises of names and IDs, with hooks for every way to fail.

The real thing is the directory plugin behind a bridge (tests/e2e); this one is for the many cases that need no wire.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chalicelib.domain.volume import Volume
from chalicelib.errors import PluginError


@dataclass
class Stored:
    id: str
    name: str
    capacity: int
    parameters: dict[str, str]


Hook = Callable[[str, "FakeProvider"], None]


@dataclass
class FakeProvider:
    """Volumes by ID; `before` and `after` are called around the effect of each call and may raise a PluginError or
    die.
    """

    volumes: dict[str, Stored] = field(default_factory=dict)
    before: list[Hook] = field(default_factory=list)
    after: list[Hook] = field(default_factory=list)
    log: list[tuple[str, str, tuple[str, int]]] = field(default_factory=list)
    secrets: list[Mapping[str, str]] = field(default_factory=list)
    made: int = 0

    def create_volume(
        self,
        plugin_id: str,
        volume: Volume,
        *,
        name: str,
        secrets: Mapping[str, str],
        seconds: float,
        attempt: tuple[str, int],
    ) -> dict[str, Any]:
        self._around(self.before, "CreateVolume", name, attempt, secrets)
        found = next((v for v in self.volumes.values() if v.name == name), None)
        if found is None:
            self.made += 1
            found = Stored(f"ext-{self.made}", name, volume.capacity_min or 1024, dict(volume.parameters or {}))
            self.volumes[found.id] = found
        for hook in list(self.after):
            hook("CreateVolume", self)
        return {"external_id": found.id, "capacity": found.capacity, "context": {"made": "yes"}, "topologies": ()}

    def delete_volume(
        self, plugin_id: str, external_id: str, *, secrets: Mapping[str, str], seconds: float, attempt: tuple[str, int]
    ) -> None:
        self._around(self.before, "DeleteVolume", external_id, attempt, secrets)
        self.volumes.pop(external_id, None)
        for hook in list(self.after):
            hook("DeleteVolume", self)

    def _around(
        self, hooks: list[Hook], rpc: str, subject: str, attempt: tuple[str, int], secrets: Mapping[str, str]
    ) -> None:
        self.log.append((rpc, subject, attempt))
        self.secrets.append(dict(secrets))
        for hook in list(hooks):
            hook(rpc, self)


def once(rpc: str, error: PluginError | BaseException) -> Hook:
    """A hook that raises `error` at the first call of `rpc`, and takes itself away."""
    used = []

    def hook(called: str, provider: FakeProvider) -> None:
        if called == rpc and not used:
            used.append(True)
            raise error

    return hook
