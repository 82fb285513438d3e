"""Claims by many at once: of any number that do not fit together, exactly as many win as fit."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.claim import Claim, ClaimState, NodeState
from chalicelib.domain.plugin import Instance, Node
from chalicelib.domain.volume import ACCESS_MODES, Capability, Definition, Volume
from chalicelib.errors import Refused, VolumesError
from chalicelib.operations.kinds import OPEN_TO_CLAIMS
from chalicelib.service import claims, releases
from chalicelib.service.deps import Deps
from chalicelib.store import volumes
from chalicelib.store.stores import Stores
from chalicelib.store.waits import WaitStore
from tests.harness import BUDGET, AgreeablePlugins, FakeQueue
from tests.store.conftest import together

CALLERS = 64
FILE_SYSTEM = "file-system"


@pytest.fixture
def deps(stores: Stores) -> Deps:
    """The services on these stores, with a plugin that only mounts, on two nodes."""
    built = Deps(
        **stores.parts(),
        waits=WaitStore(stores.dynamo, limit=10),
        sealer=None,  # type: ignore[arg-type] # no secrets here
        queue=FakeQueue(),
        plugin_queries=AgreeablePlugins(),
        wait_seconds=25,
    )
    for node_id in ("node-a", "node-b"):
        node = Node(node_id, node_id, "127.0.0.1:1", "key", "i", 1, stores.clock.now(), plugin_ids=("p",))
        assert stores.plugins.put_node(node, digest="", read=None)
        instance = Instance("p", node_id, "127.0.0.1:1", healthy=True, node=True)
        stores.plugins.change("p", node_id, instance, now=stores.clock.now())
    return built


def make(deps: Deps, access_mode: str) -> Volume:
    deps.storages.end_upgrade()
    volume = Volume("default", "v", "p", definition=Definition(capabilities=(Capability(access_mode, FILE_SYSTEM),)))
    ticket = deps.index.allocate("volumes-0", name=deps.clock.new_id(), now=deps.clock.now())
    deps.dynamo.transact(volumes.register(volume, ticket.index), token=ticket.id)
    deps.index.publish(ticket)
    return read(deps)


def read(deps: Deps) -> Volume:
    found = deps.volumes.get("default", "v")
    assert found is not None
    return found


def wanted(number: int, mode: str, access_mode: str) -> Claim:
    return Claim("default", "v", f"a{number:03}", f"node-{'ab'[number % 2]}", mode, access_mode, FILE_SYSTEM)


def won(results: list[Any]) -> int:
    """How many have a claim; whoever has none was told why in Nomad's words."""
    for result in results:
        assert not isinstance(result, Exception) or (isinstance(result, Refused) and "max claims" in result.text), (
            result
        )
    return sum(not isinstance(result, Exception) for result in results)


def counted(deps: Deps) -> tuple[int, int, int]:
    volume = read(deps)
    return volume.readers, volume.writers, volume.past_claims


@pytest.mark.parametrize(
    ("access_mode", "mode", "fit"),
    [
        ("single-node-reader-only", "read", 1),
        ("single-node-writer", "write", 1),
        ("multi-node-reader-only", "read", CALLERS),
        ("multi-node-single-writer", "write", 1),
        ("multi-node-multi-writer", "write", CALLERS),
    ],
)
def test_of_many_claims_at_once_as_many_win_as_fit(deps: Deps, access_mode: str, mode: str, fit: int) -> None:
    make(deps, access_mode)
    asked = [wanted(number, mode, access_mode) for number in range(CALLERS)]
    assert won(together(*(lambda c=c: claims.take(deps, c, BUDGET) for c in asked))) == fit
    assert sum(counted(deps)[:2]) == fit == len(deps.claims.of_volume("default", "v"))
    assert read(deps).access_mode == access_mode


def test_a_claim_and_a_deregistration_at_once_leave_one_of_the_two(deps: Deps) -> None:
    from chalicelib.service import volumes as service

    for _ in range(5):
        make(deps, "single-node-writer")
        claim = wanted(0, "write", "single-node-writer")
        results = together(lambda: claims.take(deps, claim, BUDGET), lambda: service.deregister(deps, "default", "v"))  # noqa: B023
        taken, gone = (not isinstance(r, Exception) for r in results)
        assert taken is not gone
        assert all(isinstance(r, VolumesError) for r in results if isinstance(r, Exception))
        if taken:
            assert counted(deps) == (0, 1, 0)
            finish(deps, claim)
            assert service.deregister(deps, "default", "v")
        assert deps.claims.of_volume("default", "v") == []


def finish(deps: Deps, claim: Claim) -> None:
    """Free the claim as the release operation would, without the operation."""
    from chalicelib.store import claims as store

    held = deps.claims.get("default", "v", claim.allocation_id)
    assert held is not None
    operation = releases.begin_release(deps, held, by_owner=True)
    assert operation is not None
    past = deps.claims.get("default", "v", claim.allocation_id)
    assert past is not None
    assert (past.state, counted(deps)) == (ClaimState.UNPUBLISHING, (0, 1, 1))
    ticket = deps.index.allocate("volumes-0", name=deps.clock.new_id(), now=deps.clock.now())
    deps.dynamo.transact(store.free(past, read(deps), ticket.index), token=ticket.id)
    deps.index.publish(ticket)
    assert (counted(deps), read(deps).access_mode) == ((0, 0, 0), "")


def test_a_release_that_comes_late_does_not_drop_the_claim_that_was_taken_anew(deps: Deps) -> None:
    from chalicelib.store import claims as store
    from chalicelib.store.dynamo import TransactionRefused

    make(deps, "single-node-writer")
    first = claims.take(deps, wanted(0, "write", "single-node-writer"), BUDGET).claim
    finish(deps, first)
    again = claims.take(deps, wanted(0, "write", "single-node-writer"), BUDGET).claim
    ticket = deps.index.allocate("volumes-0", name=deps.clock.new_id(), now=deps.clock.now())
    stale = replace(first, operation_id="")
    with pytest.raises(TransactionRefused):
        deps.dynamo.transact(store.release(stale, read(deps), ticket.index, operation_id="x"), token=ticket.id)
    assert counted(deps) == (0, 1, 0)
    kept = deps.claims.get("default", "v", again.allocation_id)
    assert kept is not None
    assert kept.create_index == again.create_index


def test_a_publish_only_moves_its_claim_up(deps: Deps) -> None:
    """A worker whose turn is over does not take back what a later one has recorded."""
    claim = being_published(deps, NodeState.OFF)
    assert deps.claims.begin_on_node(claim, NodeState.STAGED)
    assert stored_node(deps) is NodeState.STAGED
    assert deps.claims.begin_on_node(claim, NodeState.STAGED), "a repeat"
    assert deps.claims.begin_on_node(claim, NodeState.MOUNTED)
    assert not deps.claims.begin_on_node(claim, NodeState.STAGED)
    assert stored_node(deps) is NodeState.MOUNTED


def test_a_claim_that_may_be_mounted_from_the_start_stays_so(deps: Deps) -> None:
    assert deps.claims.begin_on_node(being_published(deps, NodeState.MOUNTED), NodeState.STAGED)
    assert stored_node(deps) is NodeState.MOUNTED


def test_a_publish_does_not_begin_on_the_node_when_another_operation_has_its_claim(deps: Deps) -> None:
    claim = being_published(deps, NodeState.OFF)
    assert not deps.claims.begin_on_node(replace(claim, operation_id="other"), NodeState.STAGED)
    assert stored_node(deps) is NodeState.OFF


def being_published(deps: Deps, node: NodeState) -> Claim:
    """Take a claim for an operation that publishes it, and return it as it is stored."""
    from chalicelib.store import claims as store

    volume = make(deps, "single-node-writer")
    claim = replace(wanted(0, "write", "single-node-writer"), volume_index=volume.create_index, node=node)
    claim = replace(claim, operation_id="publish")
    ticket = deps.index.allocate("volumes-0", name=deps.clock.new_id(), now=deps.clock.now())
    deps.dynamo.transact(store.take(claim, volume, ticket.index, lease_until=0, beside=OPEN_TO_CLAIMS), token=ticket.id)
    deps.index.publish(ticket)
    return stored(deps)


def stored(deps: Deps) -> Claim:
    (found,) = deps.claims.of_volume("default", "v")
    return found


def stored_node(deps: Deps) -> NodeState:
    return stored(deps).node


def test_a_claim_on_a_volume_that_was_redefined_meanwhile_is_refused(deps: Deps) -> None:
    from chalicelib.store import claims as store
    from chalicelib.store.dynamo import TransactionRefused

    stale = make(deps, "single-node-writer")
    ticket = deps.index.allocate("volumes-0", name=deps.clock.new_id(), now=deps.clock.now())
    other = replace(stale, definition=Definition(capabilities=(Capability("multi-node-reader-only", FILE_SYSTEM),)))
    deps.dynamo.transact([volumes.replace_definition(other, ticket.index, read=stale)], token=ticket.id)
    late = deps.index.allocate("volumes-0", name=deps.clock.new_id(), now=deps.clock.now())
    claim = replace(wanted(0, "write", "single-node-writer"), volume_index=stale.create_index)
    with pytest.raises(TransactionRefused) as refused:
        deps.dynamo.transact(store.take(claim, stale, late.index, lease_until=0, beside=OPEN_TO_CLAIMS), token=late.id)
    assert set(refused.value.old) == {"volume"}
    assert deps.claims.of_volume("default", "v") == []


@pytest.mark.parametrize("access_mode", ACCESS_MODES)
@pytest.mark.parametrize("mode", ["read", "write"])
def test_the_rule_and_the_condition_of_the_write_agree_at_every_count(deps: Deps, access_mode: str, mode: str) -> None:
    """Both read `EXCLUDES`; a second spelling of a mode would let `take` and `has_room` say different things."""
    from chalicelib.domain import claim as rules
    from chalicelib.store import claims as store
    from chalicelib.store.dynamo import TransactionRefused

    volume = make(deps, access_mode)
    claim = replace(wanted(0, mode, access_mode), volume_index=volume.create_index)
    for readers, writers in itertools.product(range(3), repeat=2):
        ticket = deps.index.allocate("volumes-0", name=deps.clock.new_id(), now=deps.clock.now())
        counts = store.correct_counters(read(deps), ticket.index, readers=readers, writers=writers, past=0)
        deps.dynamo.transact([counts], token=ticket.id)
        counted = read(deps)
        late = deps.index.allocate("volumes-0", name=deps.clock.new_id(), now=deps.clock.now())
        refused: set[str] = set()
        try:
            deps.dynamo.transact(
                store.take(claim, counted, late.index, lease_until=0, beside=OPEN_TO_CLAIMS), token=late.id
            )
        except TransactionRefused as exc:
            refused = set(exc.old)
        assert refused == (set() if rules.has_room(counted, claim) else {"volume"}), (readers, writers)
        if not refused:
            key = {"pk": {"S": "vol#default#v"}, "sk": {"S": claim.allocation_id}}
            deps.dynamo.client.delete_item(TableName=deps.dynamo.table("claims"), Key=key)
