"""Claims, releases, leases, nodes that go down and come back, detaches, deletes, forced deregistrations and expansions
in any order, against a model of a few lines; everything in this process, on moto or, with `--against=local`, on the
DynamoDB Local at DYNAMODB_LOCAL_URL.

`make test` runs a few examples, `make conformance` more, `make soak` as many as there is time for
(tests/property/conftest.py).
"""

import json
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from moto import mock_aws

from chalicelib.service.liveness import release_lost_claims
from chalicelib.sweeps import claims, liveness
from tests.emulated import STAGE, Place
from tests.harness import CAPABILITIES, Reply, forget, make_system
from tests.operations.invariants import violations
from tests.property.test_claim_rules import READ_ONLY, fits

ATTACHES = CAPABILITIES | {"PUBLISH_UNPUBLISH_VOLUME"}
PATH = "/v1/volume/csi/v"
ALLOCS = st.sampled_from(["a1", "a2", "a3", "a4"])
NODES = st.sampled_from(["node-a", "node-b"])
MODES = st.sampled_from(["read", "write"])
LEASE = 6 * 3600
"""Seconds. Each sweep takes 100 s of the fake clock, so no lease may end in an example before `leases_run_out`."""


class Claims(RuleBasedStateMachine):
    """One volume, two nodes, four allocations; `held` is what should be true."""

    tables_at: ClassVar[str] = ""
    """Address of a DynamoDB Local; empty: moto."""

    def __init__(self) -> None:
        super().__init__()
        self.mock, self.patch = mock_aws(), pytest.MonkeyPatch()
        self.mock.start()
        if self.tables_at:  # the key stays moto's
            self.patch.setenv("AWS_ENDPOINT_URL_DYNAMODB", self.tables_at)
        self.place = Place.at()
        self.system = make_system(self.patch, self.place)
        self.held: dict[str, tuple[str, str, bool]] = {}
        self.lost: set[str] = set()
        """Of `held`, writers whose leases ran out beside a claim that keeps the volume attached to their node. They
        count until it is taken away from there.
        """
        self.down: set[str] = set()
        self.size = 1024
        for node in ("node-a", "node-b"):
            self.system.add_node(node, controller_capabilities=ATTACHES)

    @initialize(
        access_mode=st.sampled_from(
            [
                "single-node-reader-only",
                "single-node-writer",
                "multi-node-reader-only",
                "multi-node-single-writer",
                "multi-node-multi-writer",
            ]
        )
    )
    def create(self, access_mode: str) -> None:
        self.access_mode = access_mode
        self._create()

    @rule(alloc=ALLOCS, node=NODES, mode=MODES, leased=st.booleans())
    def claim(self, alloc: str, node: str, mode: str, leased: bool) -> None:
        body = {"AllocationID": alloc, "NodeID": node, "Mode": mode, "LeaseSeconds": LEASE if leased else 0}
        reply = self._call("PUT", f"{PATH}/claim", body)
        if alloc in self.held:
            same = self.held[alloc][:2] == (node, mode) and alloc not in self.lost
            assert reply.status == (200 if same else 409), reply.body
        elif mode == "write" and self.access_mode in READ_ONLY:
            assert (reply.status, reply.body) == (500, "volume is currently unschedulable")
        elif not fits(self.access_mode, [m for _, m, _ in self.held.values()] + [mode]):
            assert (reply.status, reply.body) == (500, "volume max claims reached")
        elif node in self.down:
            assert (reply.status, "is down" in reply.body) == (500, True)
        else:
            assert reply.status == 200, reply.body
            self.held[alloc] = (node, mode, leased)

    @rule(alloc=ALLOCS)
    def release(self, alloc: str) -> None:
        reply = self._call("DELETE", f"{PATH}/claim/{alloc}")
        assert reply.status == (200 if alloc in self.held else 404), reply.body
        self._end({alloc})

    @rule(alloc=ALLOCS)
    def renew(self, alloc: str) -> None:
        reply = self._call("PUT", f"{PATH}/claim/{alloc}/renew")
        if alloc in self.lost:
            assert (reply.status, "has run out" in reply.body) == (409, True)
            return
        assert reply.status == (404 if alloc not in self.held else 200 if self.held[alloc][2] else 400), reply.body

    @rule()
    def leases_run_out(self) -> None:
        self.system.clock.moment += LEASE + 60
        self._sweep()
        over = {alloc for alloc, claim in self.held.items() if claim[2]} - self.lost
        stay = {claim[0] for alloc, claim in self.held.items() if alloc not in over | self.lost}
        if self.access_mode == "multi-node-single-writer":
            self.lost |= {alloc for alloc in over if self.held[alloc][1] == "write" and self.held[alloc][0] in stay}
        self._end(over - self.lost)

    @rule(node=NODES)
    def node_goes_down(self, node: str) -> None:
        self.down.add(node)
        self.system.set_healthy(node, healthy=False)
        self._sweep()
        self._end({alloc for alloc, claim in self.held.items() if claim[0] == node})

    @rule(node=NODES)
    def node_comes_back(self, node: str) -> None:
        self.down.discard(node)
        self.system.set_healthy(node, healthy=True)
        assert release_lost_claims(self.system.deps, node) == []

    @rule(node=NODES, force=st.sampled_from(["true", "false"]))
    def detach(self, node: str, force: str) -> None:
        reply = self._call("DELETE", f"{PATH}/detach", query=f"node={node}&force={force}")
        in_use = any(where == node for alloc, (where, _, _) in self.held.items() if alloc not in self.lost)
        assert reply.status == (500 if in_use else 200), reply.body

    @rule(how=st.sampled_from(["/delete", "", "?force"]))
    def delete(self, how: str) -> None:
        reply = self._call("DELETE", PATH + how.removesuffix("?force"), query="force=true" if how == "?force" else "")
        if self.held:
            assert (reply.status, reply.body) == (500, "volume in use: v")
            return
        assert reply.status == 200, reply.body
        if how != "/delete":
            self.system.provider.volumes.clear()  # what was only deregistered is nobody's business here
        self._create()

    @rule()
    def expand(self) -> None:
        self.size += 1024
        self._create()

    @invariant()
    def shown_is_what_is_held(self) -> None:
        shown = self._call("GET", PATH)
        if shown.status == 404:
            return  # before the volume is made
        allocs = {alloc: mode for alloc, (_, mode, _) in self.held.items()}
        assert set(shown.json["ReadAllocs"]) == {a for a, mode in allocs.items() if mode == "read"}
        assert set(shown.json["WriteAllocs"]) == {a for a, mode in allocs.items() if mode == "write"}
        assert shown.json["AccessMode"] == (self.access_mode if allocs else "")
        attached = {node for _, node in self.system.provider.attached}
        assert attached == {f"ext-{node}" for node, _, _ in self.held.values()}

    def teardown(self) -> None:
        self.system.rest(2)
        found = violations(self.system)
        forget()
        if self.tables_at:
            for name in self.place.tables.list_tables()["TableNames"]:
                if name.startswith(f"moorage-{STAGE}-"):
                    self.place.tables.delete_table(TableName=name)
        self.patch.undo()
        self.mock.stop()
        assert found == []

    def _end(self, allocs: set[str]) -> None:
        """Forget these claims, and the lost ones on nodes from which the volume is taken away with them."""
        self.held = {alloc: claim for alloc, claim in self.held.items() if alloc not in allocs}
        attached = {claim[0] for alloc, claim in self.held.items() if alloc not in self.lost}
        self.held = {a: claim for a, claim in self.held.items() if a not in self.lost or claim[0] in attached}
        self.lost &= self.held.keys()

    def _create(self) -> None:
        volume = {
            "ID": "v",
            "Name": "v",
            "PluginID": "directory",
            "MountOptions": {},
            "RequestedCapacityMin": self.size,
            "RequestedCapabilities": [{"AccessMode": self.access_mode, "AttachmentMode": "file-system"}],
        }
        reply = self._call("PUT", f"{PATH}/create", {"Volumes": [volume]})
        assert reply.status == 200, reply.body

    def _sweep(self) -> None:
        for node in self.system.deps.plugins.nodes():
            if node.id not in self.down:
                self.system.deps.plugins.heartbeat(node, sequence=node.sequence + 1, seen_at=self.system.clock.now())
        claims.sweep(self.system.deps, liveness.Report(down=tuple(self.down)))
        for _ in range(5):
            self.system.sweep()
            self.system.pump()
            self.system.clock.moment += 20

    def _call(self, method: str, path: str, body: Any = None, *, query: str = "") -> Reply:
        return self.system.call(method, path, json.loads(json.dumps(body)) if body else None, query=query)


TestClaims = Claims.TestCase
