"""The Chalice application: every path and method reaches one function (chalicelib/routes/endpoint.py)."""

from typing import Any

from chalice.app import Chalice, Response

from chalicelib.functions import functions
from chalicelib.routes import endpoint
from chalicelib.routes.endpoint import METHODS

app = Chalice(app_name="moorage", configure_logs=False)
app.register_blueprint(functions)

GATEWAY_PATHS = (
    "/v1/volumes",
    "/v1/volume/csi/{volume_id}",
    "/v1/volume/csi/{volume_id}/{action}",
    "/v1/bridge/{node_id}",
    "/",
    "/{proxy+}",
)
"""The paths that the gateway's metrics name. `/` and `/{proxy+}` alone would serve every request."""


def answer(**_: Any) -> Response:
    """Answer any request. Chalice gives the captured parts of a path by name, and none for `{proxy+}`."""
    request = app.current_request
    if request is None:  # pragma: no cover - Chalice calls a view with a request only
        raise RuntimeError("no request")
    body = request.raw_body or b""
    return endpoint(request.to_original_event(), body.encode() if isinstance(body, str) else body)


# Content types are not checked, since curl and the Go client send their own.
for path in GATEWAY_PATHS:
    app.route(path, methods=list(METHODS), content_types=[], name=path)(answer)
