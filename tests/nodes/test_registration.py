"""What a registration must be, who may register and stop a node, and how a node is forgotten."""

import math
from dataclasses import fields, replace
from typing import Any

import pytest

from chalicelib.csi.channel import TlsChannels, WorkerTls
from chalicelib.domain.deadlines import GRACE, LONGEST_CALL, LONGEST_GRACE, SILENT_AFTER
from chalicelib.domain.plugin import Instance
from chalicelib.domain.registration import Registration
from chalicelib.errors import PluginUnreachable
from chalicelib.service import bridges
from chalicelib.sweeps import claims
from moorage import certificates
from tests.harness import System
from tests.nodes.bridges import Authority, counts, plugin, statuses
from tests.nodes.test_liveness import pass_time, take_a_volume, times

HEARD: dict[str, Any] = {
    "node_name": "b", "address": "127.0.0.1:2", "bridge_version": "9", "certificate_pem": "PEM", "instances": (),
}  # fmt: skip
"""Another value for each field that is stored. The others change with each message, or name the node."""


@pytest.mark.parametrize("field", [f.name for f in fields(Registration)])
def test_what_a_registration_says_anew_is_stored(field: str) -> None:
    """A heartbeat with the digest that is known is not stored, so a field outside the digest would be lost."""
    said = Registration("n", "a", "i", 1, "127.0.0.1:1", "1", "", (Instance("p", "n", "127.0.0.1:1", healthy=True),))
    if field in HEARD:
        assert bridges.digest_of(replace(said, **{field: HEARD[field]})) != bridges.digest_of(said)
    else:
        assert field in {"node_id", "instance_id", "sequence"}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"NodeInfo": []}, "Plugins[0].NodeInfo is not a dict"),
    ({"NodeInfo": {"AccessibleTopology": "zone"}}, "Plugins[0].NodeInfo.AccessibleTopology is not a dict"),
    ({"NodeInfo": {"MaxVolumes": -1}}, "Plugins[0].NodeInfo.MaxVolumes must not be negative"),
    ({"NodeInfo": {"MaxVolumes": True}}, "Plugins[0].NodeInfo.MaxVolumes is not a int"),
    (
        {"NodeInfo": {"AccessibleTopology": {"Segments": {"zone": 1}}}},
        "Plugins[0].NodeInfo.AccessibleTopology.Segments must hold strings",
    ),
    ({"ControllerCapabilities": [1]}, "Plugins[0].ControllerCapabilities must be a list of names"),
    ({"Controller": "no"}, "Plugins[0].Controller is not a bool"),
    ({"Provider": 7}, "Plugins[0].Provider is not a str"),
    ({"Serialize": "volume"}, 'Plugins[0].Serialize must be "", "node" or "plugin"'),
    ({"DeadlineSeconds": [1]}, "Plugins[0].DeadlineSeconds is not a dict"),
    *(
        (
            {"DeadlineSeconds": {"CreateVolume": value}},
            "Plugins[0].DeadlineSeconds.CreateVolume must be a number of seconds, not negative",
        )
        for value in (math.nan, math.inf, -1, "60", True, None)
    ),
    *(
        ({"GraceSeconds": value}, "Plugins[0].GraceSeconds must be a number of seconds, not negative")
        for value in (math.nan, -0.1, "5", False)
    ),
]


@pytest.mark.parametrize(("fields", "text"), WRONG, ids=[text for _, text in WRONG])
def test_a_wrong_field_is_named_and_nothing_is_registered(
    empty: System, authority: Authority, fields: dict[str, Any], text: str
) -> None:
    reply = authority.bridge("n1", plugin("directory", **fields)).beat()
    assert (reply.status, reply.body) == (400, text)
    assert statuses(empty) == {}


def test_times_are_as_said_and_never_above_what_fits(empty: System, authority: Authority) -> None:
    said = [
        plugin("a", DeadlineSeconds={"CreateVolume": 1e9}, GraceSeconds=0),
        plugin("b", GraceSeconds=1e9),
        plugin("c", GraceSeconds=None),
    ]
    assert authority.bridge("n1", *said).beat().status == 200
    found = {name: empty.deps.plugins.get(name) for name in "abc"}
    assert [p.grace for p in found.values() if p] == [0, LONGEST_GRACE, GRACE]
    assert found["a"] is not None
    assert found["a"].deadlines == {"CreateVolume": LONGEST_CALL}


def test_a_stranger_is_refused_before_anything_else_is_read(empty: System, authority: Authority) -> None:
    bridge = authority.bridge("n1")
    message = bridge.message() | {"Plugins": "none of your business"}
    stranger = authority.bridge("n2", host="stranger")
    reply = empty.call("PUT", bridge.path, message, headers={"X-Moorage-Signature": "v1 AAAA"})
    assert reply.status == 403
    assert stranger.say("PUT", bridge.message() | {"NodeID": "n2"}).status == 403
    assert statuses(empty) == {}


def test_a_copy_of_a_host_is_told_so_while_the_first_is_heard_of(empty: System, authority: Authority) -> None:
    first = authority.bridge("n1")
    assert first.beat().status == 200
    empty.clock.moment += 30
    copy = replace(first, address="copy:7443", instance_id="another", sequence=0)
    refused = copy.beat()
    assert (refused.status, refused.body.partition(":")[0]) == (409, "node n1 was heard of at n1")
    assert "give it a state folder of its own" in refused.body
    assert first.beat().status == 200, "the first is not disturbed"
    empty.clock.moment += SILENT_AFTER
    assert copy.beat().status == 200, "the first is gone: the node has moved"
    assert first.beat().status == 409
    assert counts(empty) == times(1)


def test_a_bridge_that_stopped_in_order_moves_at_once(empty: System, authority: Authority) -> None:
    bridge = authority.bridge("n1")
    bridge.beat()
    assert bridge.leave().status == 200
    assert statuses(empty) == {}
    bridge.restart()
    bridge.address = "elsewhere:7443"
    assert bridge.beat().status == 200
    assert counts(empty) == times(1)


def test_a_farewell_counts_once_and_only_from_the_bridge_that_was_heard_last(
    empty: System, authority: Authority
) -> None:
    bridge = authority.bridge("n1")
    bridge.beat()
    farewell = {"NodeID": "n1", "InstanceID": bridge.instance_id, "Sequence": bridge.sequence + 1}
    bridge.sequence += 1
    bridge.beat()
    for late in (farewell, farewell | {"InstanceID": "before", "Sequence": 99}):
        assert bridge.say("DELETE", late).status == 409
    for wrong in (farewell | {"NodeID": "n2"}, farewell | {"Sequence": "9"}, None):
        assert bridge.say("DELETE", wrong).status == 400
    assert counts(empty) == times(1)
    assert bridge.leave().status == 200
    assert counts(empty) == {}
    assert bridge.leave().status == 404


def test_a_stop_does_not_make_anybody_forget_what_is_mounted(empty: System, authority: Authority) -> None:
    """The mounts outlive the bridge: its claims go by the rules of silence, and a restart finds them."""
    bridge = authority.bridge("n1")
    bridge.beat()
    take_a_volume(empty)
    assert bridge.leave().status == 200
    assert counts(empty) == times(1, healthy=0)
    assert [i.health_description for i in empty.deps.plugins.instances("directory")] == ["the bridge was stopped"]
    shown = empty.call("GET", "/v1/node/n1").json
    assert (shown["Status"], shown["StatusDescription"]) == ("down", "the bridge was stopped")
    assert len(empty.call("GET", "/v1/volume/csi/data/claims").json) == 1

    bridge.restart()
    bridge.address = "elsewhere:7443"
    assert bridge.beat().json["Lost"] == []
    assert counts(empty) == times(1)
    assert statuses(empty) == {"n1": "ready"}

    assert bridge.leave().status == 200
    assert pass_time(empty, 2 * SILENT_AFTER).down == ("n1",)


def test_a_node_is_purged_when_it_is_down_and_nothing_is_claimed_there(empty: System, authority: Authority) -> None:
    bridge = authority.bridge("n1")
    bridge.beat()
    take_a_volume(empty)
    up = empty.call("PUT", "/v1/node/n1/purge")
    assert (up.status, up.body.partition(":")[0]) == (409, "node n1 is up")
    bridge.leave()
    claimed = empty.call("PUT", "/v1/node/n1/purge")
    assert (claimed.status, claimed.body) == (
        409,
        "volume data in namespace default is claimed on node n1: detach it first",
    )
    found = pass_time(empty, 2 * SILENT_AFTER)
    claims.sweep(empty.deps, found)
    assert empty.call("DELETE", "/v1/volume/csi/data/detach", query="node=n1&force=true").status == 200
    before = empty.call("GET", "/v1/nodes")
    purged = empty.call("POST", "/v1/node/n1/purge")
    assert purged.status == 200
    assert purged.json["NodeModifyIndex"] > int(before.headers["X-Nomad-Index"])
    assert statuses(empty) == {}
    assert counts(empty) == times(0), "the plugin has a volume"
    assert empty.call("PUT", "/v1/node/n1/purge").status == 404
    assert empty.call("GET", "/v1/node/n1/purge").status == 405


def test_controllers_and_nodes_in_processes_of_their_own_are_one_plugin(empty: System, authority: Authority) -> None:
    """Whoever registers last: a node's half does not hide what the controller can do, nor the other way round."""
    controller = authority.bridge("c1", plugin("split", Node=False, NodeCapabilities=[], DeadlineSeconds={"A": 7}))
    node = authority.bridge("n1", plugin("split", Controller=False, ControllerCapabilities=[]))
    for order in ((controller, node), (node, controller)):
        for bridge in order:
            bridge.plugins[0] = bridge.plugins[0] | {"ProviderVersion": f"{bridge.sequence}"}
            assert bridge.beat().status == 200
        found = empty.deps.plugins.get("split")
        assert found is not None
        assert (found.controller_capabilities, found.node_capabilities) == (
            frozenset({"CREATE_DELETE_VOLUME"}),
            frozenset({"STAGE_UNSTAGE_VOLUME"}),
        )
        assert (found.controller_required, found.deadlines) == (True, {"A": 7})
    shown = empty.call("GET", "/v1/plugin/csi/split").json
    assert (shown["ControllersExpected"], shown["NodesExpected"], shown["ControllerRequired"]) == (1, 1, True)
    assert controller.leave().status == 200
    left = empty.call("GET", "/v1/plugin/csi/split").json
    assert (left["ControllersExpected"], left["NodesExpected"], left["ControllerRequired"]) == (0, 1, True)


def test_a_plugin_has_one_time_of_creation(empty: System, authority: Authority) -> None:
    bridge = authority.bridge("n1")
    bridge.beat()
    first = empty.call("GET", "/v1/plugin/csi/directory").json
    empty.clock.moment += 60
    bridge.plugins = [plugin("directory", Healthy=False)]
    bridge.beat()
    second = empty.call("GET", "/v1/plugin/csi/directory").json
    assert first["CreateTime"] == second["CreateTime"] > 0
    assert second["ModifyTime"] > first["ModifyTime"]


def test_a_renewed_certificate_is_the_nodes_and_the_worker_speaks_to_no_refused_one(
    empty: System, authority: Authority
) -> None:
    bridge = authority.bridge("n1")
    bridge.beat()
    old = bridge.serial
    certificates.renew(authority.ca, bridge.certs, days=30, now=authority.now())
    assert bridge.beat().status == 200
    instance = empty.deps.plugins.instance("directory", "n1")
    node = empty.deps.plugins.node("n1")
    assert instance is not None
    assert node is not None
    assert instance.serial == bridge.serial != old
    assert node.certificate_pem == (bridge.certs / "bridge.pem").read_text()

    pem = [(authority.worker / name).read_bytes() for name in ("ca.pem", "worker.pem", "worker-key.pem")]

    def refusing(*serials: str) -> TlsChannels:
        tls = WorkerTls(pem[0], pem[1], pem[2], "1", frozenset(serials))
        return TlsChannels(lambda: tls, empty.clock.monotonic)

    with pytest.raises(PluginUnreachable, match="of node n1's bridge is on the list of refused serials"):
        refusing(bridge.serial).of(instance)
    channels = refusing(old)
    here = channels.of(instance)
    assert channels.of(instance) is here
    assert channels.of(replace(instance, address="elsewhere:1")) is not here
    assert channels.of(instance) is not here, "the channel to where it is no more was closed"
