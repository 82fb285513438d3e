"""The story of operations: each kind open at each of its steps, each kind over in each way, and special cases."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from chalicelib.domain.operation import TRY_LIMIT, Kind, Operation, Status
from chalicelib.operations import engine
from chalicelib.operations.kinds import KINDS
from tests.baseline.parts import Strike, dying
from tests.baseline.story import (
    NOT_WAITING,
    SECRETS,
    UNMOUNTED,
    Story,
    claim_body,
    die,
    doubt,
    rejected,
    snapshot_body,
    unreached,
)
from tests.harness import definition

LARGER: Final = 2**30
CAPABILITIES: Final = [
    {"AccessMode": mode, "AttachmentMode": "file-system"} for mode in ("single-node-writer", "multi-node-reader-only")
]
ENDLESS: Final = float("inf")


def _create(story: Story, name: str, **fields: Any) -> str:
    return story.begin("PUT", f"/v1/volume/csi/{name}/create", definition(name, PluginID="ebs", **fields))


def _delete(story: Story, name: str, **fields: Any) -> str:
    story.create(name, **fields)
    header = {"X-Nomad-CSI-Secrets": "user=me,password=tests know it"} if fields else {}
    return story.begin("DELETE", f"/v1/volume/csi/{name}/delete", **header)


def _expand(story: Story, name: str, **fields: Any) -> str:
    story.create(name, **fields)
    return _create(story, name, RequestedCapacityMin=LARGER, **fields)


def _snapshot(story: Story, name: str, **fields: Any) -> str:
    story.create(name, **fields)
    return story.begin("PUT", "/v1/volumes/snapshot", snapshot_body(name, **fields))


def _delete_snapshot(story: Story, name: str, **fields: Any) -> str:
    story.create(name)
    header = {"X-Nomad-CSI-Secrets": "user=me"} if fields else {}
    query = f"plugin_id=ebs&snapshot_id={story.snapshot(name)}"
    return story.begin("DELETE", "/v1/volumes/snapshot", query=query, **header)


def _publish(story: Story, name: str, **fields: Any) -> str:
    story.create(name, **fields)
    return story.begin("PUT", f"/v1/volume/csi/{name}/claim", claim_body(name))


def _unpublish(story: Story, name: str, **fields: Any) -> str:
    story.create(name, **fields)
    story.claim(name)
    return story.begin("DELETE", f"/v1/volume/csi/{name}/claim/alloc-{name}")


@dataclass(frozen=True)
class Place:
    """How an operation comes to a step: how it is begun, and which call the step makes.

    `undone`, for a step of an undo, is the call before it that was rejected in a way that proves nothing.
    """

    begin: Callable[..., str]
    rpc: str
    undone: str = ""


PLACES: Final[Mapping[tuple[Kind, str], Place]] = {
    (Kind.CREATE_VOLUME, "create"): Place(_create, "CreateVolume"),
    (Kind.CREATE_VOLUME, "find"): Place(_create, "CreateVolume", "CreateVolume"),
    (Kind.CREATE_VOLUME, "remove"): Place(_create, "DeleteVolume", "CreateVolume"),
    (Kind.DELETE_VOLUME, "delete"): Place(_delete, "DeleteVolume"),
    (Kind.EXPAND_VOLUME, "expand"): Place(_expand, "ControllerExpandVolume"),
    (Kind.CREATE_SNAPSHOT, "create"): Place(_snapshot, "CreateSnapshot"),
    (Kind.DELETE_SNAPSHOT, "delete"): Place(_delete_snapshot, "DeleteSnapshot"),
    (Kind.PUBLISH_VOLUME, "attach"): Place(_publish, "ControllerPublishVolume"),
    (Kind.PUBLISH_VOLUME, "stage"): Place(_publish, "NodeStageVolume"),
    (Kind.PUBLISH_VOLUME, "mount"): Place(_publish, "NodePublishVolume"),
    (Kind.PUBLISH_VOLUME, "unmount"): Place(_publish, "NodeUnpublishVolume", "NodePublishVolume"),
    (Kind.PUBLISH_VOLUME, "unstage"): Place(_publish, "NodeUnstageVolume", "NodeStageVolume"),
    (Kind.PUBLISH_VOLUME, "detach"): Place(_publish, "ControllerUnpublishVolume", "ControllerPublishVolume"),
    (Kind.UNPUBLISH_VOLUME, "unmount"): Place(_unpublish, "NodeUnpublishVolume"),
    (Kind.UNPUBLISH_VOLUME, "unstage"): Place(_unpublish, "NodeUnstageVolume"),
    (Kind.UNPUBLISH_VOLUME, "detach"): Place(_unpublish, "ControllerUnpublishVolume"),
}


def tell_every_step(story: Story, status: Status) -> None:
    """Leave an operation of each kind open at each of its steps, with this status.

    It waits for its next try, or is held by a worker that died with the provider's answer, or was given up in doubt.
    """
    for kind, kinds in KINDS.items():
        for step in kinds.steps:
            place = PLACES[kind, step]
            name = f"{kind.value}-{step}-{status.value}".replace(" ", "-")
            operation_id = place.begin(story, name, **(SECRETS if status is Status.RUNNING else {}))
            way = [Strike(place.undone, rejected("INTERNAL"), after=True)] if place.undone else []
            if status is Status.IN_DOUBT:
                found = give_up(story, operation_id, place.rpc, *way)
            else:
                act = doubt if status is Status.PENDING else die
                found = story.work(operation_id, *way, Strike(place.rpc, act, after=True))
            assert (found.kind, found.step, found.status) == (kind, step, status)


def give_up(story: Story, operation_id: str, rpc: str, *way: Strike) -> Operation:
    never = Strike(rpc, doubt, times=ENDLESS)
    return story.work(operation_id, *way, never, over=lambda found: found.status is Status.IN_DOUBT)


def tell_given_up(story: Story) -> None:
    """Leave operations that are not tried any more. It takes hours until they are given up."""
    tell_every_step(story, Status.IN_DOUBT)
    give_up(story, _delete(story, "resumed"), "DeleteVolume")
    for_ever = _delete(story, "every-worker-died")
    story.work(for_ever, Strike("DeleteVolume", die, times=TRY_LIMIT))


def tell_ends(story: Story) -> None:
    """End operations of every kind in every way: done, failed at once, failed after an undo, and cancelled."""
    for name, rpc, code, method, action, body in (
        ("never-made", "CreateVolume", "INVALID_ARGUMENT", "PUT", "create", definition("never-made", PluginID="ebs")),
        ("unmade", "CreateVolume", "INTERNAL", "PUT", "create", definition("unmade", PluginID="ebs")),
        ("not-deleted", "DeleteVolume", "FAILED_PRECONDITION", "DELETE", "delete", None),
        ("not-expanded", "ControllerExpandVolume", "INTERNAL", "PUT", "create", larger("not-expanded")),
        ("maybe-expanded", "ControllerExpandVolume", "UNKNOWN", "PUT", "create", larger("maybe-expanded")),
        ("not-taken", "CreateSnapshot", "INTERNAL", "PUT", "snapshot", snapshot_body("not-taken")),
        ("not-attached", "ControllerPublishVolume", "NOT_FOUND", "PUT", "claim", claim_body("not-attached")),
        ("not-mounted", "NodePublishVolume", "INTERNAL", "PUT", "claim", claim_body("not-mounted")),
    ):
        if rpc != "CreateVolume":
            story.create(name)
        path = "/v1/volumes/snapshot" if action == "snapshot" else f"/v1/volume/csi/{name}/{action}"
        story.refused(Strike(rpc, rejected(code), after=name == "unmade"), method=method, path=path, body=body)
    story.finish(story.open_of("unmade").id)
    story.create("snapped")
    story.snapshot("snapped", Name="kept")
    dropped, refused = (f"plugin_id=ebs&snapshot_id={story.snapshot('snapped', Name=name)}" for name in ("a", "b"))
    story.ask("DELETE", "/v1/volumes/snapshot", query=dropped)
    refusal = Strike("DeleteSnapshot", rejected("FAILED_PRECONDITION"))
    story.refused(refusal, method="DELETE", path="/v1/volumes/snapshot", query=refused)
    story.create("used-once")
    story.claim("used-once")
    story.ask("DELETE", "/v1/volume/csi/used-once/claim/alloc-used-once")
    overtaken = _publish(story, "overtaken")
    with story.still():
        story.system.call("DELETE", "/v1/volume/csi/overtaken/claim/alloc-overtaken", headers=NOT_WAITING)
    story.finish(overtaken)
    for begin in (_create, _delete, _expand, _snapshot, _delete_snapshot):
        story.ask("DELETE", f"/v1/operation/{begin(story, f'cancelled{begin.__name__}')}")


def larger(name: str, **fields: Any) -> dict[str, Any]:
    return definition(name, PluginID="ebs", RequestedCapacityMin=LARGER, **fields)


def tell_open(story: Story) -> None:
    """Leave operations that are open for other reasons than one call without an answer."""
    assert not story.operation(_create(story, "never-begun", **SECRETS)).attempt
    story.work(_create(story, "again"), Strike("CreateVolume", unreached))
    _create(story, "made-in-prod", Namespace="prod")
    story.refused(
        Strike("CreateVolume", rejected("INTERNAL")),
        method="PUT",
        path="/v1/volume/csi/undo-not-begun/create",
        body=definition("undo-not-begun", PluginID="ebs"),
    )
    story.work(_delete(story, "asked-twice"), Strike("DeleteVolume", doubt, times=2))
    story.work(_expand(story, "worker-died-long-ago"), Strike("ControllerExpandVolume", die))
    story.system.clock.moment += 600
    _tell_late_landings(story)
    _tell_in_use(story)
    _tell_turns(story)
    with story.still():
        story.ask("PUT", f"/v1/operation/{story.open_of('resumed').id}/resume")


def _tell_late_landings(story: Story) -> None:
    """Leave calls without an answer whose repeats were answered, and work that waits until they cannot land."""
    story.finish(_create(story, "lands-late"), Strike("CreateVolume", doubt))
    assert story.operation(story.begin("DELETE", "/v1/volume/csi/lands-late/delete")).not_before
    story.finish(_snapshot(story, "snapshot-lands-late"), Strike("CreateSnapshot", doubt))
    twice = (Strike("DeleteVolume", doubt), Strike("DeleteVolume", rejected("FAILED_PRECONDITION")))
    story.work(_delete(story, "delete-lands-late"), *twice)
    unknown = Strike("ControllerPublishVolume", rejected("UNKNOWN"), after=True)
    story.work(_publish(story, "maybe-attached"), unknown)


def _tell_in_use(story: Story) -> None:
    """Leave updates that are more than an expansion, or run beside claims, and claims that need fewer calls."""
    story.create("updated", RequestedCapabilities=CAPABILITIES[:1])
    story.begin("PUT", "/v1/volume/csi/updated/create", larger("updated", RequestedCapabilities=CAPABILITIES))
    story.create("expanded-in-use")
    story.claim("expanded-in-use")
    story.begin("PUT", "/v1/volume/csi/expanded-in-use/create", larger("expanded-in-use", MountOptions={}))
    story.create("staged-only", plugin="files")
    story.begin("PUT", "/v1/volume/csi/staged-only/claim", claim_body("staged-only"))
    story.create("attached-only")
    story.begin("PUT", "/v1/volume/csi/attached-only/claim", claim_body("attached-only", **UNMOUNTED))
    story.create("detached-only")
    story.claim("detached-only", **UNMOUNTED)
    story.begin("DELETE", "/v1/volume/csi/detached-only/claim/alloc-detached-only")


def _tell_turns(story: Story) -> None:
    """Claim one volume on two nodes. The call for one is in flight, and the other waits for its turn."""
    shared = {"AccessMode": "multi-node-multi-writer", "AttachmentMode": "file-system"}
    story.create("shared", RequestedCapabilities=[shared])
    holds = story.begin("PUT", "/v1/volume/csi/shared/claim", claim_body("shared"))
    story.work(holds, Strike("ControllerPublishVolume", die))
    waits = story.begin("PUT", "/v1/volume/csi/shared/claim", claim_body("shared", "node-b", AllocationID="second"))
    story.deliver(waits)
    assert not story.operation(waits).attempt


def tell_half_recorded(story: Story) -> None:
    """Let workers die after the end of their operation was recorded, and before it was published."""
    for begin, name in ((_create, "made-in-silence"), (_publish, "published-in-silence")):
        operation_id = begin(story, name)
        with dying(story.system, "TransactWriteItems", 1, after=True):
            engine.run(story.system.context, operation_id)
        assert not story.operation(operation_id).open
