"""How a claim leaves its node: what proves that it is off, and what may still land when it is free.

docs/protocols.md, section 2, says what must hold. Each test here is a way in which it did not, or would not.
"""

from collections.abc import Callable
from typing import Any

import pytest

from chalicelib.domain.operation import Kind, Status
from chalicelib.errors import PluginError, PluginInDoubt, PluginRejected
from chalicelib.operations import engine
from chalicelib.service import releases
from chalicelib.service.liveness import release_lost_claims
from chalicelib.store import tables
from chalicelib.store.claims import ClaimStore
from chalicelib.sweeps import claims, liveness
from tests.fakes.provider import Stranded
from tests.harness import CAPABILITIES, NODE_CAPABILITIES, Died, Reply, System, definition
from tests.operations.invariants import all_operations, violations
from tests.operations.script import Script, Strike, tell
from tests.operations.test_storages import of_an_older_version, upgrade

ATTACHES = CAPABILITIES | {"PUBLISH_UNPUBLISH_VOLUME"}
PATH = "/v1/volume/csi/data"
NOT_WAITING = {"Prefer": "respond-async"}
UNKNOWN = PluginRejected("who knows", code="UNKNOWN")


def cluster(system: System, mode: str = "single-node-writer", *, attaches: bool = False, stages: bool = True) -> None:
    """Add two nodes with a plugin, and a volume with this access mode."""
    system.provider.stages = stages
    for node_id in ("node-a", "node-b"):
        system.add_node(
            node_id,
            controller_capabilities=ATTACHES if attaches else CAPABILITIES,
            node_capabilities=NODE_CAPABILITIES if stages else frozenset(),
        )
    body = definition(RequestedCapabilities=[{"AccessMode": mode, "AttachmentMode": "file-system"}])
    assert system.call("PUT", f"{PATH}/create", body).status == 200


def claim(system: System, alloc: str = "one", node: str = "node-a", mode: str = "write", **fields: Any) -> Reply:
    paths = {"StagingPath": "/stage", "TargetPath": f"/mnt/{alloc}"}
    body = {"AllocationID": alloc, "NodeID": node, "Mode": mode} | paths | fields
    return system.call("PUT", f"{PATH}/claim", body)


BY_OWNER = {"StagingPath": "", "TargetPath": ""}
"""A claim whose owner mounts the volume."""


def release(system: System, alloc: str = "one", **headers: str) -> Reply:
    return system.call("DELETE", f"{PATH}/claim/{alloc}", headers=headers)


def begin_release(system: System, alloc: str = "one") -> None:
    """Begin to release the claim. No worker runs."""
    pumping, system.pumping = system.pumping, False
    assert release(system, alloc, **NOT_WAITING).status == 202
    system.pumping = pumping


def detach(system: System, *, force: bool, node: str = "node-a") -> Reply:
    return system.call("DELETE", f"{PATH}/detach", query=f"node={node}&force={str(force).lower()}")


def calls(system: System) -> list[str]:
    return [rpc for rpc, *_ in system.provider.log]


def states(system: System) -> list[str]:
    return [found["State"] for found in system.call("GET", f"{PATH}/claims").json]


def volume_id(system: System) -> str:
    (stored,) = system.provider.volumes
    return stored


def come_back(system: System, node_id: str = "node-a") -> None:
    """Let the node register again, with all that follows from it."""
    system.set_healthy(node_id, healthy=True)
    release_lost_claims(system.deps, node_id)


def strand(system: System, rpc: str, error: PluginError, *, number: int = 1) -> None:
    """Delay this call of the RPC: its caller gets the error, and `provider.land` makes its effect later."""
    Script({(rpc, number): Strike(tell(Stranded(error)))}).put_into(system.provider)


def after_write(system: System, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Do this once, after the next checkpoint of a worker."""
    checkpoint, done = system.context.operations.checkpoint, list[bool]()

    def then_act(*args: Any, **given: Any) -> Any:
        written = checkpoint(*args, **given)
        if not done:
            done.append(True)
            act()
        return written

    monkeypatch.setattr(system.context.operations, "checkpoint", then_act)


# What is no proof.


@pytest.mark.parametrize("dies", [False, True], ids=["goes-on", "dies"])
@pytest.mark.parametrize("stages", [True, False], ids=["stages", "does-not-stage"])
def test_a_skipped_unmount_is_no_proof(
    system: System, monkeypatch: pytest.MonkeyPatch, stages: bool, dies: bool
) -> None:
    """The node is silent when NodeUnpublishVolume is due, and heard again at the next step."""
    cluster(system, stages=stages)
    assert claim(system).status == 200
    begin_release(system)
    system.set_healthy("node-a", healthy=False)

    def heard_again() -> None:
        system.set_healthy("node-a", healthy=True)
        if dies:
            raise Died

    after_write(system, monkeypatch, heard_again)
    try:
        system.pump()
    except Died:
        system.clock.moment += 120
    system.rest(3)
    claim(system, "two", "node-b")
    assert len(system.provider.nodes_with(volume_id(system))) == 1, "two writers on two nodes"
    assert "NodeUnpublishVolume" in calls(system)
    assert violations(system) == []


def test_an_unmounted_volume_that_is_still_staged_is_not_off(system: System) -> None:
    """A stage has dirty pages and a journal, so its node may still write."""
    cluster(system)
    assert claim(system).status == 200
    begin_release(system)
    silence = Strike(lambda: system.set_healthy("node-a", healthy=False), after=True)
    Script({("NodeUnpublishVolume", 1): silence}).put_into(system.provider)
    system.rest(3)
    assert states(system) == ["node lost"]
    assert claim(system, "two", "node-b").body == "volume max claims reached"
    come_back(system)
    system.rest(3)
    assert calls(system)[-2:] == ["NodeUnpublishVolume", "NodeUnstageVolume"], "the answered call is not repeated"
    assert violations(system) == []


def test_an_unmounted_volume_of_a_plugin_that_does_not_stage_is_off(system: System) -> None:
    """No call to the node is left, so its silence keeps nothing."""
    cluster(system, stages=False)
    assert claim(system).status == 200
    begin_release(system)
    silence = Strike(lambda: system.set_healthy("node-a", healthy=False), after=True)
    Script({("NodeUnpublishVolume", 1): silence}).put_into(system.provider)
    system.rest(3)
    assert states(system) == []
    assert claim(system, "two", "node-b").status == 200


@pytest.mark.parametrize("access_mode", ["single-node-writer", "single-node-reader-only"])
def test_a_reader_of_a_single_node_volume_is_alone_on_its_node(system: System, access_mode: str) -> None:
    """Its node has staged the file system, read-write unless the plugin decides otherwise."""
    cluster(system, access_mode)
    assert claim(system, mode="read").status == 200
    begin_release(system)
    system.set_healthy("node-a", healthy=False)
    system.rest(3)
    refused = claim(system, "two", "node-b", "read")
    assert (refused.status, refused.body) == (500, "volume max claims reached")
    come_back(system)
    system.rest(3)
    assert claim(system, "two", "node-b", "read").status == 200
    assert system.provider.nodes_with(volume_id(system)) == {"node-b"}


def test_a_release_that_ends_while_its_node_comes_back_begins_again(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node registers between the worker's look at it and the write that says `lost`."""
    cluster(system)
    assert claim(system).status == 200
    begin_release(system)
    system.set_healthy("node-a", healthy=False)
    transact, done = system.context.dynamo.transact, list[bool]()

    def come_back_before(writes: Any, **given: Any) -> None:
        if not done and "claim" in [write.label for write in writes]:
            done.append(True)
            come_back(system)
        transact(writes, **given)

    monkeypatch.setattr(system.context.dynamo, "transact", come_back_before)
    system.rest(3)
    assert done
    assert states(system) == []
    assert violations(system) == []


def test_a_lease_that_ran_out_is_no_proof_that_its_owner_unmounted(system: System) -> None:
    cluster(system)
    assert claim(system, LeaseSeconds=60, **BY_OWNER).status == 200
    system.clock.moment += 100
    for node in system.deps.plugins.nodes():
        system.deps.plugins.heartbeat(node, sequence=node.sequence + 1, seen_at=system.clock.now())
    claims.sweep(system.deps, liveness.Report())
    system.rest(3)
    assert claim(system, "two", "node-b").body == "volume max claims reached"
    assert release(system).status == 200, "the owner says that it has unmounted it"
    assert claim(system, "two", "node-b").status == 200


def test_the_owner_of_a_mount_proves_nothing_while_its_node_is_silent(system: System) -> None:
    cluster(system)
    assert claim(system, **BY_OWNER).status == 200
    system.set_healthy("node-a", healthy=False)
    assert release(system).body.startswith("node lost: nothing proves")
    system.set_healthy("node-a", healthy=True)
    assert detach(system, force=False).body.startswith("node lost: nothing proves"), "an operator is not the owner"
    assert release(system).status == 200


# What may still land.


@pytest.mark.parametrize("error", [UNKNOWN, PluginInDoubt("no answer", code="DEADLINE_EXCEEDED")], ids=lambda e: e.code)
def test_a_claim_is_not_published_while_a_detach_may_still_land(system: System, error: PluginError) -> None:
    """UNKNOWN is no answer: the late ControllerUnpublishVolume would detach the claim that was published after it."""
    cluster(system, "multi-node-multi-writer", attaches=True)
    assert claim(system).status == 200
    strand(system, "ControllerUnpublishVolume", error)
    begin_release(system)
    system.pump()
    claim(system, "two")
    system.provider.land()
    system.rest(5)
    assert claim(system, "two").status == 200
    assert system.provider.attached == {(volume_id(system), "ext-node-a")}


@pytest.mark.parametrize("error", [UNKNOWN, PluginInDoubt("no answer", code="DEADLINE_EXCEEDED")], ids=lambda e: e.code)
def test_force_does_not_forget_that_an_unmount_may_still_land(system: System, error: PluginError) -> None:
    cluster(system)
    assert claim(system, TargetPath="/mnt").status == 200
    strand(system, "NodeUnpublishVolume", error)
    begin_release(system)
    system.pump()
    system.set_healthy("node-a", healthy=False)
    detach(system, force=True)
    come_back(system)
    claim(system, "two", TargetPath="/mnt")
    system.provider.land()
    system.rest(10)
    assert claim(system, "two", TargetPath="/mnt").status == 200
    assert (volume_id(system), "node-a", "/mnt") in system.provider.mounted, "the late unmount took the next claim's"


def test_a_claim_is_not_freed_while_its_own_publish_may_still_land(system: System) -> None:
    """The claim is taken over by its release while NodePublishVolume is out of sight, with no answer that counts."""
    cluster(system)

    def released_meanwhile() -> None:
        begin_release(system)
        raise Stranded(UNKNOWN)

    Script({("NodePublishVolume", 1): Strike(released_meanwhile)}).put_into(system.provider)
    claim(system)
    system.pump()
    assert states(system) != [], "it is free, and its own mount may land"
    claim(system, "two", "node-b")
    system.provider.land()
    system.rest(5)
    claim(system, "two", "node-b")
    assert system.provider.nodes_with(volume_id(system)) == {"node-b"}
    assert violations(system) == []


def test_a_publish_is_disproved_only_by_the_answer_to_its_only_call(system: System) -> None:
    """The first call attached the volume and its answer was lost. The second is told of something that is wrong now."""
    cluster(system, attaches=True)
    lost = PluginInDoubt("no answer", code="DEADLINE_EXCEEDED")
    gone = PluginRejected("the token has expired", code="INVALID_ARGUMENT")
    strikes = {1: Strike(tell(lost), after=True)} | {number: Strike(tell(gone)) for number in (2, 3)}
    Script({("ControllerPublishVolume", number): one for number, one in strikes.items()}).put_into(system.provider)
    claim(system)
    system.rest(5)
    assert states(system) == []
    assert system.provider.attached == set()
    assert violations(system) == []


# What a claim leaves behind.


@pytest.mark.parametrize("paths", [{"StagingPath": "/other"}, BY_OWNER], ids=["by-worker", "by-owner"])
def test_what_was_left_mounted_is_taken_away_before_the_volume_is_attached_again(system: System, paths: Any) -> None:
    """Attached again, the mount would be alive, and another node may have a writer by now."""
    cluster(system, "multi-node-single-writer", attaches=True)
    assert claim(system).status == 200
    system.set_healthy("node-a", healthy=False)
    assert release(system).status == 200
    come_back(system)
    assert claim(system, "two", "node-b").status == 200
    count = len(calls(system))
    assert claim(system, "three", mode="read", **paths).status == 200
    made = calls(system)[count:]
    assert made[:3] == ["NodeUnpublishVolume", "NodeUnstageVolume", "ControllerPublishVolume"]


@pytest.mark.parametrize("stages", [True, False], ids=["stages", "does-not-stage"])
@pytest.mark.parametrize("attaches", [True, False], ids=["by-the-controller", "by-force"])
def test_the_next_publish_takes_away_what_was_left_mounted(system: System, attaches: bool, stages: bool) -> None:
    cluster(system, attaches=attaches, stages=stages)
    assert claim(system).status == 200
    begin_release(system)
    system.set_healthy("node-a", healthy=False)
    system.rest(3)
    if not attaches:
        assert detach(system, force=True).status == 200
    assert states(system) == []
    left = set(system.provider.mounted)
    assert left
    come_back(system)
    assert claim(system, "two", StagingPath="/other").status == 200
    assert left & system.provider.mounted == set()
    assert release(system, "two").status == 200
    assert violations(system) == []
    count = len(calls(system))
    assert claim(system, "three").status == 200
    assert "NodeUnpublishVolume" not in calls(system)[count:], "it is taken away once"


def test_what_was_left_mounted_ends_a_publish_that_cannot_take_it_away(system: System) -> None:
    cluster(system)
    assert claim(system).status == 200
    begin_release(system)
    system.set_healthy("node-a", healthy=False)
    system.rest(3)
    assert detach(system, force=True).status == 200
    come_back(system)
    system.provider.before.append(refusing("NodeUnpublishVolume"))
    assert claim(system, "two").body == "CSI.NodeUnpublishVolume: rpc error: code = Internal desc = busy"
    system.rest(3)
    assert states(system) == []
    system.provider.before.clear()
    assert claim(system, "two").status == 200
    assert system.provider.mounted == {(volume_id(system), "node-a", path) for path in ("/stage", "/mnt/two")}


def refusing(rpc: str, code: str = "INTERNAL") -> Callable[[str, object], None]:
    def hook(called: str, _: object) -> None:
        if called == rpc:
            raise PluginRejected("busy", code=code)

    return hook


# Several claims on one node.


def test_two_claims_do_not_each_leave_the_stage_to_the_other(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first worker sees the other claim, and writes its result when that claim is free and its own turn is over."""
    cluster(system, "multi-node-multi-writer")
    for alloc in ("one", "two"):
        assert claim(system, alloc).status == 200
    begin_release(system, "one")
    first = list[bool]()
    first_id = next(o.id for o in all_operations(system) if o.open)
    begin_release(system, "two")
    second_id = next(o.id for o in all_operations(system) if o.open and o.id != first_id)
    system.queue.messages.clear()
    get = system.context.claims.get

    def slow(*place: str) -> Any:
        found = get(*place)
        if place[-1] == "two" and not first and calls(system)[-1] == "NodeUnpublishVolume":
            first.append(True)
            system.clock.moment += 600
            engine.run(system.context, second_id)
        return found

    monkeypatch.setattr(system.context.claims, "get", slow)
    engine.run(system.context, first_id)
    system.rest(5)
    assert first
    assert states(system) == []
    assert violations(system) == []


def test_two_claims_do_not_each_leave_the_attachment_to_the_other(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their leases ran out, so their owners may still have the volume mounted, and each needs it attached."""
    cluster(system, "multi-node-multi-writer", attaches=True)
    for alloc in ("one", "two"):
        assert claim(system, alloc, **BY_OWNER).status == 200
    operation_ids = []
    for found in system.deps.claims.of_volume("default", "data"):
        operation = releases.begin_release(system.deps, found)
        assert operation is not None
        operation_ids.append(operation.id)
    get, done = system.context.claims.get, list[bool]()

    def slow(*place: str) -> Any:
        found = get(*place)
        if place[-1] == "two" and not done:
            done.append(True)
            system.clock.moment += 600
            engine.run(system.context, operation_ids[1])
        return found

    monkeypatch.setattr(system.context.claims, "get", slow)
    engine.run(system.context, operation_ids[0])
    system.rest(5)
    assert done
    assert system.provider.attached == set()
    assert violations(system) == []


def test_a_claim_that_is_lost_beside_another_is_freed_with_it(system: System) -> None:
    """The volume stays attached for the reader. When it is taken away, that proves the end of the writer, too."""
    cluster(system, "multi-node-single-writer", attaches=True)
    for alloc, mode in (("one", "write"), ("two", "read")):
        assert claim(system, alloc, mode=mode, **BY_OWNER).status == 200
    lapsed = system.deps.claims.get("default", "data", "one")
    assert lapsed is not None
    assert releases.begin_release(system.deps, lapsed) is not None  # as the sweep does, not its owner
    system.pump()
    assert states(system) == ["node lost", "taken"]
    assert claim(system, "three", "node-b", **BY_OWNER).status == 500
    assert release(system, "two").status == 200
    assert (states(system), system.provider.attached) == ([], set())
    assert claim(system, "three", "node-b", **BY_OWNER).status == 200
    assert violations(system) == []


def test_the_attachment_is_not_left_to_a_claim_that_has_not_begun(system: System) -> None:
    """The other claim's only call is refused, which frees it at once."""
    cluster(system, "multi-node-multi-writer", attaches=True)
    assert claim(system, "one").status == 200
    system.pumping = False
    assert claim(system, "two").status == 504
    system.queue.messages.clear()
    system.pumping = True
    waiting = next(o.id for o in all_operations(system) if o.open)
    begin_release(system, "one")
    releasing = next(o.id for o in all_operations(system) if o.open and o.id != waiting)
    system.queue.messages.clear()
    engine.run(system.context, releasing)
    system.provider.before.append(refusing("ControllerPublishVolume", "INVALID_ARGUMENT"))
    engine.run(system.context, waiting)
    system.rest(3)
    assert states(system) == []
    assert system.provider.attached == set()


# An operator's force.


def test_force_frees_a_claim_whose_release_is_under_way(system: System) -> None:
    """The release waits for a plugin that is gone. The operator's word takes the claim over, and that release ends."""
    cluster(system)
    assert claim(system).status == 200
    begin_release(system)
    system.provider.before.append(refusing("NodeUnpublishVolume"))
    system.rest(400)
    (release_under_way,) = [o for o in all_operations(system) if o.kind is Kind.UNPUBLISH_VOLUME]
    assert release_under_way.status is Status.IN_DOUBT
    system.set_healthy("node-a", healthy=False)
    assert detach(system, force=True).status == 200
    system.rest(2)
    assert states(system) == []
    assert [o for o in all_operations(system) if o.open] == []
    assert claim(system, "two", "node-b").status == 200


def test_force_frees_a_claim_whose_node_refuses_to_unmount(system: System) -> None:
    """The node is heard, so it is asked first. Its refusal does not keep the claim."""
    cluster(system)
    assert claim(system).status == 200
    system.set_healthy("node-a", healthy=False)
    assert release(system).body.startswith("node lost")
    system.set_healthy("node-a", healthy=True)
    system.provider.before.append(refusing("NodeUnpublishVolume"))
    assert detach(system, force=True).status == 200
    assert states(system) == []


# Rows of 0.1.0.


@pytest.mark.parametrize("state", ["unpublishing", "node-detached"])
@pytest.mark.parametrize("step", ["unstage", "detach"])
def test_an_operation_of_an_older_version_begins_again_at_unmount(system: System, step: str, state: str) -> None:
    """Its claim does not say how far it is, and its NodeUnpublishVolume may have been skipped."""
    cluster(system)
    assert claim(system).status == 200
    begin_release(system)
    (operation,) = [o for o in all_operations(system) if o.open]
    client = system.deps.dynamo.client
    client.update_item(
        TableName="moorage-test-operations",
        Key={"pk": {"S": tables.operation_pk(operation.id)}, "sk": {"S": operation.id}},
        UpdateExpression="SET step = :step",
        ExpressionAttributeValues={":step": {"S": step}},
    )
    client.update_item(
        TableName="moorage-test-claims",
        Key={"pk": {"S": tables.claims_pk("default", "data")}, "sk": {"S": "one"}},
        UpdateExpression="SET #state = :state REMOVE node",
        ExpressionAttributeNames={"#state": "state"},
        ExpressionAttributeValues={":state": {"S": state}},
    )
    system.pump()
    assert calls(system)[-2:] == ["NodeUnpublishVolume", "NodeUnstageVolume"]
    assert (states(system), system.provider.mounted) == ([], set())
    assert violations(system) == []


# A deployment from 0.1.0: functions are updated one after another.


def test_what_the_older_worker_publishes_is_not_off_its_node(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new API takes the claim. The older worker publishes it, and writes nothing of the node."""
    cluster(system)
    of_an_older_version(system)
    with monkeypatch.context() as older:
        older.setattr(ClaimStore, "begin_on_node", lambda *_: True)
        assert claim(system).status == 200
    assert release(system).status == 200
    assert calls(system)[-2:] == ["NodeUnpublishVolume", "NodeUnstageVolume"]
    assert claim(system, "two", "node-b").status == 200
    assert system.provider.nodes_with(volume_id(system)) == {"node-b"}


def test_a_claim_that_is_refused_while_the_stage_is_upgraded_is_freed(system: System) -> None:
    """Nothing says that it is off its node, but the answer to its only call proves it."""
    cluster(system, attaches=True)
    of_an_older_version(system)
    refusal = PluginRejected("wrong", code="INVALID_ARGUMENT")
    Script({("ControllerPublishVolume", 1): Strike(tell(refusal))}).put_into(system.provider)
    assert claim(system).status == 500
    assert (states(system), calls(system)[-1]) == ([], "ControllerPublishVolume")
    upgrade(system)
    assert claim(system).status == 200
    assert release(system).status == 200
    assert violations(system) == []


def test_a_claim_that_has_not_begun_is_freed_while_the_stage_is_upgraded(system: System) -> None:
    cluster(system)
    of_an_older_version(system)
    system.pumping = False
    assert claim(system).status == 504
    system.queue.messages.clear()
    system.pumping = True
    assert release(system).status == 200
    assert states(system) == []
    assert claim(system, "two", "node-b").status == 200


# How far a publish has come.


def test_what_was_never_mounted_is_not_unmounted(system: System) -> None:
    """A bridge refuses the stage, and then the unmount of a path that is not its own."""
    cluster(system)
    refusal = PluginRejected("/stage is not below a folder that this bridge may mount in", code="INVALID_ARGUMENT")
    Script({("NodeStageVolume", 1): Strike(tell(refusal))}).put_into(system.provider)
    system.provider.before.append(refusing("NodeUnpublishVolume", "FAILED_PRECONDITION"))
    assert "may mount in" in claim(system).body
    system.rest(3)
    assert calls(system)[-2:] == ["NodeStageVolume", "NodeUnstageVolume"]
    assert states(system) == []
    assert claim(system, "two", "node-b").status == 200


@pytest.mark.parametrize("stages", [True, False], ids=["stages", "does-not-stage"])
def test_what_may_be_mounted_is_unmounted(system: System, stages: bool) -> None:
    cluster(system, stages=stages)
    failure = Strike(tell(PluginRejected("broken", code="INTERNAL")), after=True)
    Script({("NodePublishVolume", 1): failure}).put_into(system.provider)
    assert claim(system).status == 500
    system.rest(3)
    assert "NodeUnpublishVolume" in calls(system)
    assert (states(system), system.provider.mounted) == ([], set())


def test_a_plugin_that_does_not_stage_is_not_asked_to_unmount_before_it_has_mounted(system: System) -> None:
    cluster(system, attaches=True, stages=False)
    refusal = PluginRejected("broken", code="INTERNAL")
    Script({("ControllerPublishVolume", 1): Strike(tell(refusal), after=True)}).put_into(system.provider)
    assert claim(system).status == 500
    system.rest(3)
    assert calls(system)[-2:] == ["ControllerPublishVolume", "ControllerUnpublishVolume"]
    assert (states(system), system.provider.attached) == ([], set())


# A stale mount that cannot be taken away.


def leave_mounted(system: System) -> None:
    """Leave a stale mount on the first node, which its plugin refuses to take away."""
    cluster(system, attaches=True)
    assert claim(system).status == 200
    system.set_healthy("node-a", healthy=False)
    assert release(system).status == 200
    come_back(system)
    system.provider.before.append(refusing("NodeUnpublishVolume"))
    assert claim(system, "two").status == 500
    system.rest(3)
    assert states(system) == []


def test_force_forgets_what_was_left_mounted(system: System) -> None:
    """No claim is left on the node. The machine was off, as the operator says, so nothing is mounted there."""
    leave_mounted(system)
    assert detach(system, force=False).status == 200
    assert claim(system, "two").status == 500, "only an operator can say that the machine was off"
    system.rest(3)
    system.provider.mounted.clear()
    assert detach(system, force=True).status == 200
    assert claim(system, "two").status == 200


def test_force_forgets_only_what_was_left_mounted_on_that_node(system: System) -> None:
    leave_mounted(system)
    assert detach(system, force=True, node="node-b").status == 200
    assert claim(system, "two").status == 500


def test_a_publish_goes_on_when_force_forgets_what_it_takes_away(system: System) -> None:
    cluster(system, attaches=True)
    assert claim(system).status == 200
    system.set_healthy("node-a", healthy=False)
    assert release(system).status == 200
    come_back(system)
    forced = Strike(lambda: forget_stale_mounts(system), after=True)
    Script({("NodeUnpublishVolume", 1): forced}).put_into(system.provider)
    count = len(calls(system))
    assert claim(system, "two").status == 200
    assert calls(system)[count : count + 2] == ["NodeUnpublishVolume", "ControllerPublishVolume"]


def forget_stale_mounts(system: System) -> None:
    volume = system.deps.volumes.get("default", "data")
    assert volume is not None
    system.deps.claims.forget_stale_mounts(volume.plugin_id, volume.definition.external_id, "node-a")
