"""Bridges that die, move, come back and are replaced: what is shown equals what is stored (Nomad's issue 12142)."""

import json
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.deadlines import HEARTBEAT_SECONDS, SILENT_AFTER
from chalicelib.domain.plugin import LivenessPolicy, Node
from chalicelib.errors import Throttled, WriteConflict
from chalicelib.service import liveness as returning
from chalicelib.store.dynamo import Dynamo
from chalicelib.sweeps import claims, liveness
from chalicelib.sweeps.liveness import FORGET_AFTER, GAP, SWEEP_SECONDS, Report, sweep
from tests.harness import Died, System
from tests.nodes.bridges import Authority, Bridge, counts, plugin, statuses

BOTH = {"controllers_expected": 1, "controllers_healthy": 1, "nodes_expected": 1, "nodes_healthy": 1}


def times(number: int, healthy: int | None = None) -> dict[str, int]:
    """Counts of a plugin with so many instances, all or so many of them healthy."""
    good = number if healthy is None else healthy
    return {name: good if name.endswith("healthy") else number for name in BOTH}


def pass_time(system: System, seconds: float, *, beating: tuple[Bridge, ...] = ()) -> Report:
    """Time in which the sweeper is called each minute and these bridges say that they are there; the last result.

    In hours and more it is called as seldom as it may be.
    """
    end, found = system.clock.moment + seconds, sweep(system.deps)
    while system.clock.moment < end:
        left = end - system.clock.moment
        system.clock.moment += min(left, GAP if left > 3600 else SWEEP_SECONDS)
        for bridge in beating:
            assert bridge.beat().status == 200
        found = sweep(system.deps)
    return found


def test_a_bridge_that_dies_is_marked_down_and_its_instances_with_it(empty: System, authority: Authority) -> None:
    dead, alive = authority.bridge("n1", plugin("a"), plugin("b")), authority.bridge("n2", plugin("a"))
    dead.beat()
    alive.beat()
    assert pass_time(empty, SILENT_AFTER - SWEEP_SECONDS, beating=(alive,)).down == ()
    assert (counts(empty, "a"), counts(empty, "b")) == (times(2), times(1))
    before = int(empty.call("GET", "/v1/nodes").headers["X-Nomad-Index"])

    found = pass_time(empty, 2 * SWEEP_SECONDS, beating=(alive,))

    assert (found.down, found.claims_kept, found.forgotten) == (("n1",), (), ())
    assert statuses(empty) == {"n1": "down", "n2": "ready"}
    assert (counts(empty, "a"), counts(empty, "b")) == (times(2, 1), times(1, 0))
    shown = empty.call("GET", "/v1/node/n1").json
    assert shown["ModifyIndex"] > before
    assert shown["CSINodePlugins"]["a"]["HealthDescription"] == "the bridge does not answer"
    node = empty.deps.plugins.node("n1")
    assert node is not None
    assert node.down_since == empty.clock.now()


def test_marking_is_done_once_and_wakes_nobody_again(empty: System, authority: Authority) -> None:
    authority.bridge("n1").beat()
    assert pass_time(empty, 2 * SILENT_AFTER).down == ("n1",)
    index = empty.deps.index.watch().seq
    assert pass_time(empty, 10 * SWEEP_SECONDS).marked == ()
    assert empty.deps.index.watch().seq == index


def test_the_next_registration_brings_a_node_back(empty: System, authority: Authority) -> None:
    bridge = authority.bridge("n1")
    bridge.beat()
    created = empty.call("GET", "/v1/node/n1").json["CreateIndex"]
    pass_time(empty, 2 * SILENT_AFTER)
    assert bridge.beat().status == 200
    assert statuses(empty) == {"n1": "ready"}
    assert counts(empty) == times(1)
    node = empty.deps.plugins.node("n1")
    assert node is not None
    assert (node.down_since, node.create_index) == (0.0, created)
    assert empty.call("GET", "/v1/node/n1").json["CSINodePlugins"]["directory"]["HealthDescription"] == "healthy"
    assert pass_time(empty, SWEEP_SECONDS, beating=(bridge,)).down == ()


def test_a_bridge_that_moves_takes_its_instances_along(empty: System, authority: Authority) -> None:
    bridge = authority.bridge("n1")
    bridge.beat()
    empty.clock.moment += SILENT_AFTER
    bridge.restart()
    bridge.address = "elsewhere:7443"
    assert bridge.beat().status == 200
    assert counts(empty) == times(1)
    assert [i.address for i in empty.deps.plugins.instances("directory")] == ["elsewhere:7443"]


def test_a_bridge_that_moves_while_it_is_down_comes_back_where_it_is(empty: System, authority: Authority) -> None:
    bridge = authority.bridge("n1", plugin("a"), plugin("b"))
    bridge.beat()
    pass_time(empty, 2 * SILENT_AFTER)
    bridge.restart()
    bridge.address, bridge.plugins = "elsewhere:7443", [plugin("b"), plugin("c", Healthy=False)]
    assert bridge.beat().status == 200
    assert (counts(empty, "a"), counts(empty, "b"), counts(empty, "c")) == ({}, times(1), times(1, 0))
    assert [i.address for i in empty.deps.plugins.instances("b")] == ["elsewhere:7443"]


def test_a_replaced_node_is_forgotten_after_a_day_and_its_instances_go_along(
    empty: System, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = 2 * 3600  # of fewer heartbeats
    monkeypatch.setattr(liveness, "FORGET_AFTER", day)
    authority.bridge("old", plugin("a"), plugin("only-there")).beat()
    new = authority.bridge("new", plugin("a"))
    new.beat()
    assert pass_time(empty, 2 * SILENT_AFTER, beating=(new,)).down == ("old",)
    assert counts(empty, "a") == times(2, 1)
    assert pass_time(empty, day - 2 * SILENT_AFTER, beating=(new,)).down == ("old",)
    pass_time(empty, SILENT_AFTER + SWEEP_SECONDS, beating=(new,))
    assert statuses(empty) == {"new": "ready"}
    assert counts(empty, "a") == times(1)
    assert counts(empty, "only-there") == {}
    assert [p["ID"] for p in empty.call("GET", "/v1/plugins", query="type=csi").json] == ["a"]
    assert empty.call("GET", "/v1/node/old").status == 404
    assert sweep(empty.deps).down == ()


def test_a_node_that_was_forgotten_may_come_back_with_another_key(empty: System, authority: Authority) -> None:
    authority.bridge("n1").beat()
    other = authority.bridge("n1", host="another")
    assert other.beat().status == 409
    pass_time(empty, FORGET_AFTER + 2 * SILENT_AFTER)
    assert other.beat().status == 200
    assert counts(empty) == times(1)


def test_a_node_with_a_claim_is_not_forgotten(system: System) -> None:
    system.add_node()
    body = {"AllocationID": "a", "NodeID": "node-a", "Mode": "write"}
    body |= {"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}
    registered = {"Volumes": [{"ID": "data", "Name": "data", "ExternalID": "e", "PluginID": "directory"}]}
    registered["Volumes"][0]["RequestedCapabilities"] = [  # type: ignore[assignment]
        {"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}
    ]
    assert system.call("PUT", "/v1/volume/csi/data", registered).status == 200
    assert system.call("PUT", "/v1/volume/csi/data/claim", body).status == 200
    assert pass_time(system, FORGET_AFTER + 2 * SILENT_AFTER).down == ("node-a",)
    refused = system.call("DELETE", "/v1/volume/csi/data/claim/a")
    assert refused.body.startswith("node lost: nothing proves that allocation a on node node-a has stopped writing")
    assert system.call("DELETE", "/v1/volume/csi/data/detach", query="node=node-a&force=true").status == 200
    found = sweep(system.deps)
    assert (found.down, found.forgotten) == ((), ("node-a",))


def test_two_that_die_and_come_back_at_once(empty: System, authority: Authority) -> None:
    first, second, third = (authority.bridge(f"n{number}") for number in (1, 2, 3))
    for bridge in (first, second, third):
        bridge.beat()
    assert pass_time(empty, 2 * SILENT_AFTER, beating=(third,)).down == ("n1", "n2")
    assert counts(empty) == times(3, 1)
    second.restart()
    second.address = "moved:1"
    assert (first.beat().status, second.beat().status) == (200, 200)
    assert statuses(empty) == dict.fromkeys(("n1", "n2", "n3"), "ready")
    assert counts(empty) == times(3)
    assert (first.leave().status, second.leave().status) == (200, 200)
    assert counts(empty) == times(1)
    assert statuses(empty) == {"n3": "ready"}


# Whose silence it is.


def test_after_a_gap_in_the_sweeping_everybody_has_a_fresh_period(empty: System, authority: Authority) -> None:
    authority.bridge("n1").beat()
    sweep(empty.deps)
    empty.clock.moment += 10 * 3600
    awake = empty.clock.now()
    found = sweep(empty.deps)
    assert (found.down, found.leases_since) == ((), awake)
    empty.clock.moment += SILENT_AFTER
    assert sweep(empty.deps).down == ()
    empty.clock.moment += 1
    found = sweep(empty.deps)
    assert (found.down, found.leases_since) == (("n1",), awake)


def test_sweeps_that_are_late_by_less_than_a_period_are_no_gap(empty: System, authority: Authority) -> None:
    authority.bridge("n1").beat()
    began = sweep(empty.deps).leases_since
    empty.clock.moment += GAP
    found = sweep(empty.deps)
    assert (found.down, found.leases_since) == (("n1",), began)


def test_nobody_is_forgotten_right_after_a_gap(empty: System, authority: Authority) -> None:
    bridge = authority.bridge("n1")
    bridge.beat()
    pass_time(empty, 2 * SILENT_AFTER)
    empty.clock.moment += 2 * FORGET_AFTER
    assert sweep(empty.deps).forgotten == ()
    assert bridge.beat().status == 200
    assert pass_time(empty, SWEEP_SECONDS, beating=(bridge,)).down == ()
    assert counts(empty) == times(1)


def test_of_more_than_a_third_and_more_than_two_at_once_the_claims_are_kept(
    empty: System, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    every = [authority.bridge(f"n{number}") for number in range(6)]
    for bridge in every:
        bridge.beat()
    found = pass_time(empty, 2 * SILENT_AFTER, beating=tuple(every[3:]))
    assert (found.down, found.claims_kept) == ((), ("n0", "n1", "n2"))
    assert counts(empty) == times(6, 3), "nothing can be done on them, and that is said"
    assert statuses(empty) == {f"n{n}": "down" if n < 3 else "ready" for n in range(6)}
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    alarms = [line for line in lines if line["event"] == "alarm"]
    assert alarms[-1] == {
        "event": "alarm",
        "what": "many nodes fell silent together: their claims are kept",
        "nodes": ["n0", "n1", "n2"],
        "of": 6,
    }


def test_those_that_stay_away_when_most_are_back_are_spared_no_more(empty: System, authority: Authority) -> None:
    every = [authority.bridge(f"n{number}") for number in range(6)]
    for bridge in every:
        bridge.beat()
    assert len(pass_time(empty, 2 * SILENT_AFTER).claims_kept) == 6
    assert len(pass_time(empty, SWEEP_SECONDS, beating=tuple(every[3:])).claims_kept) == 3
    found = pass_time(empty, SWEEP_SECONDS, beating=tuple(every[1:]))
    assert (found.down, found.claims_kept) == (("n0",), ())
    assert statuses(empty)["n0"] == "down"
    every[0].beat()
    assert statuses(empty)["n0"] == "ready"


def test_nodes_that_are_cut_off_in_one_moment_are_not_taken_one_after_another(
    empty: System, authority: Authority
) -> None:
    """Heartbeats are spread over their period: the first are silent when the last have just missed one."""
    every = [authority.bridge(f"n{number:02}") for number in range(12)]
    sweep(empty.deps)
    for bridge in every:
        bridge.beat()
        empty.clock.moment += HEARTBEAT_SECONDS / len(every)
    empty.clock.moment += SWEEP_SECONDS + 8
    found = sweep(empty.deps)
    assert (found.down, len(found.claims_kept)) == ((), 4), "a third is silent, no more, and all have missed one"


def test_leases_have_a_fresh_period_after_many_were_away(empty: System, authority: Authority) -> None:
    every = [authority.bridge(f"n{number}") for number in range(6)]
    for bridge in every:
        bridge.beat()
    before = pass_time(empty, SWEEP_SECONDS, beating=tuple(every)).leases_since
    during = pass_time(empty, SWEEP_SECONDS).leases_since
    assert during == empty.clock.now() > before, "all have missed a heartbeat: nobody could renew"
    after = pass_time(empty, 5 * SWEEP_SECONDS, beating=tuple(every)).leases_since
    assert after == during


def test_a_third_at_once_is_marked(empty: System, authority: Authority) -> None:
    every = [authority.bridge(f"n{number}") for number in range(9)]
    for bridge in every:
        bridge.beat()
    assert pass_time(empty, 2 * SILENT_AFTER, beating=tuple(every[3:])).down == ("n0", "n1", "n2")
    assert counts(empty) == times(9, 6)


def test_those_that_fell_silent_a_moment_before_count_as_together(empty: System, authority: Authority) -> None:
    """A fault on this side must not take the nodes two at a time."""
    every = [authority.bridge(f"n{number}") for number in range(6)]
    for bridge in every:
        bridge.beat()
    pass_time(empty, SILENT_AFTER - SWEEP_SECONDS / 2, beating=tuple(every[2:]))
    assert pass_time(empty, SWEEP_SECONDS, beating=tuple(every[2:])).down == ("n0", "n1")
    found = pass_time(empty, 2 * SWEEP_SECONDS, beating=tuple(every[5:]))
    assert (found.down, found.claims_kept) == (("n0", "n1"), ("n2", "n3", "n4"))


# What comes in between.


class Between:
    """Lets something happen right before the first write of one kind."""

    def __init__(self, dynamo: Dynamo, monkeypatch: pytest.MonkeyPatch, call: str, action: Any) -> None:
        self._send, self._call, self._action = dynamo.client._make_api_call, call, action
        monkeypatch.setattr(dynamo.client, "_make_api_call", self.send)

    def send(self, call: str, arguments: Any) -> Any:
        text = json.dumps(arguments, default=str)
        if self._action is not None and call == self._call and '"node"' in text:
            action, self._action = self._action, None
            action()
        return self._send(call, arguments)


@pytest.mark.parametrize("call", ["UpdateItem", "TransactWriteItems"])
def test_a_heartbeat_between_reading_and_marking_has_the_last_word(
    empty: System, authority: Authority, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    bridge = authority.bridge("n1", plugin("a"), plugin("b"))
    bridge.beat()
    sweep(empty.deps)
    empty.clock.moment += GAP
    Between(empty.deps.dynamo, monkeypatch, call, bridge.beat)
    sweep(empty.deps)
    assert bridge.beat().status == 200
    assert statuses(empty) == {"n1": "ready"}
    assert (counts(empty, "a"), counts(empty, "b")) == (times(1), times(1))
    assert pass_time(empty, SWEEP_SECONDS, beating=(bridge,)).down == ()


def test_a_sweeper_that_dies_half_way_is_finished_by_the_next(
    empty: System, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """The function is ended."""

    def die() -> None:
        raise Killed

    authority.bridge("n1", plugin("a"), plugin("b")).beat()
    sweep(empty.deps)
    empty.clock.moment += GAP
    Between(empty.deps.dynamo, monkeypatch, "TransactWriteItems", die)
    with pytest.raises(Killed):
        sweep(empty.deps)
    assert statuses(empty) == {"n1": "down"}
    assert counts(empty, "a") == times(1)
    empty.clock.moment += SWEEP_SECONDS
    assert sweep(empty.deps).down == ("n1",)
    assert (counts(empty, "a"), counts(empty, "b")) == (times(1, 0), times(1, 0))


def test_a_node_that_comes_back_while_it_is_being_forgotten_stays(
    empty: System, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = authority.bridge("n1", plugin("a"), plugin("b"))
    bridge.beat()
    pass_time(empty, FORGET_AFTER + SILENT_AFTER)
    Between(empty.deps.dynamo, monkeypatch, "TransactWriteItems", bridge.beat)
    found = pass_time(empty, 2 * SWEEP_SECONDS)
    assert found.forgotten == ()
    assert statuses(empty) == {"n1": "ready"}
    assert (counts(empty, "a"), counts(empty, "b")) == (times(1), times(1))


def test_a_message_that_comes_late_cannot_undo_a_later_one(
    empty: System, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old message is half done when the new one comes: the new one's word on health stays."""
    bridge = authority.bridge("n1")
    bridge.beat()
    bridge.plugins = [plugin("directory", Healthy=False)]
    old = bridge.message()
    bridge.plugins = [plugin("directory", ProviderVersion="2")]
    Between(empty.deps.dynamo, monkeypatch, "TransactWriteItems", bridge.beat)
    reply = bridge.say("PUT", old)
    assert (reply.status, "a later message of node n1 is known already" in reply.body) == (409, True)
    assert bridge.beat().status == 200
    assert counts(empty) == times(1)
    assert [(i.healthy, i.provider_version) for i in empty.deps.plugins.instances("directory")] == [(True, "2")]


def test_a_plugin_that_cannot_be_written_does_not_hold_up_the_other_nodes(
    empty: System, authority: Authority, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for node_id in ("n1", "n2"):
        authority.bridge(node_id).beat()
    sweep(empty.deps)
    empty.clock.moment += GAP
    change = type(empty.deps.plugins).change

    def fails_for_one(self: Any, plugin_id: str, node_id: str, *arguments: Any, **named: Any) -> int:
        if node_id == "n1":
            raise WriteConflict("too many at once")
        return change(self, plugin_id, node_id, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(type(empty.deps.plugins), "change", fails_for_one)
        assert sweep(empty.deps).down == ("n1", "n2")
    assert counts(empty) == times(2, 1)
    assert '"event": "node not settled"' in capsys.readouterr().out
    empty.clock.moment += SWEEP_SECONDS
    sweep(empty.deps)
    assert counts(empty) == times(2, 0)


def test_a_node_row_of_before_has_no_moment_of_going_down(empty: System) -> None:
    """One that was marked without it counts from its last heartbeat."""
    old = Node("n1", "n1", "a:1", "k", "i", 1, empty.clock.now(), healthy=False)
    assert empty.deps.plugins.put_node(old, digest="", read=None)
    found = empty.deps.plugins.node("n1")
    assert found is not None
    assert found.down_since == 0.0
    assert pass_time(empty, FORGET_AFTER).down == ("n1",)
    assert pass_time(empty, SWEEP_SECONDS).down == ()
    assert statuses(empty) == {}


def take_a_volume(system: System, *, target: str = "/mnt/data") -> None:
    """A volume of a plugin without a controller that attaches, claimed to write on n1."""
    capabilities = [{"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}]
    volume = {"ID": "data", "Name": "data", "PluginID": "directory", "RequestedCapabilities": capabilities}
    assert system.call("PUT", "/v1/volume/csi/data/create", {"Volumes": [volume]}).status == 200
    claim = {"AllocationID": "a", "NodeID": "n1", "Mode": "write"}
    paths = {"StagingPath": "/stage", "TargetPath": target} if target else {}
    assert system.call("PUT", "/v1/volume/csi/data/claim", claim | paths).status == 200


def lose_it(system: System) -> None:
    found = pass_time(system, 2 * SILENT_AFTER)
    assert found.down == ("n1",)
    claims.sweep(system.deps, found)
    assert [c["State"] for c in system.call("GET", "/v1/volume/csi/data/claims").json] == ["node lost"]


LOST = [{"AllocationID": "a", "Namespace": "default", "TargetPath": "/mnt/data", "VolumeID": "data"}]


def test_a_node_that_comes_back_is_told_what_is_not_its_own_and_has_it_unmounted(
    empty: System, authority: Authority
) -> None:
    bridge = authority.bridge("n1")
    assert bridge.beat().json["Lost"] == []
    take_a_volume(empty)
    assert len(empty.provider.mounted) == 2
    lose_it(empty)
    assert bridge.beat().json["Lost"] == LOST
    assert bridge.beat().json["Lost"] == [], "told once: a heartbeat says nothing new"
    empty.rest(3)
    assert empty.provider.mounted == set()
    assert empty.call("GET", "/v1/volume/csi/data/claims").json == []


def test_what_an_orchestrator_mounted_stays_lost_until_it_is_released(empty: System, authority: Authority) -> None:
    bridge = authority.bridge("n1")
    bridge.beat()
    take_a_volume(empty, target="")
    lose_it(empty)
    assert bridge.beat().json["Lost"] == [{**LOST[0], "TargetPath": ""}]
    empty.rest(3)
    assert [c["State"] for c in empty.call("GET", "/v1/volume/csi/data/claims").json] == ["node lost"]
    assert empty.call("DELETE", "/v1/volume/csi/data/claim/a").status == 200
    assert empty.call("GET", "/v1/volume/csi/data/claims").json == []


def test_a_return_that_dies_half_way_is_finished_by_the_next_heartbeat(
    empty: System, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = authority.bridge("n1")
    bridge.beat()
    take_a_volume(empty)
    lose_it(empty)
    with monkeypatch.context() as patch:
        patch.setattr(returning, "release_lost_claims", dies)
        with pytest.raises(Died):
            bridge.beat()
    assert empty.call("GET", "/v1/node/n1").json["Status"] == "ready"
    assert bridge.beat().json["Lost"] == LOST
    empty.rest(3)
    assert empty.provider.mounted == set()


def dies(*_: Any) -> Any:
    raise Died


def test_after_a_heartbeat_that_could_not_be_taken_every_node_has_a_fresh_period(
    empty: System, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, heard = authority.bridge("n1"), authority.bridge("n2")
    silent.beat()
    heard.beat()
    pass_time(empty, SILENT_AFTER - SWEEP_SECONDS, beating=(heard,))

    def busy(*_: Any, **__: Any) -> bool:
        raise Throttled("the store is busy: try again in a moment")

    with monkeypatch.context() as patch:
        patch.setattr(type(empty.deps.plugins), "heartbeat", busy)
        assert heard.beat().status == 429
    assert pass_time(empty, SWEEP_SECONDS, beating=(heard,)).down == ()
    assert pass_time(empty, 2 * SWEEP_SECONDS, beating=(heard,)).down == ("n1",)


def test_how_long_and_how_many_can_be_set(empty: System, authority: Authority) -> None:
    bridges = [authority.bridge(f"n{number}") for number in range(4)]
    for bridge in bridges:
        bridge.beat()
    deps = replace(empty.deps, liveness=LivenessPolicy(silent_after=600, outage_count=0, outage_share=0.3))
    empty.clock.moment += GAP
    sweep(deps)
    for _ in range(5):
        empty.clock.moment += GAP
        assert sweep(deps).down == ()
    found = sweep(deps)
    for _ in range(2):
        bridges[3].beat()
        bridges[2].beat()
        empty.clock.moment += 40
        found = sweep(deps)
    assert (found.down, found.claims_kept) == ((), ("n0", "n1")), "two of four are more than three tenths"
    deps = replace(deps, liveness=replace(deps.liveness, outage_share=0.5))
    assert sweep(deps).down == ("n0", "n1")
