"""/v1/volumes/snapshot in its three forms, and /v1/volumes/external: snapshots, and the volumes that a provider has."""

from collections.abc import Mapping
from typing import Any

from chalicelib import wiring
from chalicelib.domain.volume import DEFINITION_LIMIT
from chalicelib.routes.call import Answer, Call, too_large
from chalicelib.routes.options import Options, budget, region
from chalicelib.service import snapshots as service
from chalicelib.wire import shapes
from chalicelib.wire import snapshots as wire
from chalicelib.wire import volumes as volumes_wire
from chalicelib.wire.gojson import decode

SECRETS_HEADER = "X-Nomad-CSI-Secrets"


def secrets(call: Call) -> dict[str, str]:
    """Return the secrets in a request's header. Clients send it everywhere, so a malformed one is ignored."""
    return volumes_wire.secrets_header(call.header(SECRETS_HEADER))


def snapshot_request(call: Call) -> Mapping[str, Any]:
    """Read the body of a create."""
    too_large(call.body, DEFINITION_LIMIT)
    body = decode(call.body, shapes.CSI_SNAPSHOT_CREATE_REQUEST)
    region(call)
    return body


def create(call: Call, body: Mapping[str, Any], volume_id: str = "") -> Answer:
    """Take the snapshots of the body. One that names no source is of the volume in the path."""
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


def delete(call: Call) -> Answer:
    deps = wiring.deps()
    ids = call.parameter("plugin_id"), call.parameter("snapshot_id")
    service.delete(deps, *ids, secrets(call), budget(call, deps))
    return Answer(index=0, known_leader=False)


def list_external(call: Call, given: Options) -> Answer:
    """Return the volumes that the provider has, registered or not."""
    found = service.list_external(
        wiring.deps(), call.parameter("plugin_id"), per_page=given.per_page, next_token=given.next_token
    )
    shown = [wire.external(entry) for entry in found.entries]
    return Answer(wire.page("Volumes", shown, found.next_token), index=0, known_leader=False)


def list_snapshots(call: Call, given: Options) -> Answer:
    """Return the snapshots that the provider has."""
    plugin_id = call.parameter("plugin_id")
    found = service.list_snapshots(
        wiring.deps(), plugin_id, per_page=given.per_page, next_token=given.next_token, secrets=secrets(call)
    )
    shown = [wire.snapshot(entry, plugin_id) for entry in found.entries]
    return Answer(wire.page("Snapshots", shown, found.next_token), index=0, known_leader=False)
