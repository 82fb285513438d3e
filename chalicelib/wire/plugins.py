"""Plugins and nodes in Nomad's JSON.

Nomad runs a plugin as a job. Here it runs behind bridges, which are shown where clients expect jobs and allocations:
one job `csi-<plugin>`, and an allocation for each instance. Its ID stays the same as long as the plugin is on that
node.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from chalicelib.domain.plugin import Instance, Node, Plugin

_NEVER = "0001-01-01T00:00:00Z"


def stub(item: Plugin) -> dict[str, Any]:
    """Return the entry of a list."""
    return {
        "ControllerRequired": item.controller_required,
        "ControllersExpected": item.controllers_expected,
        "ControllersHealthy": item.controllers_healthy,
        "CreateIndex": item.create_index,
        "ID": item.id,
        "ModifyIndex": item.modify_index,
        "NodesExpected": item.nodes_expected,
        "NodesHealthy": item.nodes_healthy,
        "Provider": item.provider,
    }


def plugin(item: Plugin, instances: Sequence[Instance], *, allocations: bool = True) -> dict[str, Any]:
    """Return the answer of a read, with every instance under its node's ID."""
    times = [i.update_time for i in instances] or [0]
    return stub(item) | {
        "Allocations": [_allocation(i) for i in instances] if allocations else None,
        "ControllerJobs": _jobs(item, item.controllers_expected),
        "Controllers": {i.node_id: _controller(i) for i in instances if i.controller},
        "CreateTime": item.create_time or min(times),
        "ModifyTime": max(times),
        "NodeJobs": _jobs(item, item.nodes_expected),
        "Nodes": {i.node_id: _node(i) for i in instances if i.node},
        "Version": item.provider_version,
    }


def node_stub(item: Node) -> dict[str, Any]:
    """Return the entry of a list of nodes."""
    return {
        "Address": item.address.rpartition(":")[0],
        "CreateIndex": item.create_index,
        "Datacenter": "dc1",
        "Drain": False,
        "Drivers": {},
        "HostVolumes": {},
        "ID": item.id,
        "LastDrain": None,
        "ModifyIndex": item.modify_index,
        "Name": item.name,
        "NodeClass": "",
        "NodePool": "default",
        "SchedulingEligibility": "eligible",
        "Status": "down" if item.trouble else "ready",
        "StatusDescription": item.trouble,
        "Version": item.bridge_version,
    }


def node(item: Node, instances: Mapping[str, Instance]) -> dict[str, Any]:
    """Return one node with its plugins."""
    body = node_stub(item)
    return body | {
        "Attributes": {"moorage.bridge.address": item.address, "moorage.bridge.version": item.bridge_version},
        "CSIControllerPlugins": {i.plugin_id: _controller(i) for i in instances.values() if i.controller},
        "CSINodePlugins": {i.plugin_id: _node(i) for i in instances.values() if i.node},
        "HTTPAddr": "",
        "Links": None,
        "Meta": {},
        # What a node has for jobs is not known. But the CLI crashes without numbers: older releases read those of
        # Resources and Reserved, newer ones those of NodeResources and ReservedResources.
        "NodeResources": {
            "Cpu": {"CpuShares": 0, "ReservableCpuCores": None, "TotalCpuCores": 0},
            "Devices": None,
            "Disk": {"DiskMB": 0},
            "Memory": {"MemoryMB": 0},
            "Networks": None,
        },
        "Reserved": {"CPU": 0, "DiskMB": 0, "MemoryMB": 0},
        "ReservedResources": {
            "Cpu": {"CpuShares": 0, "ReservedCpuCores": None},
            "Disk": {"DiskMB": 0},
            "Memory": {"MemoryMB": 0},
            "Networks": {"ReservedHostPorts": ""},
        },
        "Resources": {"CPU": 0, "DiskMB": 0, "MemoryMB": 0},
        "StatusUpdatedAt": int(item.seen_at),
        "TLSEnabled": True,
    }


def purged(index: int) -> dict[str, Any]:
    """Return the answer to a purge of a node, which makes no evaluations."""
    return {"EvalCreateIndex": 0, "EvalIDs": None, "NodeModifyIndex": index}


def _jobs(item: Plugin, expected: int) -> dict[str, Any]:
    job = f"csi-{item.id}"
    return {"default": {job: {"Expected": expected, "ID": job, "Namespace": "default"}}} if expected else {}


def _allocation_id(item: Instance) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"moorage://{item.node_id}/{item.plugin_id}"))


def _allocation(item: Instance) -> dict[str, Any]:
    """Return an instance as an entry of Nomad's list of allocations."""
    job, status = f"csi-{item.plugin_id}", "running" if item.healthy else "failed"
    task: dict[str, Any] = {
        "State": "running" if item.healthy else "dead",
        "Failed": not item.healthy,
        "Events": [],
        "Restarts": 0,
    }
    return {
        "ClientDescription": item.health_description,
        "ClientStatus": status,
        "CreateIndex": 0,
        "CreateTime": item.update_time,
        "DesiredDescription": "",
        "DesiredStatus": "run",
        "EvalID": "",
        "ID": _allocation_id(item),
        "JobID": job,
        "JobType": "service",
        "JobVersion": 0,
        "ModifyIndex": 0,
        "ModifyTime": item.update_time,
        "Name": f"{job}.bridge[0]",
        "Namespace": "default",
        "NodeID": item.node_id,
        "NodeName": "",
        "TaskGroup": "bridge",
        "TaskStates": {"plugin": task},
    }


def _common(item: Instance) -> dict[str, Any]:
    return {
        "AllocID": _allocation_id(item),
        "HealthDescription": item.health_description or ("healthy" if item.healthy else "unhealthy"),
        "Healthy": item.healthy,
        "PluginID": item.plugin_id,
        "Provider": item.provider,
        "ProviderVersion": item.provider_version,
        "RequiresControllerPlugin": item.controller,
        "RequiresTopologies": item.topology_capable,
        "UpdateTime": _rfc3339(item.update_time),
    }


def _controller(item: Instance) -> dict[str, Any]:
    has = item.controller_capabilities.__contains__
    return _common(item) | {
        "ControllerInfo": {
            "SupportsAttachDetach": has("PUBLISH_UNPUBLISH_VOLUME"),
            "SupportsClone": has("CLONE_VOLUME"),
            "SupportsCondition": has("VOLUME_CONDITION"),
            "SupportsCreateDelete": has("CREATE_DELETE_VOLUME"),
            "SupportsCreateDeleteSnapshot": has("CREATE_DELETE_SNAPSHOT"),
            "SupportsExpand": has("EXPAND_VOLUME"),
            "SupportsGet": has("GET_VOLUME"),
            "SupportsGetCapacity": has("GET_CAPACITY"),
            "SupportsListSnapshots": has("LIST_SNAPSHOTS"),
            "SupportsListVolumes": has("LIST_VOLUMES"),
            "SupportsListVolumesAttachedNodes": has("LIST_VOLUMES_PUBLISHED_NODES"),
            "SupportsReadOnlyAttach": has("PUBLISH_READONLY"),
        }
    }


def _node(item: Instance) -> dict[str, Any]:
    has = item.node_capabilities.__contains__
    return _common(item) | {
        "NodeInfo": {
            "AccessibleTopology": {"Segments": dict(item.topology)} if item.topology else None,
            "ID": item.external_node_id,
            # Nomad shows a plugin without a limit as the largest number there is.
            "MaxVolumes": item.max_volumes or 2**63 - 1,
            "RequiresNodeStageVolume": has("STAGE_UNSTAGE_VOLUME"),
            "SupportsCondition": has("VOLUME_CONDITION"),
            "SupportsExpand": has("EXPAND_VOLUME"),
            "SupportsStats": has("GET_VOLUME_STATS"),
        }
    }


def _rfc3339(nanoseconds: int) -> str:
    if not nanoseconds:
        return _NEVER
    seconds, rest = divmod(nanoseconds, 10**9)
    moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{rest:09d}Z"
