"""A control plane with its clients, bridges and workers, and what they can do.

Only the product writes rows. What happens is in nodes.py, volumes.py and steps.py beside this module.
"""

import datetime as dt
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from chalicelib.domain.operation import Operation
from chalicelib.errors import PluginInDoubt, PluginRejected, PluginUnreachable
from chalicelib.operations import engine
from chalicelib.sweeps import liveness
from chalicelib.sweeps.liveness import SWEEP_SECONDS
from moorage import certificates, publishing
from tests.baseline.parts import Bridge, Front, Strike, Strikes, Watched
from tests.emulated import STAGE
from tests.harness import REGION, Died, Reply, System, definition
from tests.operations.script import tell

ROUNDS: Final = 100
CERTIFICATE_DAYS: Final = 365 * 100
UNMOUNTED: Final = {"StagingPath": "", "TargetPath": ""}
"""Fields of a claim that its owner mounts."""
SECRETS: Final[Mapping[str, Any]] = {"Secrets": {"user": "me", "password": "not a secret: tests know it"}}
NOT_WAITING: Final = {"Prefer": "respond-async"}

doubt = tell(PluginInDoubt("the plugin did not answer in time", code="DEADLINE_EXCEEDED"))
unreached = tell(PluginUnreachable("no healthy controller", code="UNAVAILABLE"))
die = tell(Died())


def rejected(code: str) -> Callable[[], None]:
    return tell(PluginRejected(f"the plugin says {code.lower()}", code=code))


@dataclass
class Story:
    """The control plane, with its clients, bridges and workers."""

    system: System
    front: Front
    folder: Path
    bridges: dict[str, Bridge] = field(default_factory=dict)
    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The requests that began an operation and did not wait for it, by the operation's ID."""

    # Clients

    def ask(
        self, method: str, path: str, body: Any = None, *, query: str = "", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Make a request that must succeed, and return its reply."""
        reply = self.system.call(method, path, body, query=query, headers=headers)
        assert reply.status == 200, f"{method} {path}: {reply.status} {reply.body}"
        return reply

    def refused(self, *strikes: Strike, **request: Any) -> None:
        """Make a request that must fail at the plugin, with all strikes used up."""
        with Strikes(*strikes).at(self.system.provider) as used:
            reply = self.system.call(**request)
        assert reply.status == 500, f"{request}: {reply.status} {reply.body}"
        assert not used.left

    def begin(self, method: str, path: str, body: Any = None, *, query: str = "", **headers: str) -> str:
        """Make a request that does not wait, and lose its message. Return the ID of its operation."""
        given = NOT_WAITING | headers
        with self.still():
            reply = self.system.call(method, path, body, query=query, headers=given)
        assert reply.status == 202, f"{method} {path}: {reply.status} {reply.body}"
        (operation_id,) = reply.json["Operations"]
        text = "" if body is None else json.dumps(body)
        self.requests[operation_id] = {"method": method, "path": path, "body": text, "query": query, "headers": given}
        return str(operation_id)

    @contextmanager
    def still(self) -> Iterator[None]:
        """Run no worker in this block, and lose the messages that it sends."""
        self.system.pumping = False
        try:
            yield
        finally:
            self.system.pumping = True
            self.system.queue.messages.clear()

    def create(self, volume_id: str, *, plugin: str = "ebs", namespace: str = "default", **fields: Any) -> Reply:
        body = definition(volume_id, PluginID=plugin, **fields)
        return self.ask("PUT", f"/v1/volume/csi/{volume_id}/create", body, query=f"namespace={namespace}")

    def claim(self, volume_id: str, node: str = "node-a", **fields: Any) -> Reply:
        return self.ask("PUT", f"/v1/volume/csi/{volume_id}/claim", claim_body(volume_id, node, **fields))

    def snapshot(self, volume_id: str, **fields: Any) -> str:
        """Take a snapshot, and return its ID."""
        taken = self.ask("PUT", "/v1/volumes/snapshot", snapshot_body(volume_id, **fields))
        return str(taken.json["Snapshots"][0]["ID"])

    def remove(self, *names: str) -> None:
        """Remove the storage of deregistered volumes, as their owner would."""
        stored = self.system.provider.volumes
        for found in [one.id for one in stored.values() if one.name.rpartition("-")[0] in names]:
            del stored[found]

    # Workers

    def work(self, operation_id: str, *strikes: Strike, over: Callable[[Operation], bool] | None = None) -> Operation:
        """Deliver the operation's message, each time when it is due, until the strikes are used up or it is `over`."""
        with Strikes(*strikes).at(self.system.provider) as used:
            for _ in range(ROUNDS):
                found = self.operation(operation_id)
                if over(found) if over else not used.left:
                    return found
                self.pass_until(found.not_before, found.lease_until)
                self.deliver(operation_id)
        raise AssertionError(f"{self.operation(operation_id)} went on and on")

    def deliver(self, operation_id: str) -> None:
        try:
            engine.run(self.system.context, operation_id)
        except Died:
            return

    def finish(self, operation_id: str, *strikes: Strike) -> Operation:
        return self.work(operation_id, *strikes, over=lambda found: not found.open)

    def operation(self, operation_id: str) -> Operation:
        found = self.system.deps.operations.get(operation_id)
        assert found is not None
        return found

    # Time and nodes

    def pass_until(self, *moments: float) -> None:
        self.system.clock.moment = max(self.system.clock.moment, *moments)

    def pass_time(self, seconds: float, *, beating: Iterable[str]) -> liveness.Report:
        """Let time pass. Each minute these bridges send a heartbeat, and the sweeper sweeps the nodes.

        Returns the report of the last sweep.
        """
        end = self.system.clock.moment + seconds
        found = liveness.sweep(self.system.deps)
        while self.system.clock.moment < end:
            self.system.clock.moment += SWEEP_SECONDS
            self.beat(*beating)
            found = liveness.sweep(self.system.deps)
        return found

    def beat(self, *node_ids: str) -> None:
        for node_id in node_ids:
            self.said(self.bridges[node_id].say())

    def bridge(self, node_id: str, *plugins: Watched) -> Bridge:
        """Add a machine with a bridge that has not sent a message yet."""
        certs, number = self.folder / node_id, len(self.bridges) + 1
        certificates.issue_bridge(self.folder / "ca", node_id, certs, days=CERTIFICATE_DAYS, now=self._now())
        made = self.bridges[node_id] = Bridge(self.front, node_id, number, certs, list(plugins))
        return made

    def said(self, exchange: Any, status: int = 200) -> None:
        assert exchange is not None
        assert exchange.status == status, exchange

    def publish_worker(self) -> None:
        """Publish the worker's certificate, and the CA that issues bridges' certificates."""
        certificates.make_ca(self.folder / "ca", days=2 * CERTIFICATE_DAYS, now=self._now())
        certificates.issue_worker(self.folder / "ca", self.folder / "worker", days=CERTIFICATE_DAYS, now=self._now())
        stranger = certificates.issue_bridge(
            self.folder / "ca", "node-bad", self.folder / "node-bad", days=CERTIFICATE_DAYS, now=self._now()
        )
        certificates.refuse(self.folder / "worker", stranger.serial)
        publishing.publish_worker(self.folder / "worker", stage=STAGE, region=REGION)

    def open_of(self, volume_id: str) -> Operation:
        """Return the volume's open operation."""
        return next(o for o in self.system.deps.operations.newest() if o.open and o.volume_id == volume_id)

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.system.clock.now(), dt.UTC)


def claim_body(volume_id: str, node: str = "node-a", **fields: Any) -> dict[str, Any]:
    """Return the body of a claim that the worker mounts."""
    return {
        "AllocationID": f"alloc-{volume_id}",
        "NodeID": node,
        "Mode": "write",
        "StagingPath": f"/stage/{volume_id}",
        "TargetPath": f"/mnt/{volume_id}",
    } | fields


def snapshot_body(volume_id: str, **fields: Any) -> dict[str, Any]:
    wanted = {"SourceVolumeID": volume_id, "Name": f"nightly of {volume_id}", "Parameters": {"tier": "cold"}}
    return {"Snapshots": [wanted | fields]}
