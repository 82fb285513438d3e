"""What Nomad's clients ask an agent for beside volumes, as far as it has a meaning without servers and jobs."""

from typing import Any, Final

from chalicelib import wiring
from chalicelib.errors import NotFound, Refused, RequestError
from chalicelib.routes.endpoint import Answer, Call, Handler, Missing, allow, method_not_allowed, resource_not_found
from chalicelib.routes.options import REGION, options, region
from chalicelib.service import blocking
from chalicelib.wire import agent as wire

NO_JOBS: Final = "jobs are not served here, only storage volumes: run them on a Nomad cluster"
NO_MEMBERS: Final = "there are no servers to join or leave: the control plane has none"
PAGE: Final = (
    "<!DOCTYPE html>\n<html>\n<p>Moorage has no user interface: it serves the volumes API below /v1.</p>\n</html>\n"
)


def root(_call: Call) -> Answer:
    """Every method is sent on to the page, as in Nomad."""
    return Answer(status=307, headers={"Location": "/ui/"})


def page(_call: Call) -> Answer:
    return Answer(html=PAGE)


def leader(call: Call) -> Answer:
    """There is always a leader: DynamoDB."""
    allow(call, "GET")
    region(call)
    return Answer(wire.ADDRESS)


def peers(call: Call) -> Answer:
    allow(call, "GET")
    region(call)
    return Answer([wire.ADDRESS])


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


def agent_self(call: Call) -> Answer:
    """What the agent is, as `nomad status`, `node status` and `server members` ask for it."""
    allow(call, "GET")
    return Answer(wire.agent_self(acl_enabled=False))


def members(call: Call) -> Answer:
    allow(call, "GET")
    return Answer(wire.members())


def servers(call: Call) -> Answer:
    """Where a client would find servers; they cannot be set."""
    if call.method in ("PUT", "POST"):
        raise Refused(NO_MEMBERS)
    allow(call, "GET")
    return Answer([wire.ADDRESS])


def join(call: Call) -> Answer:
    """Nobody joins, and the answer says so in the body, as Nomad's does."""
    allow(call, "PUT", "POST")
    return Answer({"error": NO_MEMBERS, "num_joined": 0})


def force_leave(call: Call) -> Answer:
    """A server that is not there has left already."""
    allow(call, "PUT", "POST")
    return Answer()


def none_of(call: Call) -> Answer:
    """GET of what only a Nomad with jobs has: an empty list, which never changes."""
    if call.method in ("PUT", "POST") and call.path == "/v1/jobs":
        raise Refused(NO_JOBS)
    allow(call, "GET")
    given = options(call)
    blocking.until_changed(wiring.deps(), index=given.index, wait=given.wait, current=lambda: 1)
    return Answer([], index=1)


def no(kind: str) -> Handler:
    """The reads below a path of things that are not here: `<kind> not found`."""

    def missing(call: Call) -> Answer:
        if call.method in ("PUT", "POST", "DELETE"):
            raise Refused(NO_JOBS)
        allow(call, "GET")
        options(call)
        raise Missing(f"{kind} not found", index=1)

    return missing


def client(call: Call) -> Answer:
    """What only the agent on a node knows: the API has no way there, and says so as a server does of a lost node."""
    allow(call, "GET")
    raise NotFound("No path to node")


def acl(*methods: str, name: str = "") -> Handler:
    """Policies, tokens, roles, … while ACLs are off; `name` is what must follow the path."""

    def disabled(call: Call) -> Answer:
        allow(call, *methods)
        if name and not call.rest:
            raise RequestError(f"Missing {name}")
        raise RequestError("ACL support disabled")

    return disabled


def token_self(call: Call) -> Answer:
    """Whoever asks is told that ACLs are off, as an answer and not an error: `nomad acl token self` prints it."""
    if call.method != "GET":
        raise method_not_allowed()
    options(call)
    return Answer(wire.ANONYMOUS_TOKEN, index=0)


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
    """Task groups' claims of host volumes: there are none, whatever the method, as recorded."""
    return Answer([], index=1)


def host_claim(call: Call) -> Answer:
    allow(call, "DELETE")
    raise Refused("task group volume claim does not exist")
