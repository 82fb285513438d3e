"""The table of routes."""

from collections.abc import Mapping
from typing import Final

from chalicelib.routes import agent, audit, namespaces, nodes, operations, plugins, search, snapshots, volumes
from chalicelib.routes.endpoint import Endpoint, Handler

ROUTES: Final[Mapping[str, Handler]] = {
    "/": agent.root,
    "/ui/": agent.page,
    "/v1/volumes": volumes.collection,
    "/v1/volumes/external": snapshots.external,
    "/v1/volumes/snapshot": snapshots.collection,
    "/v1/volumes/snapshot/": snapshots.below,
    "/v1/volumes/claims": agent.host_claims,
    "/v1/volumes/claim/": agent.host_claim,
    "/v1/volume/csi/": volumes.item,
    "/v1/volume/host/": agent.host_volume,
    "/v1/plugins": plugins.collection,
    "/v1/plugin/csi/": plugins.item,
    "/v1/nodes": plugins.nodes,
    "/v1/node/": plugins.node,
    "/v1/namespaces": namespaces.collection,
    "/v1/namespace": namespaces.unnamed,
    "/v1/namespace/": namespaces.item,
    "/v1/bridge/": nodes.bridge,
    "/v1/audit/": audit.item,
    "/v1/operations": operations.collection,
    "/v1/operation/": operations.item,
    "/v1/status/leader": agent.leader,
    "/v1/status/peers": agent.peers,
    "/v1/regions": agent.regions,
    "/v1/agent/health": agent.health,
    "/v1/agent/self": agent.agent_self,
    "/v1/agent/members": agent.members,
    "/v1/agent/servers": agent.servers,
    "/v1/agent/join": agent.join,
    "/v1/agent/force-leave": agent.force_leave,
    "/v1/search": search.prefix,
    "/v1/search/fuzzy": search.fuzzy,
    "/v1/jobs": agent.none_of,
    "/v1/job/": agent.no("job"),
    "/v1/allocations": agent.none_of,
    "/v1/allocation/": agent.no("alloc"),
    "/v1/evaluations": agent.none_of,
    "/v1/evaluation/": agent.no("eval"),
    "/v1/deployments": agent.none_of,
    "/v1/deployment/": agent.no("deployment"),
    "/v1/client/": agent.client,
    "/v1/acl/policies": agent.acl("GET"),
    "/v1/acl/policy/": agent.acl("GET", "PUT", "POST", "DELETE", name="Policy Name"),
    "/v1/acl/tokens": agent.acl("GET"),
    "/v1/acl/token": agent.acl("PUT", "POST"),
    "/v1/acl/token/self": agent.token_self,
    "/v1/acl/token/": agent.acl("GET", "PUT", "POST", "DELETE", name="Token ID"),
    "/v1/acl/roles": agent.acl("GET"),
    "/v1/acl/role": agent.acl("PUT", "POST"),
    "/v1/acl/role/": agent.acl("GET", "PUT", "POST", "DELETE", name="ACL role ID"),
    "/v1/acl/auth-methods": agent.acl("GET"),
    "/v1/acl/binding-rules": agent.acl("GET"),
    "/v1/acl/bootstrap": agent.acl("PUT", "POST"),
    "/v1/acl/login": agent.acl("PUT", "POST"),
}
"""Nomad's paths; one that ends in a slash has everything below it."""

endpoint: Final = Endpoint(ROUTES)
