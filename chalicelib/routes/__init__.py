"""The table of routes."""

from collections.abc import Mapping
from typing import Final

from chalicelib.routes import agent, namespaces, nodes, plugins, snapshots, volumes
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
    "/v1/status/leader": agent.leader,
    "/v1/status/peers": agent.peers,
    "/v1/regions": agent.regions,
    "/v1/agent/health": agent.health,
}
"""Nomad's paths; one that ends in a slash has everything below it."""

endpoint: Final = Endpoint(ROUTES)
