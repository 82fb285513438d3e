"""The table of routes."""

from collections.abc import Mapping
from typing import Final

from chalicelib.routes import nodes, volumes
from chalicelib.routes.endpoint import Endpoint, Handler

ROUTES: Final[Mapping[str, Handler]] = {
    "/v1/volumes": volumes.collection,
    "/v1/volume/csi/": volumes.item,
    "/v1/bridge/": nodes.bridge,
}
"""Nomad's paths; one that ends in a slash has everything below it."""

endpoint: Final = Endpoint(ROUTES)
