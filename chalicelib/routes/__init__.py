"""The HTTP API: the table of routes, and the endpoint that serves it."""

from typing import Final

from chalicelib.routes.endpoint import Endpoint
from chalicelib.routes.mux import Mux
from chalicelib.routes.table import REFUSALS, ROUTES

endpoint: Final = Endpoint(Mux(ROUTES, REFUSALS))
