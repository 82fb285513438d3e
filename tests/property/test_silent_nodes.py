"""Nodes that fall silent and are heard again between any two looks of a worker, and calls that land late.

The claims of one volume are taken, released and forced away meanwhile, for each kind of plugin. There is no model of
what each request must answer. At every call of a worker the volume is usable on no more nodes than its access mode
allows, and at the end, when every node is heard and every call has landed, nothing is left.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from moto import mock_aws

from chalicelib.errors import PluginError, PluginInDoubt, PluginRejected
from chalicelib.operations import engine
from chalicelib.service.liveness import release_lost_claims
from chalicelib.sweeps import claims, liveness
from tests.emulated import Place
from tests.fakes.provider import Stranded
from tests.harness import CAPABILITIES, NODE_CAPABILITIES, Reply, definition, forget, make_system
from tests.operations.invariants import all_operations, violations
from tests.operations.test_silence import Flaps, Looking

PATH = "/v1/volume/csi/data"
CALL_SECONDS = 60.0
"""How long a call may land after it was sent, at least: the deadline of each of these calls."""
ALLOCS = st.sampled_from(["a1", "a2", "a3"])
NODES = st.sampled_from(["node-a", "node-b"])
LATE: tuple[PluginError, ...] = (
    PluginInDoubt("no answer", code="DEADLINE_EXCEEDED"),
    PluginRejected("who knows", code="UNKNOWN"),
)


class SilentNodes(RuleBasedStateMachine):
    """Two nodes, and three allocations that each want the volume to write or to read."""

    def __init__(self) -> None:
        super().__init__()
        self.mock, self.patch = mock_aws(), pytest.MonkeyPatch()
        self.mock.start()
        self.system = make_system(self.patch, Place.at(), wait_seconds=1.0)
        self.system.pumping = False
        self.system.clock.on_sleep[:] = []
        self.tapped = Looking(self.system)
        self.tapped.side = "worker"
        self.silent: set[str] = set()
        self.modes: dict[str, str] = {}
        self.owned: dict[str, str] = {}
        """Allocations whose owner has mounted the volume, and the node."""
        self.stranded_at: list[float] = []
        self.late: PluginError | None = None
        self.seen: list[str] = []
        self.system.provider.before.append(self._strand)
        self.system.provider.after.append(self._look)

    @initialize(
        access_mode=st.sampled_from(["single-node-writer", "single-node-reader-only", "multi-node-single-writer"]),
        attaches=st.booleans(),
        stages=st.booleans(),
    )
    def create(self, access_mode: str, attaches: bool, stages: bool) -> None:
        self.access_mode, self.attaches, self.system.provider.stages = access_mode, attaches, stages
        for node_id in ("node-a", "node-b"):
            self.system.add_node(
                node_id,
                controller_capabilities=CAPABILITIES | ({"PUBLISH_UNPUBLISH_VOLUME"} if attaches else set()),
                node_capabilities=NODE_CAPABILITIES if stages else frozenset(),
            )
        capabilities = [{"AccessMode": access_mode, "AttachmentMode": "file-system"}]
        self._ask("PUT", f"{PATH}/create", definition(RequestedCapabilities=capabilities))
        self._work_all()

    @rule(alloc=ALLOCS, node=NODES, reads=st.booleans(), by_owner=st.booleans())
    def claim(self, alloc: str, node: str, reads: bool, by_owner: bool) -> None:
        mode = "read" if reads or self.access_mode.endswith("reader-only") else "write"
        paths = {"StagingPath": "" if by_owner else "/stage", "TargetPath": "" if by_owner else f"/mnt/{alloc}"}
        body = {"AllocationID": alloc, "NodeID": node, "Mode": mode} | paths
        if self._ask("PUT", f"{PATH}/claim", body).status in (200, 202):
            self.modes[alloc] = mode

    @rule(alloc=ALLOCS)
    def owner_mounts(self, alloc: str) -> None:
        for one in self._claims():
            if one["AllocationID"] == alloc and one["Published"] and not one["TargetPath"] and one["State"] == "taken":
                self.owned[alloc] = one["NodeID"]

    @rule(alloc=ALLOCS)
    def release(self, alloc: str) -> None:
        self.owned.pop(alloc, None)  # an owner unmounts before it says so
        self._ask("DELETE", f"{PATH}/claim/{alloc}")

    @rule(alloc=ALLOCS)
    def lease_runs_out(self, alloc: str) -> None:
        """Release as the sweep does, while the owner may have the volume mounted."""
        from chalicelib.service.releases import begin_release

        found = self.system.deps.claims.get("default", "data", alloc)
        if found is not None and found.live:
            begin_release(self.system.deps, found)

    @rule(node=NODES)
    def falls_silent(self, node: str) -> None:
        self._silence(node)

    @rule(node=NODES)
    def is_heard(self, node: str) -> None:
        self._hear(node)

    @rule(node=NODES)
    def machine_dies_and_is_forced(self, node: str) -> None:
        """The operator tells the truth: nothing is mounted on a machine that is off."""
        self._silence(node)
        self.system.provider.mounted -= {place for place in self.system.provider.mounted if place[1] == node}
        self.owned = {alloc: where for alloc, where in self.owned.items() if where != node}
        self._ask("DELETE", f"{PATH}/detach", query=f"node={node}&force=true")

    @rule()
    def sweep(self) -> None:
        claims.sweep(self.system.deps, liveness.Report(down=tuple(sorted(self.silent))))

    @rule(first=st.integers(0, 9), node=NODES, strand=st.sampled_from([None, None, *LATE]))
    def work(self, first: int, node: str, strand: PluginError | None) -> None:
        """Run one operation. The node changes at one of the worker's looks, and a call may be delayed."""
        due = [o for o in all_operations(self.system) if o.open and o.not_before <= self.system.clock.now()]
        if not due:
            return
        self.late = strand
        change: Callable[[], None] = lambda: (self._hear if node in self.silent else self._silence)(node)  # noqa: E731
        self.tapped.sides["worker"] = Flaps(acts={first: change}, on=True)
        engine.run(self.system.context, min(due, key=lambda o: (o.attempt, o.id)).id)
        self.tapped.sides["worker"].on, self.late = False, None

    @rule(seconds=st.sampled_from([1.0, 30.0, 70.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.system.clock.moment += seconds
        self._land(before=self.system.clock.moment - CALL_SECONDS)

    @rule()
    def calls_land(self) -> None:
        self._land(before=float("inf"))

    @invariant()
    def usable_on_as_many_nodes_as_the_mode_allows(self) -> None:
        assert self.seen == []

    def teardown(self) -> None:
        self._land(before=float("inf"))
        for node in sorted(self.silent):
            self._hear(node)
        self.owned.clear()
        for _ in range(3):
            for alloc in ("a1", "a2", "a3"):
                self._ask("DELETE", f"{PATH}/claim/{alloc}")
            self._work_all()
        found = [*self.seen, *violations(self.system), *(f"a claim is left: {one}" for one in self._claims())]
        forget()
        self.patch.undo()
        self.mock.stop()
        assert found == []

    def _claims(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.system.call("GET", f"{PATH}/claims").json
        return found

    def _ask(self, method: str, path: str, body: Any = None, *, query: str = "") -> Reply:
        self.tapped.sides["worker"].on = False
        return self.system.call(method, path, body, query=query, headers={"Prefer": "respond-async"})

    def _work_all(self) -> None:
        for _ in range(12):
            self.system.queue.messages.clear()
            self.system.clock.moment += 700
            for operation in all_operations(self.system):
                engine.run(self.system.context, operation.id)

    def _silence(self, node: str) -> None:
        self.silent.add(node)
        self.system.set_healthy(node, healthy=False)

    def _hear(self, node: str) -> None:
        self.silent.discard(node)
        self.system.set_healthy(node, healthy=True)
        release_lost_claims(self.system.deps, node)

    def _strand(self, rpc: str, _: object) -> None:
        late, self.late = self.late, None
        if late is not None:
            self.stranded_at.append(self.system.clock.now())
            raise Stranded(late)

    def _land(self, *, before: float) -> None:
        if any(at <= before for at in self.stranded_at):
            self.stranded_at.clear()
            self.system.provider.land()
            self._look("a call that landed late", None)

    def _look(self, what: str, _: object) -> None:
        """Note where a claim that excludes others, or any claim of a single-node mode, can use the volume."""
        provider = self.system.provider
        places = {(node_id, path) for _, node_id, path in provider.mounted}
        if self.access_mode.startswith("multi"):
            writers = {f"/mnt/{alloc}" for alloc, mode in self.modes.items() if mode == "write"}
            places = {(node_id, path) for node_id, path in places if path in writers}
        single = not self.access_mode.startswith("multi")
        places |= {(n, alloc) for alloc, n in self.owned.items() if single or self.modes.get(alloc) == "write"}
        attached = {node_id.removeprefix("ext-") for _, node_id in provider.attached}
        usable = {node_id for node_id, _ in places if not self.attaches or node_id in attached}
        if len(usable) > 1:
            self.seen.append(f"usable on {sorted(usable)} after {what}: {sorted(places)}")


TestSilentNodes = SilentNodes.TestCase
