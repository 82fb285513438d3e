"""The story of nodes, with claims on them: bridges register, send heartbeats, fall silent, stop and come back."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import botocore.exceptions

from chalicelib.sweeps import claims, counters, liveness
from chalicelib.sweeps.liveness import SWEEP_SECONDS
from moorage.mounts.api import ControlPlane
from moorage.mounts.journal import Entry, Stage
from tests.baseline.parts import Bridge, at_call, dying, watched
from tests.baseline.story import Story
from tests.baseline.world import forget_mounts
from tests.operations.script import tell

EVERYTHING: Final = (
    "CREATE_DELETE_VOLUME",
    "PUBLISH_UNPUBLISH_VOLUME",
    "LIST_VOLUMES",
    "CREATE_DELETE_SNAPSHOT",
    "LIST_SNAPSHOTS",
    "EXPAND_VOLUME",
)
NO_ATTACH: Final = tuple(name for name in EVERYTHING if name != "PUBLISH_UNPUBLISH_VOLUME")
AWAKE: Final = ("node-a", "node-b", "node-ctl", "node-web", "node-idle", "node-back")
SPARED: Final = ("node-s1", "node-s2", "node-s3", "node-s4")


def tell_first(story: Story) -> None:
    """Let bridges register, send heartbeats, change, stop in order and be refused, in a control plane without nodes."""
    at: dict[str, dict[str, Any]] = {
        "node-a": {"zone": "a", "grace_seconds": 4, "deadlines": {"CreateVolume": 90, "NodeStageVolume": 30}},
        "node-b": {"zone": "b"},
    }
    for node_id, fields in at.items():
        ebs = watched("ebs", controller=EVERYTHING, external_node_id=f"i-{node_id}", **fields)
        files = watched("files", controller=NO_ATTACH, external_node_id=node_id, serialize="node")
        story.bridge(node_id, ebs, files)
    controllers = (watched(one, controller=EVERYTHING, node=None, serialize="plugin") for one in ("split", "late"))
    story.bridge("node-ctl", *controllers)
    halves = (watched(one, controller=None, external_node_id="web", serialize="plugin") for one in ("split", "early"))
    story.bridge("node-web", *halves)
    for node_id in ("node-dead", "node-back", *SPARED):
        ebs = watched("ebs", controller=EVERYTHING, external_node_id=f"i-{node_id}")
        story.bridge(node_id, ebs, watched("files", controller=NO_ATTACH, external_node_id=node_id))
    story.bridge("node-old", watched("nodes-only", controller=None, external_node_id="old", services=()))
    story.bridge("node-idle")
    story.beat(*story.bridges)
    story.beat("node-a")

    ended = story.bridge("node-bye", watched("files", controller=NO_ATTACH, external_node_id="bye"))
    story.beat("node-bye")
    ended.plugins[0].falls_ill("UNAVAILABLE: no details")
    story.beat("node-bye")
    ended.restart()
    story.beat("node-bye")
    story.said(ended.leave())
    bad = Bridge(story.front, "node-bad", 99, story.folder / "node-bad", [])
    story.said(bad.say(), status=403)


def tell_deaths(story: Story) -> None:
    """Let three machines die with claims on them, and one of them come back. The sweeper dies while it lets go.

    The controller takes one volume away, whose mount is stale from then on.
    """
    for volume_id in ("dead-swept", "dead-z"):
        story.create(volume_id)
        story.claim(volume_id, "node-dead")
    for volume_id, node_id in (("dead-lost", "node-dead"), ("back-lost", "node-back")):
        story.create(volume_id, plugin="files")
        story.claim(volume_id, node_id)
    story.create("dead-taken")
    story.claim("dead-taken", "node-dead")
    taken = story.begin("DELETE", "/v1/volume/csi/dead-taken/claim/alloc-dead-taken")
    unproven = []
    forgotten = ("back-forgotten", "back-replaced")
    for volume_id in ("dead-unproven", *forgotten):
        story.create(volume_id, plugin="files")
        story.claim(volume_id, "node-dead" if volume_id == "dead-unproven" else "node-back")
        unproven.append(story.begin("DELETE", f"/v1/volume/csi/{volume_id}/claim/alloc-{volume_id}"))
    for volume_id in forgotten:
        with story.still():
            story.ask("DELETE", f"/v1/volume/csi/{volume_id}", query="force=true")
    story.remove(*forgotten)

    awake = [node_id for node_id in (*AWAKE, *SPARED) if node_id != "node-back"]
    found = story.pass_time(4 * SWEEP_SECONDS, beating=awake)
    assert (found.down, found.claims_kept) == (("node-back", "node-dead", "node-old"), ())
    forget_mounts(story.system)
    for operation_id in (taken, *unproven):
        story.finish(operation_id)
    with dying(story.system, "TransactWriteItems", 4), story.still():
        claims.sweep(story.system.deps, found)
    story.bridges["node-back"].restart()
    with story.still():
        story.beat("node-back")
    story.create("back-replaced", plugin="files")


def tell_silence(story: Story) -> None:
    """Let four of ten nodes fall silent together, so that their claims are kept.

    Then others leave, or die while they register.
    """
    story.beat(*AWAKE, *SPARED)
    story.pass_time(SWEEP_SECONDS, beating=AWAKE)
    story.system.clock.moment += SWEEP_SECONDS
    story.beat(*AWAKE)
    # The sweeper dies while it forgets node-old. The instances on the nodes that it has just marked are not marked yet.
    with dying(story.system, "DeleteItem", 1):
        liveness.sweep(story.system.deps)
    assert tuple(node.id for node in story.system.deps.plugins.nodes() if node.claims_kept) == SPARED
    counters.sweep(story.system.deps)
    new = story.bridge("node-new", watched("files", controller=NO_ATTACH, external_node_id="new"))
    new.plugins[0].falls_ill("answers Probe with: not ready")
    story.beat("node-new")
    left = story.bridge("node-left", watched("files", controller=NO_ATTACH, external_node_id="left"))
    story.beat("node-left")
    story.create("left", plugin="files")
    story.claim("left", "node-left")
    story.said(left.leave())
    story.bridge("node-half", watched("files", controller=NO_ATTACH, external_node_id="half"), watched("split"))
    with dying(story.system, "TransactWriteItems", 1, after=True):
        assert story.bridges["node-half"].say() is None


def tell_last(story: Story) -> None:
    """Let a function die of a message, the store refuse another, and every node that is up send a heartbeat."""
    new = story.bridges["node-new"]
    new.plugins[0].falls_ill("")
    with dying(story.system, "PutItem", 1):
        assert new.say() is None
    away = tell(botocore.exceptions.EndpointConnectionError(endpoint_url="the store"))
    with at_call(story.system, "GetItem", 1, act=away):
        story.said(new.say(), status=503)
    story.beat(*AWAKE)


def tell_later(story: Story) -> None:
    """Let bridges that were up, and those that come back, send messages after the rows were read. Mount a volume."""
    bridges = story.bridges
    story.system.clock.moment += 10
    story.beat("node-a")
    bridges["node-a"].plugins[1].falls_ill("UNAVAILABLE: no details")
    story.beat("node-a")
    bridges["node-a"].registration._sequence = 0
    story.said(bridges["node-a"].say(), status=409)
    for node_id in ("node-dead", "node-s1", "node-left"):
        bridges[node_id].restart()
    story.beat("node-dead", "node-s1", "node-s2", "node-left", "node-half")
    bridges["node-ctl"].plugins.clear()
    story.beat("node-ctl")
    for node_id in ("node-b", "node-idle"):
        story.said(bridges[node_id].leave())
    story.bridge("node-next", watched("ebs", controller=EVERYTHING, zone="a", external_node_id="i-next"))
    story.beat("node-next")
    mount = _mount("plain", "node-next")
    asks = (ControlPlane.claim, ControlPlane.renew, ControlPlane.claim_of, ControlPlane.release)
    story.front.mounting(lambda api: api.volume("default", "plain"))
    for ask in asks:
        story.front.mounting(partial(_about, ask, mount))


def _about(ask: Callable[..., Any], mount: Entry, api: ControlPlane) -> Any:
    return ask(api, mount)


def _mount(volume_id: str, node_id: str) -> Entry:
    """Return the entry that `moorage mount` writes into its journal before its first request."""
    return Entry(
        target=f"/mnt/{volume_id}",
        namespace="default",
        volume=volume_id,
        allocation=f"mount-{volume_id}",
        node=node_id,
        mode="write",
        access_mode="",
        attachment_mode="",
        staging=f"/stage/{volume_id}",
        lease=120,
        plugin="ebs",
        external_id="",
        stage=Stage.WANTED,
    )
