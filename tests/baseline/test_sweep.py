"""Today's sweeper works on the rows of every baseline until nothing is due: nothing that should end is stuck."""

import json

from chalicelib import functions
from chalicelib.domain.claim import ClaimState
from chalicelib.domain.operation import TRY_LIMIT, Status
from chalicelib.domain.plugin import LEFT, Node
from chalicelib.store.index import REPAIR_AFTER
from chalicelib.store.tables import LeaseRow, LockRow, TurnRow
from chalicelib.sweeps.liveness import GAP
from tests.baseline.files import Baseline, Exchange
from tests.baseline.rows import Rows
from tests.baseline.world import forget_mounts, read_rows
from tests.harness import System
from tests.nodes.bridges import counts
from tests.operations.invariants import all_operations, unpublished, wrong_claims

LONG = int(REPAIR_AFTER // GAP) + 2
"""Sweeps that take longer than any lease, and longer than the time after which a writer counts as dead."""
CALLED = {"version": "0", "account": "", "region": "", "detail": {}, "detail-type": "Scheduled Event"} | {
    "source": "aws.events", "time": "", "id": "", "resources": []
}  # fmt: skip
"""The event with which the schedule calls a function."""


def sweep(system: System, times: int) -> list[int]:
    """Sweep several times, as seldom as the schedule may. Return how many messages each sweep sent.

    Workers get the messages, and the bridges that are up send heartbeats.
    """
    sent = []
    for _ in range(times):
        system.clock.moment += GAP
        for node in system.deps.plugins.nodes():
            if is_up(node):
                beat(system, node)
        functions.sweep_operations(CALLED, None)
        sent.append(len(system.queue.messages))
        system.pump()
    return sent


def is_up(node: Node) -> bool:
    return node.healthy and node.instance_id != LEFT and node.id != "node-half"


def beat(system: System, node: Node) -> None:
    now = system.clock.now()
    assert system.deps.plugins.heartbeat(node, sequence=node.sequence + 1, seen_at=now)


def test_what_an_earlier_version_left_is_swept_until_nothing_is_due(world: System, baseline: Baseline) -> None:
    doubtful = {o.id for o in all_operations(world) if o.status is Status.IN_DOUBT or (o.open and o.tries >= TRY_LIMIT)}
    silent = {node.id for node in world.deps.plugins.nodes() if not is_up(node)}
    sweep(world, LONG)

    assert {o.id for o in all_operations(world) if o.open} == doubtful, "what is in doubt waits for somebody to look"
    assert unpublished(world) == []
    rows = Rows.of(Baseline("", world.clock.now(), read_rows(world)))
    assert {lock.operation_id for lock in rows.items[LockRow]} <= doubtful
    assert [turn.pk for turn in rows.items[TurnRow] if turn.waiting] == []
    nodes = {node.id: node for node in world.deps.plugins.nodes()}
    assert silent - nodes.keys() == {"node-old"}, "away for days, with nothing claimed there"
    assert {name for name, node in nodes.items() if not node.healthy} == silent & nodes.keys()
    volumes = [v for name in ("default", "prod") for page in world.deps.volumes.in_namespace(name) for v in page]
    assert {v.operation_id for v in volumes if v.operation_id} <= doubtful
    forget_mounts(world)
    assert [wrong for volume in volumes for wrong in wrong_claims(world, volume)] == []
    for plugin in world.deps.plugins.all():
        counts(world, plugin.id)

    for node_id in ("node-s1", "node-s2"):
        say(world, next(one for one in baseline.later if one.path.endswith(node_id)))
    sweep(world, 2)
    nodes = {node.id: node for node in world.deps.plugins.nodes()}
    assert [name for name, node in nodes.items() if node.claims_kept] == [], "most are back"
    released = [
        world.deps.claims.get(*place) for node in nodes.values() if not node.healthy for place in held(world, node)
    ]
    assert [claim for claim in released if claim is not None and claim.state is ClaimState.TAKEN] == []

    sweep(world, 2)
    leases = Rows.of(Baseline("", world.clock.now(), read_rows(world))).items[LeaseRow]
    assert [lease.claim for lease in leases if lease.due_at < world.clock.now()] == [], "they ran out"
    assert sweep(world, 1) == [0]
    assert {o.id for o in all_operations(world) if o.open} == doubtful


def held(world: System, node: Node) -> list[tuple[str, str, str]]:
    return list(world.deps.claims.on_node(node.id))


def say(world: System, message: Exchange) -> None:
    reply = world.call(message.method, message.path, message.body.encode(), headers=message.headers)
    assert (reply.status, json.loads(reply.body)["Lost"]) == (message.status, message.json["Lost"])
