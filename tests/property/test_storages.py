"""Volumes that name one storage: created, registered, deleted and deregistered at any moment, with claims on them.

Some creates are answered with one ID, some calls fail after their effect, and some land late. There is no model of what
each request must answer. At every call and every step the claims of a storage fit together, and no call removes what a
ready volume names. At the end, when everything has landed, nothing is left.
"""

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from moto import mock_aws

from chalicelib.domain.claim import fit_together
from chalicelib.domain.volume import VolumeState
from chalicelib.errors import PluginInDoubt, PluginRejected
from chalicelib.operations import engine
from tests.emulated import Place
from tests.fakes.provider import Stranded
from tests.harness import Reply, definition, forget, make_system
from tests.operations.invariants import all_operations, all_storages, storage_of, violations

VOLUMES = st.sampled_from(["a", "a", "b", "b", "c"])
SHARES = st.sampled_from(["export-1", "export-1", "export-2"])
NODES = st.sampled_from(["node-a", "node-b"])
FAILURES = st.sampled_from(["CreateVolume", "DeleteVolume"])
BROKEN = PluginRejected("the disk is broken", code="INTERNAL")
SILENT = PluginInDoubt("no answer", code="DEADLINE_EXCEEDED")
CALL_SECONDS = 120.0
"""How long a call may land after it was sent, at least: the deadline of CreateVolume."""


class Storages(RuleBasedStateMachine):
    """Two shares, three volumes that may name them, and two nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.mock, self.patch = mock_aws(), pytest.MonkeyPatch()
        self.mock.start()
        self.system = make_system(self.patch, Place.at(), wait_seconds=1.0)
        self.system.use(self.system.context.calls)
        self.system.clock.on_sleep[:] = []
        for node_id in ("node-a", "node-b"):
            self.system.add_node(node_id)
        self.fails = self.strands = ""
        self.stranded_at: list[float] = []
        self.seen: list[str] = []
        self.system.provider.before.append(self._before)
        self.system.provider.after.append(self._after)

    @rule(volume_id=VOLUMES, share=SHARES)
    def create(self, volume_id: str, share: str) -> None:
        body = definition(volume_id, Parameters={"share": share})
        self._ask("PUT", f"/v1/volume/csi/{volume_id}/create", body)

    @rule(volume_id=VOLUMES, share=SHARES)
    def register(self, volume_id: str, share: str) -> None:
        self._ask("PUT", f"/v1/volume/csi/{volume_id}", definition(volume_id, ExternalID=share))

    @rule(volume_id=VOLUMES)
    def delete(self, volume_id: str) -> None:
        self._ask("DELETE", f"/v1/volume/csi/{volume_id}/delete")

    @rule(volume_id=VOLUMES, force=st.sampled_from(["", "true"]))
    def deregister(self, volume_id: str, force: str) -> None:
        self._ask("DELETE", f"/v1/volume/csi/{volume_id}", query=f"force={force}")

    @rule(volume_id=VOLUMES, node=NODES, mode=st.sampled_from(["read", "write"]))
    def claim(self, volume_id: str, node: str, mode: str) -> None:
        body = {"AllocationID": "x", "NodeID": node, "Mode": mode}
        body |= {"StagingPath": "/stage", "TargetPath": f"/mnt/{volume_id}"}
        self._ask("PUT", f"/v1/volume/csi/{volume_id}/claim", body)

    @rule(volume_id=VOLUMES)
    def release(self, volume_id: str) -> None:
        self._ask("DELETE", f"/v1/volume/csi/{volume_id}/claim/x")

    @rule(rpc=FAILURES)
    def the_next_call_fails_after_its_effect(self, rpc: str) -> None:
        self.fails = rpc

    @rule(rpc=FAILURES)
    def the_next_call_lands_late(self, rpc: str) -> None:
        self.strands = rpc

    @rule(number=st.integers(0, 3))
    def work(self, number: int) -> None:
        """Run one operation that is due."""
        due = [o for o in all_operations(self.system) if o.open and o.not_before <= self.system.clock.now()]
        if due:
            engine.run(self.system.context, sorted(due, key=lambda o: o.id)[number % len(due)].id)

    @rule()
    def work_a_while(self) -> None:
        """Run every operation that is due, a few times over."""
        for _ in range(4):
            self.system.clock.moment += 2.0
            for operation in all_operations(self.system):
                engine.run(self.system.context, operation.id)

    @rule(seconds=st.sampled_from([1.0, 10.0, 130.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.system.clock.moment += seconds
        if any(at <= self.system.clock.moment - CALL_SECONDS for at in self.stranded_at):
            self._land()

    @rule()
    def calls_land(self) -> None:
        self._land()

    @invariant()
    def nothing_was_destroyed_and_claims_fit(self) -> None:
        assert self.seen == []
        for storage in all_storages(self.system):
            claims = [c for place in sorted(storage.volumes) for c in self.system.deps.claims.of_volume(*place)]
            assert fit_together([c for c in claims if c.external_id == storage.external_id])

    def teardown(self) -> None:
        self.fails = self.strands = ""
        self._land()
        for volume_id in ("a", "b", "c"):
            self._ask("DELETE", f"/v1/volume/csi/{volume_id}/claim/x")
        for _ in range(12):
            self.system.clock.moment += 700
            for operation in all_operations(self.system):
                engine.run(self.system.context, operation.id)
        found = [*self.seen, *violations(self.system)]
        forget()
        self.patch.undo()
        self.mock.stop()
        assert found == []

    def _ask(self, method: str, path: str, body: Any = None, *, query: str = "") -> Reply:
        return self.system.call(method, path, body, query=query, headers={"Prefer": "respond-async"})

    def _before(self, rpc: str, _: object) -> None:
        if rpc == "DeleteVolume":
            self._look()
        if rpc == self.strands:
            self.strands = ""
            self.stranded_at.append(self.system.clock.now())
            raise Stranded(SILENT)

    def _after(self, rpc: str, _: object) -> None:
        if rpc == self.fails:
            self.fails = ""
            raise BROKEN

    def _land(self) -> None:
        self.stranded_at.clear()
        before = set(self.system.provider.volumes)
        self.system.provider.land()
        gone = before - set(self.system.provider.volumes)
        self.seen += [f"{v.id} lost {storage_of(v)}" for v in self._ready() if storage_of(v) in gone]

    def _look(self) -> None:
        """Note the ready volumes whose storage the call that is made now would remove."""
        called = self.system.provider.log[-1][1]
        self.seen += [f"{v.id} loses {called}" for v in self._ready() if storage_of(v) == called]

    def _ready(self) -> list[Any]:
        pages = self.system.deps.volumes.in_namespace("default")
        return [v for page in pages for v in page if v.state is VolumeState.READY]


TestStorages = Storages.TestCase
