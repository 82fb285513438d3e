"""The table of routes, and the refusals of paths and methods that are not in it.

A row is a route: methods, path pattern (routes/mux.py), handler, and what the sender must be allowed. The first row
that fits wins. docs/openapi.yaml describes the same routes, and tests/openapi compares the two.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from chalicelib.errors import Refused, RequestError
from chalicelib.routes import (
    agent,
    audit,
    bridges,
    claims,
    namespaces,
    nodes,
    operations,
    plugins,
    search,
    snapshots,
    volumes,
    watches,
)
from chalicelib.routes.call import Call, NoRoute, method_not_allowed, resource_not_found
from chalicelib.routes.mux import ANY, Refusal, Route
from chalicelib.routes.options import options, region
from chalicelib.routes.requirements import (
    ANONYMOUS,
    CREATE_HOST_VOLUME,
    DELETE_HOST_VOLUME,
    DELETE_VOLUME,
    DEREGISTER_VOLUME,
    DETACH_VOLUME,
    LIST_EXTERNAL,
    LIST_JOBS,
    LIST_PLUGINS,
    LIST_VOLUMES,
    MANAGEMENT,
    MOUNT_VOLUME,
    PUBLIC,
    READ_AGENT,
    READ_HOST_VOLUME,
    READ_JOB,
    READ_NAMESPACE,
    READ_NODE,
    READ_OPERATION,
    READ_OPERATOR,
    READ_PLUGIN,
    READ_VOLUME,
    REGISTER_HOST_VOLUME,
    SIGNED,
    SUBMIT_JOB,
    WRITE_AGENT,
    WRITE_NODE,
    WRITE_OPERATOR,
    WRITE_SNAPSHOT,
    WRITE_VOLUMES,
)


def typed(*types: str) -> Callable[[Call], bool]:
    """Return the condition that the query's `type` is one of these."""
    return lambda call: "type" in call.query and call.parameter("type") in types


def untyped(call: Call) -> bool:
    return "type" not in call.query


ROUTES: Final = (
    Route("PUT POST", "/v1/volumes", volumes.register, WRITE_VOLUMES, volumes.to_register),
    Route("GET HEAD", "/v1/volumes", volumes.list_no_type, PUBLIC, when=untyped),
    Route("GET", "/v1/volumes", volumes.list_csi, LIST_VOLUMES, options, watches.volume_list, typed("csi")),
    Route("GET", "/v1/volumes", volumes.list_host, ANONYMOUS, options, when=typed("host")),
    Route("GET", "/v1/volumes/external", snapshots.list_external, LIST_EXTERNAL, options),
    Route("GET", "/v1/volumes/snapshot", snapshots.list_snapshots, LIST_EXTERNAL, options),
    Route("PUT POST", "/v1/volumes/snapshot", snapshots.create, WRITE_SNAPSHOT, snapshots.snapshot_request),
    Route("DELETE", "/v1/volumes/snapshot", snapshots.delete, WRITE_SNAPSHOT, region),
    # The API page's other two ways to take a snapshot: Nomad itself does not serve them.
    Route("PUT POST", "/v1/volumes/snapshot/:volume_id", snapshots.create, WRITE_SNAPSHOT, snapshots.snapshot_request),
    Route(
        "PUT POST", "/v1/volume/csi/:volume_id/snapshot", snapshots.create, WRITE_SNAPSHOT, snapshots.snapshot_request
    ),
    Route("GET", "/v1/volume/csi/:volume_id", volumes.read, READ_VOLUME, options, watches.one_volume),
    Route("PUT", "/v1/volume/csi/:volume_id?", volumes.register, WRITE_VOLUMES, volumes.to_register),
    Route("DELETE", "/v1/volume/csi/:volume_id?", volumes.deregister, DEREGISTER_VOLUME, volumes.force),
    Route("PUT", "/v1/volume/csi/:volume_id/create", volumes.create, WRITE_VOLUMES, volumes.to_create),
    Route("DELETE", "/v1/volume/csi/:volume_id/delete", volumes.delete, DELETE_VOLUME, region),
    Route("DELETE", "/v1/volume/csi/:volume_id/detach", volumes.detach, DETACH_VOLUME, volumes.node_to_detach),
    Route("GET", "/v1/volume/csi/:volume_id/claims", claims.list_claims, READ_VOLUME, options, watches.one_volume),
    Route("PUT POST", "/v1/volume/csi/:volume_id/claim", claims.take, MOUNT_VOLUME, claims.claim_request),
    Route("DELETE", "/v1/volume/csi/:volume_id/claim/:allocation_id", claims.release, MOUNT_VOLUME, region),
    Route(
        "PUT POST",
        "/v1/volume/csi/:volume_id/claim/:allocation_id/renew",
        claims.renew,
        MOUNT_VOLUME,
        claims.lease_seconds,
    ),
    Route("GET", "/v1/volume/host/:volume_id", agent.read_host_volume, READ_HOST_VOLUME, options),
    Route("DELETE", "/v1/volume/host/:volume_id", agent.delete_host_volume, DELETE_HOST_VOLUME),
    Route("PUT POST", "/v1/volume/host/:action(create)", agent.create_host_volume, CREATE_HOST_VOLUME),
    Route("PUT POST", "/v1/volume/host/:action(register)", agent.create_host_volume, REGISTER_HOST_VOLUME),
    Route(ANY, "/v1/volumes/claims", agent.host_claims, READ_HOST_VOLUME),
    Route("DELETE", "/v1/volumes/claim/:claim_id*", agent.delete_host_claim, DELETE_HOST_VOLUME),
    Route(
        "GET",
        "/v1/plugins",
        plugins.list_plugins,
        LIST_PLUGINS,
        options,
        watches.plugins,
        typed("csi"),
    ),
    Route("GET", "/v1/plugins", plugins.list_no_type, PUBLIC),
    Route("GET", "/v1/plugin/csi/:plugin_id", plugins.read, READ_PLUGIN, options, watches.plugins),
    Route("GET", "/v1/plugin/csi/:plugin_id/:_more?", plugins.read, READ_PLUGIN, options, watches.plugins),
    Route("GET", "/v1/nodes", nodes.list_nodes, READ_NODE, options, watches.nodes),
    Route("GET", "/v1/node/:node_id", nodes.read, READ_NODE, options, watches.nodes),
    Route(
        "GET",
        "/v1/node/:node_id/allocations",
        nodes.list_allocations,
        READ_NODE,
        options,
        watches.nodes,
    ),
    Route("PUT POST", "/v1/node/:node_id/purge", nodes.purge, WRITE_NODE),
    Route("PUT", "/v1/bridge/:node_id", bridges.register, SIGNED, bridges.message),
    Route("DELETE", "/v1/bridge/:node_id", bridges.deregister, SIGNED, bridges.message),
    Route("GET", "/v1/namespaces", namespaces.list_namespaces, ANONYMOUS, options, watches.namespaces),
    Route("PUT POST", "/v1/namespace", namespaces.write, MANAGEMENT, namespaces.definition),
    Route("GET", "/v1/namespace/:name+", namespaces.read, READ_NAMESPACE, options, watches.namespaces),
    Route("PUT POST", "/v1/namespace/:name+", namespaces.write, MANAGEMENT, namespaces.definition),
    Route("DELETE", "/v1/namespace/:name+", namespaces.delete, MANAGEMENT, region),
    Route("GET", "/v1/operations", operations.list_operations, READ_OPERATION, options, watches.operations),
    Route("GET", "/v1/operation/:operation_id", operations.read, READ_OPERATION, options, watches.operations),
    Route("DELETE", "/v1/operation/:operation_id", operations.cancel, WRITE_OPERATOR),
    Route("PUT POST", "/v1/operation/:operation_id/resume", operations.resume, WRITE_OPERATOR),
    Route("GET", "/v1/audit/:plugin_id", audit.read, READ_OPERATOR, options),
    Route("PUT POST", "/v1/audit/:plugin_id", audit.start, WRITE_OPERATOR),
    Route("PUT POST", "/v1/search", search.by_prefix, ANONYMOUS, search.prefix_request),
    Route("PUT POST", "/v1/search/fuzzy", search.fuzzy, ANONYMOUS, search.fuzzy_request),
    Route(ANY, "/", agent.root, PUBLIC),
    Route(ANY, "/ui/:path*", agent.page, PUBLIC),
    Route("GET", "/v1/status/leader", agent.leader, PUBLIC, region),
    Route("GET", "/v1/status/peers", agent.peers, PUBLIC, region),
    Route("GET", "/v1/regions", agent.regions, PUBLIC),
    Route("GET", "/v1/agent/health", agent.health, PUBLIC),
    Route("GET", "/v1/agent/self", agent.agent_self, READ_AGENT),
    Route("GET", "/v1/agent/members", agent.members, READ_NODE),
    Route("GET", "/v1/agent/servers", agent.servers, READ_AGENT),
    Route("PUT POST", "/v1/agent/servers", agent.set_servers, WRITE_AGENT),
    Route("PUT POST", "/v1/agent/join", agent.join, WRITE_AGENT),
    Route("PUT POST", "/v1/agent/force-leave", agent.force_leave, WRITE_AGENT),
    Route("GET", "/v1/jobs", agent.list_none, LIST_JOBS, options, watches.never),
    Route("PUT POST", "/v1/jobs", agent.refuse_job, SUBMIT_JOB),
    Route("GET", "/v1/job/:id*", agent.missing("job"), READ_JOB, options),
    Route("PUT POST DELETE", "/v1/job/:id*", agent.refuse_job, SUBMIT_JOB),
    Route("GET", "/v1/allocations", agent.list_none, READ_JOB, options, watches.never),
    Route("GET", "/v1/allocation/:id*", agent.missing("alloc"), READ_JOB, options),
    Route("PUT POST DELETE", "/v1/allocation/:id*", agent.refuse_job, SUBMIT_JOB),
    Route("GET", "/v1/evaluations", agent.list_none, READ_JOB, options, watches.never),
    Route("GET", "/v1/evaluation/:id*", agent.missing("eval"), READ_JOB, options),
    Route("PUT POST DELETE", "/v1/evaluation/:id*", agent.refuse_job, SUBMIT_JOB),
    Route("GET", "/v1/deployments", agent.list_none, READ_JOB, options, watches.never),
    Route("GET", "/v1/deployment/:id*", agent.missing("deployment"), READ_JOB, options),
    Route("PUT POST DELETE", "/v1/deployment/:id*", agent.refuse_job, SUBMIT_JOB),
    Route("GET", "/v1/client/:path*", agent.client, READ_NODE),
    Route("GET", "/v1/acl/policies", agent.acl_disabled, ANONYMOUS),
    Route("GET", "/v1/acl/policy/:name+", agent.acl_disabled, ANONYMOUS),
    Route("PUT POST DELETE", "/v1/acl/policy/:name+", agent.acl_disabled, MANAGEMENT),
    Route("GET", "/v1/acl/tokens", agent.acl_disabled, MANAGEMENT),
    Route("PUT POST", "/v1/acl/token", agent.acl_disabled, MANAGEMENT),
    Route("GET", "/v1/acl/token/self", agent.token_self, ANONYMOUS, options),
    Route("GET PUT POST DELETE", "/v1/acl/token/:accessor_id+", agent.acl_disabled, MANAGEMENT),
    Route("GET", "/v1/acl/roles", agent.acl_disabled, ANONYMOUS),
    Route("PUT POST", "/v1/acl/role", agent.acl_disabled, MANAGEMENT),
    Route("GET", "/v1/acl/role/:role_id+", agent.acl_disabled, ANONYMOUS),
    Route("PUT POST DELETE", "/v1/acl/role/:role_id+", agent.acl_disabled, MANAGEMENT),
    Route("GET", "/v1/acl/auth-methods", agent.acl_disabled, PUBLIC),
    Route("GET", "/v1/acl/binding-rules", agent.acl_disabled, MANAGEMENT),
    Route("PUT POST", "/v1/acl/bootstrap", agent.acl_disabled, PUBLIC),
    Route("PUT POST", "/v1/acl/login", agent.acl_disabled, PUBLIC),
)

REFUSALS: Final = (
    # An unknown type is no resource. A known one is, but not for HEAD.
    Refusal("HEAD", "/v1/volumes", method_not_allowed, typed("csi", "host")),
    Refusal("GET HEAD", "/v1/volumes", resource_not_found),
    Refusal(ANY, "/v1/volumes/snapshot/:path*", NoRoute),
    Refusal("GET", "/v1/volume/csi/", partial(Refused, "missing volume ID")),
    Refusal(ANY, "/v1/volume/csi/:volume_id/claim", method_not_allowed),
    Refusal(ANY, "/v1/volume/csi/:volume_id/claims", method_not_allowed),
    Refusal(ANY, "/v1/volume/csi/:volume_id/claim/:allocation_id", method_not_allowed),
    Refusal(ANY, "/v1/volume/csi/:volume_id/claim/:allocation_id/renew", method_not_allowed),
    # Nomad looks for the word after the ID only with these two methods.
    Refusal("PUT DELETE", "/v1/volume/csi/:volume_id/:action?", resource_not_found),
    Refusal(ANY, "/v1/volume/csi/:volume_id/:action/:path*", resource_not_found),
    Refusal(ANY, "/v1/volume/host/:path*", resource_not_found),
    Refusal("GET", "/v1/plugin/csi/", partial(Refused, "missing plugin ID")),
    Refusal("GET", "/v1/plugin/csi/:path*", resource_not_found),
    Refusal("GET", "/v1/node/", partial(Refused, "missing node ID")),
    Refusal("GET", "/v1/node/:node_id/purge", method_not_allowed),
    Refusal("GET", "/v1/node/:path*", resource_not_found),
    Refusal("PUT DELETE", "/v1/bridge/:path*", resource_not_found),
    Refusal(ANY, "/v1/namespace/", partial(RequestError, "Missing Namespace Name")),
    Refusal(ANY, "/v1/operation/:operation_id", method_not_allowed),
    Refusal(ANY, "/v1/operation/:operation_id/resume", method_not_allowed),
    Refusal(ANY, "/v1/operation/:path*", resource_not_found),
    Refusal(ANY, "/v1/audit/:plugin_id", method_not_allowed),
    Refusal(ANY, "/v1/audit/:path*", resource_not_found),
    Refusal("GET PUT POST DELETE", "/v1/acl/policy/", partial(RequestError, "Missing Policy Name")),
    Refusal("GET PUT POST DELETE", "/v1/acl/token/", partial(RequestError, "Missing Token ID")),
    Refusal("GET PUT POST DELETE", "/v1/acl/role/", partial(RequestError, "Missing ACL role ID")),
)
"""The refusals of a known path with a method that has no route: the first that fits, else 405 `Invalid method`."""
