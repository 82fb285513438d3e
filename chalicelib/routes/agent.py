"""What Nomad's clients ask an agent for beside volumes, as far as it has a meaning without servers and jobs."""

from typing import Any, Final

from chalicelib.errors import Refused, RequestError
from chalicelib.routes.endpoint import Answer, Call, Missing, allow, resource_not_found
from chalicelib.routes.options import REGION, options, region

ADDRESS: Final = "127.0.0.1:4647"
"""Where a Nomad server would listen for its own kind; nothing listens, but clients print it."""
PAGE: Final = (
    "<!DOCTYPE html>\n<html>\n<p>Moorage has no user interface: it serves the volumes API below /v1.</p>\n</html>\n"
)


def root(_call: Call) -> Answer:
    return Answer(status=307, headers={"Location": "/ui/"})


def page(_call: Call) -> Answer:
    return Answer(html=PAGE)


def leader(call: Call) -> Answer:
    """There is always a leader: DynamoDB."""
    allow(call, "GET")
    region(call)
    return Answer(ADDRESS)


def peers(call: Call) -> Answer:
    allow(call, "GET")
    region(call)
    return Answer([ADDRESS])


def regions(call: Call) -> Answer:
    allow(call, "GET")
    return Answer([REGION])


def health(call: Call) -> Answer:
    allow(call, "GET")
    good = {"message": "ok", "ok": True}
    kinds = {"server": good, "client": good}
    wanted = call.parameter("type")
    body: dict[str, Any] = kinds if not wanted else {k: v for k, v in kinds.items() if k == wanted}
    return Answer(body)


def host_volume(call: Call) -> Answer:
    """Nomad's other kind of volume: there is none here, and none can be made."""
    if not call.rest or "/" in call.rest:
        raise resource_not_found()
    if call.method in ("GET", "HEAD"):
        options(call)
        raise Missing("volume not found", index=1)
    if call.method == "DELETE":
        raise Refused(f"no such volume: {call.rest}")
    if call.method in ("PUT", "POST") and call.rest in ("create", "register"):
        if not call.body:
            raise RequestError("Request body is empty")
        raise Refused("host volumes are not served here: make a csi volume")
    raise resource_not_found()


def host_claims(_call: Call) -> Answer:
    """Task groups' claims of host volumes: there are none."""
    return Answer([], index=1)


def host_claim(call: Call) -> Answer:
    allow(call, "DELETE")
    raise Refused("task group volume claim does not exist")
