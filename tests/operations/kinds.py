"""The kinds of operation, started as clients start them, for tests that treat all kinds alike."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tests.harness import CAPABILITIES, Reply, System, definition


@dataclass(frozen=True)
class Case:
    """How to prepare and start an operation, and what must be true when it has succeeded."""

    name: str
    rpc: str
    prepare: Callable[[System], None]
    start: Callable[[System], Reply]
    done: Callable[[System], bool]
    step: str = ""
    """The step that calls `rpc`. It is empty for the first step."""


def _volume(system: System) -> None:
    assert system.call("PUT", "/v1/volume/csi/data/create", definition(RequestedCapacityMin=1024)).status == 200


def _snapshot(system: System) -> None:
    _volume(system)
    assert _take(system).status == 200


def _take(system: System) -> Reply:
    body = {"Snapshots": [{"SourceVolumeID": "data", "Name": "nightly"}]}
    return system.call("PUT", "/v1/volumes/snapshot", body)


def _expand(system: System) -> Reply:
    return system.call("PUT", "/v1/volume/csi/data/create", definition(RequestedCapacityMin=4096))


def _shown(system: System, field: str) -> Any:
    return system.call("GET", "/v1/volume/csi/data").json[field]


CASES: tuple[Case, ...] = (
    Case(
        "create",
        "CreateVolume",
        lambda system: None,
        lambda system: system.call("PUT", "/v1/volume/csi/data/create", definition()),
        lambda system: system.call("GET", "/v1/volume/csi/data").status == 200 and len(system.provider.volumes) == 1,
    ),
    Case(
        "delete",
        "DeleteVolume",
        _volume,
        lambda system: system.call("DELETE", "/v1/volume/csi/data/delete"),
        lambda system: system.call("GET", "/v1/volume/csi/data").status == 404 and not system.provider.volumes,
    ),
    Case(
        "expand",
        "ControllerExpandVolume",
        _volume,
        _expand,
        lambda system: _shown(system, "Capacity") == 4096 == next(iter(system.provider.volumes.values())).capacity,
    ),
    Case(
        "create snapshot",
        "CreateSnapshot",
        _volume,
        _take,
        lambda system: len(system.provider.snapshots) == 1,
    ),
    Case(
        "delete snapshot",
        "DeleteSnapshot",
        _snapshot,
        lambda system: system.call(
            "DELETE", "/v1/volumes/snapshot", query=f"plugin_id=directory&snapshot_id={_first_snapshot(system)}"
        ),
        lambda system: not system.provider.snapshots,
    ),
)


def _claimable(system: System) -> None:
    system.add_node(controller_capabilities=CAPABILITIES | {"PUBLISH_UNPUBLISH_VOLUME"})
    _volume(system)


def _claimed(system: System) -> None:
    _claimable(system)
    assert _claim(system).status == 200


def _left_mounted(system: System) -> None:
    """Leave a stale mount: the controller takes the volume away from a node that is silent."""
    _claimable(system)
    assert _claim(system, "left").status == 200
    system.set_healthy("node-a", healthy=False)
    assert system.call("DELETE", "/v1/volume/csi/data/claim/left").status == 200
    system.set_healthy("node-a", healthy=True)
    assert len(system.provider.mounted) == 2


def _claim(system: System, alloc: str = "a") -> Reply:
    body = {"AllocationID": alloc, "NodeID": "node-a", "Mode": "write", "StagingPath": "/stage"}
    return system.call("PUT", "/v1/volume/csi/data/claim", body | {"TargetPath": f"/mnt/{alloc}"})


def _unclaim(system: System) -> Reply:
    """Release the claim. A claim that is released already counts as released."""
    reply = system.call("DELETE", "/v1/volume/csi/data/claim/a")
    return Reply(200, {}, "") if reply.status == 404 else reply


def _is_published(system: System) -> bool:
    claims = system.call("GET", "/v1/volume/csi/data/claims").json
    return [c["Published"] for c in claims] == [True] and len(system.provider.mounted) == 2


def _is_free(system: System) -> bool:
    return not (system.provider.attached or system.provider.mounted or _shown(system, "WriteAllocs"))


CLAIM_CASES = (
    Case("publish", "ControllerPublishVolume", _claimable, _claim, _is_published),
    Case("unpublish", "NodeUnpublishVolume", _claimed, _unclaim, _is_free),
)
CASES += CLAIM_CASES
LATER_STEPS = (
    replace(CLAIM_CASES[0], rpc="NodeStageVolume", step="stage"),
    replace(CLAIM_CASES[0], rpc="NodePublishVolume", step="mount"),
    replace(CLAIM_CASES[0], prepare=_left_mounted, rpc="NodeUnpublishVolume", step="unmount"),
    replace(CLAIM_CASES[0], prepare=_left_mounted, rpc="NodeUnstageVolume", step="unstage"),
    replace(CLAIM_CASES[1], rpc="NodeUnstageVolume", step="unstage"),
    replace(CLAIM_CASES[1], rpc="ControllerUnpublishVolume", step="detach"),
)
"""The other steps of kinds that have more than one."""


def _first_snapshot(system: System) -> str:
    return next(iter(system.provider.snapshots), "snap-2")
