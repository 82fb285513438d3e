"""Answer what Nomad's clients ask an agent for beside volumes, as far as it has a meaning without servers and jobs."""

from typing import Final

from chalicelib.errors import NotFound, Refused, RequestError
from chalicelib.routes.call import Answer, Call, Missing
from chalicelib.routes.mux import Handler
from chalicelib.routes.options import REGION, Options
from chalicelib.wire import agent as wire

NO_JOBS: Final = "jobs are not served here, only storage volumes: run them on a Nomad cluster"
NO_MEMBERS: Final = "there are no servers to join or leave: the control plane has none"
PAGE: Final = (
    "<!DOCTYPE html>\n<html>\n<p>Moorage has no user interface: it serves the volumes API below /v1.</p>\n</html>\n"
)


def root(_call: Call) -> Answer:
    """Redirect to the page."""
    return Answer(status=307, headers={"Location": "/ui/"})


def page(_call: Call, _path: str) -> Answer:
    return Answer(html=PAGE)


def leader(_call: Call) -> Answer:
    """Return the one address. There is always a leader: DynamoDB takes its part."""
    return Answer(wire.ADDRESS)


def peers(_call: Call) -> Answer:
    return Answer([wire.ADDRESS])


def regions(_call: Call) -> Answer:
    return Answer([REGION])


def health(call: Call) -> Answer:
    """Return the health of the kind of agent in `type`, or of both kinds."""
    good = {"message": "ok", "ok": True}
    kind = call.parameter("type")
    return Answer({name: good for name in ("server", "client") if kind in ("", name)})


def agent_self(_call: Call) -> Answer:
    """Return the agent's description, which `nomad status`, `node status` and `server members` read."""
    return Answer(wire.agent_self(acl_enabled=False))


def members(_call: Call) -> Answer:
    return Answer(wire.members())


def servers(_call: Call) -> Answer:
    """Return the addresses at which a client would find servers."""
    return Answer([wire.ADDRESS])


def set_servers(_call: Call) -> Answer:
    raise Refused(NO_MEMBERS)


def join(_call: Call) -> Answer:
    """Refuse in the body of a 200, as Nomad does."""
    return Answer({"error": NO_MEMBERS, "num_joined": 0})


def force_leave(_call: Call) -> Answer:
    """Succeed: a server that is not there has left already."""
    return Answer()


def list_none(_call: Call, _given: Options) -> Answer:
    """Return an empty list, of things that only a Nomad with jobs has."""
    return Answer([], index=1)


def missing(kind: str) -> Handler:
    """Return a handler of reads that answers `<kind> not found`, for things that only a Nomad with jobs has."""

    def handler(_call: Call, _given: Options, _path: str) -> Answer:
        raise Missing(f"{kind} not found", index=1)

    return handler


def refuse_job(_call: Call, _path: str = "") -> Answer:
    raise Refused(NO_JOBS)


def client(_call: Call, _path: str = "") -> Answer:
    """Refuse as a server does for a node that it cannot reach: only the agent on the node knows the answer."""
    raise NotFound("No path to node")


def acl_disabled(_call: Call, _name: str = "") -> Answer:
    raise RequestError("ACL support disabled")


def token_self(_call: Call, _given: Options) -> Answer:
    """Return a token that says that ACLs are off: `nomad acl token self` prints it."""
    return Answer(wire.ANONYMOUS_TOKEN, index=0)


def read_host_volume(_call: Call, _given: Options, _volume_id: str) -> Answer:
    """Report that there is no such volume: the control plane has no host volumes."""
    raise Missing("volume not found", index=1)


def delete_host_volume(_call: Call, volume_id: str) -> Answer:
    raise Refused(f"no such volume: {volume_id}")


def create_host_volume(call: Call, _action: str) -> Answer:
    if not call.body:
        raise RequestError("Request body is empty")
    raise Refused("host volumes are not served here: make a csi volume")


def host_claims(_call: Call) -> Answer:
    """Return no claims of host volumes by task groups."""
    return Answer([], index=1)


def delete_host_claim(_call: Call, _claim_id: str) -> Answer:
    raise Refused("task group volume claim does not exist")
