"""Claims in JSON: our own resource, and the parts of a volume's answer in which Nomad shows them."""

from collections.abc import Iterable, Mapping
from typing import Any

from chalicelib.domain.claim import Claim
from chalicelib.wire.kinds import INT, STRING, Field, Struct

NODE_LOST = "node lost"

CLAIM_REQUEST = Struct(
    "claims.ClaimRequest",
    (
        Field("AllocationID", STRING),
        Field("NodeID", STRING),
        Field("Mode", STRING),
        Field("AccessMode", STRING),
        Field("AttachmentMode", STRING),
        Field("Name", STRING),
        Field("JobID", STRING),
        Field("TaskGroup", STRING),
        Field("LeaseSeconds", INT),
        Field("StagingPath", STRING),
        Field("TargetPath", STRING),
    ),
)
RENEW_REQUEST = Struct("claims.RenewRequest", (Field("LeaseSeconds", INT),))


def from_body(body: Mapping[str, Any], *, namespace: str, volume_id: str) -> Claim:
    """Return the claim that a body asks for."""
    return Claim(
        namespace=namespace,
        volume_id=volume_id,
        allocation_id=body["AllocationID"],
        node_id=body["NodeID"],
        mode=body["Mode"],
        access_mode=body["AccessMode"],
        attachment_mode=body["AttachmentMode"],
        name=body["Name"],
        job_id=body["JobID"],
        task_group=body["TaskGroup"],
        lease_seconds=body["LeaseSeconds"],
        staging_path=body["StagingPath"],
        target_path=body["TargetPath"],
    )


def lost(item: Claim) -> dict[str, Any]:
    """Return the entry of a registration's answer for a claim that is not the node's own any more."""
    return {
        "AllocationID": item.allocation_id,
        "Namespace": item.namespace,
        "TargetPath": item.target_path,
        "VolumeID": item.volume_id,
    }


def claim(item: Claim) -> dict[str, Any]:
    """Return one claim. `State` is `taken`, or how far its release has come, or `node lost`."""
    return {
        "AccessMode": item.access_mode,
        "AllocationID": item.allocation_id,
        "AttachmentMode": item.attachment_mode,
        "CreateIndex": item.create_index,
        "CreateTime": item.create_time,
        "ExternalNodeID": item.external_node_id,
        "JobID": item.job_id,
        "LeaseSeconds": item.lease_seconds,
        "Mode": item.mode,
        "ModifyIndex": item.modify_index,
        "Name": item.name,
        "Namespace": item.namespace,
        "NodeID": item.node_id,
        "OperationID": item.operation_id,
        "PluginID": item.plugin_id,
        "PublishContext": dict(item.publish_context),
        "Published": item.published,
        "StagingPath": item.staging_path,
        "State": NODE_LOST if item.node_lost else item.state.value,
        "TargetPath": item.target_path,
        "TaskGroup": item.task_group,
        "VolumeID": item.volume_id,
    }


def shown(claims: Iterable[Claim]) -> dict[str, Any]:
    """Return `ReadAllocs`, `WriteAllocs` and `Allocations` of a volume.

    The first two name past claims too. `Allocations` shows live and lost claims.
    """
    found = list(claims)
    return {
        "ReadAllocs": {c.allocation_id: None for c in found if not c.writes},
        "WriteAllocs": {c.allocation_id: None for c in found if c.writes},
        "Allocations": [_allocation(c) for c in found if c.live or c.node_lost],
    }


def _allocation(item: Claim) -> dict[str, Any]:
    """Return a claim as an entry of Nomad's list of allocations, with the names that the orchestrator gave."""
    status = "lost" if item.node_lost else "running" if item.published else "pending"
    return {
        "ClientDescription": NODE_LOST if item.node_lost else "",
        "ClientStatus": status,
        "CreateIndex": item.create_index,
        "CreateTime": item.create_time,
        "DeploymentStatus": None,
        "DesiredDescription": "",
        "DesiredStatus": "run",
        "DesiredTransition": {
            "ForceReschedule": None,
            "Migrate": None,
            "MigrateDisablePlacement": None,
            "NoShutdownDelay": None,
            "Reschedule": None,
        },
        "EvalID": "",
        "FollowupEvalID": "",
        "ID": item.allocation_id,
        "JobID": item.job_id,
        "JobType": "service",
        "JobVersion": 0,
        "ModifyIndex": item.modify_index,
        "ModifyTime": item.create_time,
        "Name": item.name or item.allocation_id,
        "Namespace": item.namespace,
        "NextAllocation": "",
        "NodeID": item.node_id,
        "NodeName": "",
        "PreemptedAllocations": None,
        "PreemptedByAllocation": "",
        "RescheduleTracker": None,
        "TaskGroup": item.task_group,
        "TaskStates": None,
    }
