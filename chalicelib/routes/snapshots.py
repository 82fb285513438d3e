"""/v1/volumes/snapshot in its three forms, and /v1/volumes/external."""

from typing import Any

from chalicelib import wiring
from chalicelib.domain.volume import DEFINITION_LIMIT
from chalicelib.routes.endpoint import Answer, Call, NoRoute, allow, method_not_allowed, too_large
from chalicelib.routes.options import budget, options, region
from chalicelib.service import snapshots as service
from chalicelib.wire import shapes
from chalicelib.wire import snapshots as wire
from chalicelib.wire import volumes as volumes_wire
from chalicelib.wire.gojson import decode

SECRETS_HEADER = "X-Nomad-CSI-Secrets"


def secrets(call: Call) -> dict[str, str]:
    """The secrets that a request brings in its header; clients send it everywhere, so what is malformed is ignored."""
    return volumes_wire.secrets_header(call.header(SECRETS_HEADER))


def collection(call: Call) -> Answer:
    """GET lists, PUT and POST create, DELETE deletes."""
    if call.method in ("PUT", "POST"):
        return create(call, "")
    if call.method == "GET":
        return _list(call)
    if call.method == "DELETE":
        region(call)
        deps = wiring.deps()
        ids = call.parameter("plugin_id"), call.parameter("snapshot_id")
        service.delete(deps, *ids, secrets(call), budget(call, deps))
        return Answer(index=0, known_leader=False)
    raise method_not_allowed()


def below(call: Call) -> Answer:
    """The API page's `PUT /v1/volumes/snapshot/:volume_id`; nothing else lies below."""
    if call.method not in ("PUT", "POST") or not call.rest or "/" in call.rest:
        raise NoRoute("")
    return create(call, call.rest)


def create(call: Call, volume_id: str) -> Answer:
    """Take the snapshots of the body; one that names no source is of the volume in the path."""
    too_large(call.body, DEFINITION_LIMIT)
    body = decode(call.body, shapes.CSI_SNAPSHOT_CREATE_REQUEST)
    region(call)
    wanted = [
        service.SnapshotRequest(
            source_volume_id=element["SourceVolumeID"] or volume_id,
            plugin_id=element["PluginID"],
            name=element["Name"],
            parameters=element["Parameters"] or {},
            secrets=element["Secrets"] or {},
        )
        for element in body["Snapshots"] or ()
    ]
    deps = wiring.deps()
    made = service.create(deps, call.namespace, wanted, budget(call, deps))
    shown: list[dict[str, Any]] | None = [wire.snapshot(m) for m in made] or None
    return Answer(wire.page("Snapshots", shown), index=0, known_leader=False)


def external(call: Call) -> Answer:
    """What the provider has, registered or not."""
    allow(call, "GET")
    given = options(call)
    found = service.list_external(
        wiring.deps(), call.parameter("plugin_id"), per_page=given.per_page, next_token=given.next_token
    )
    shown = [wire.external(entry) for entry in found.entries]
    return Answer(wire.page("Volumes", shown, found.next_token), index=0, known_leader=False)


def _list(call: Call) -> Answer:
    given = options(call)
    plugin_id = call.parameter("plugin_id")
    found = service.list_snapshots(
        wiring.deps(), plugin_id, per_page=given.per_page, next_token=given.next_token, secrets=secrets(call)
    )
    shown = [wire.snapshot(entry, plugin_id) for entry in found.entries]
    return Answer(wire.page("Snapshots", shown, found.next_token), index=0, known_leader=False)
