"""The story of namespaces, volumes, claims and audits: definitions of every form, and claims of every kind."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from chalicelib.domain.volume import ACCESS_MODES
from chalicelib.errors import PluginRejected
from chalicelib.service import audit
from chalicelib.store import audits
from tests.baseline.parts import Strike, dying, watched
from tests.baseline.story import NOT_WAITING, SECRETS, UNMOUNTED, Story, claim_body, doubt
from tests.fakes.provider import Stored
from tests.harness import definition

ZONES: Final = [{"Segments": {"topology.example/zone": zone}} for zone in "ab"]
FULL: Final[Mapping[str, Any]] = {
    "Name": "The Full One",
    "Parameters": {"type": "gp3", "empty": "", "größe": "¼"},
    "RequestedCapacityMin": 2**40,
    "RequestedCapacityMax": 2**53 + 1,
    "RequestedCapabilities": [
        {"AccessMode": "single-node-writer", "AttachmentMode": "file-system"},
        {"AccessMode": "multi-node-reader-only", "AttachmentMode": "block-device"},
    ],
    "MountOptions": {"FSType": "ext4", "MountFlags": ["noatime", "ro"]},
    "RequestedTopologies": {"Required": ZONES, "Preferred": ZONES[:1]},
    **SECRETS,
}


def tell_namespaces(story: Story) -> None:
    named: dict[str, dict[str, Any]] = {
        "default": {"Description": "where most volumes are"},
        "prod": {"Description": "ours", "Meta": {"team": "storage", "größe": "¼"}},
        "empty": {},
        "going": {},
    }
    for name, fields in named.items():
        story.ask("PUT", f"/v1/namespace/{name}", {"Name": name} | fields)


def tell_volumes(story: Story) -> None:
    """Create, register, change and delete volumes with definitions of every form."""
    story.create("plain")
    provider = story.system.provider
    provider.context = {"made": "yes", "größe": "¼"}
    provider.topologies = [zone["Segments"] for zone in ZONES]
    for namespace in ("default", "prod"):
        story.create("full", namespace=namespace, **FULL)
    provider.context, provider.topologies = {}, ()
    story.create("no-flags", MountOptions={})
    story.create("no-required", RequestedTopologies={"Required": None, "Preferred": []})
    source = next(iter(provider.volumes))
    provider.snapshots["snap-of-old"] = Stored("snap-of-old", "old", 1024, source)
    story.create("of-snapshot", SnapshotID="snap-of-old")
    story.create("of-clone", CloneID=source)
    story.create("ünïcode ¼ ID", Name="ünïcode")
    _tell_registered(story)
    for volume_id in ("changed", "expanded", "deleted", "deregistered", "again"):
        story.create(volume_id)
    story.ask("PUT", "/v1/volume/csi/changed", definition("changed", PluginID="ebs", MountOptions={"FSType": "xfs"}))
    larger = definition("expanded", PluginID="ebs", RequestedCapacityMin=2**30, Secrets={"user": "another"})
    story.ask("PUT", "/v1/volume/csi/expanded/create", larger)
    story.ask("DELETE", "/v1/volume/csi/deleted/delete")
    story.ask("DELETE", "/v1/volume/csi/deregistered")
    story.remove("deregistered")
    story.ask("DELETE", "/v1/volume/csi/again/delete")


def _tell_registered(story: Story) -> None:
    """Register volumes that were at their providers before, one of them of a plugin that goes away."""
    for external_id in ("vol-0001", "own-id", "placed", "of-gone"):
        story.system.provider.volumes[external_id] = Stored(external_id, external_id, 1024)
    registered: dict[str, dict[str, Any]] = {
        "registered": {"ExternalID": "vol-0001", "Context": {"fsid": "7"}, "Topologies": ZONES, **SECRETS},
        "own-id": {},
        "placed": {"ExternalID": "placed", "RequestedTopologies": {"Required": ZONES}},
    }
    for volume_id, fields in registered.items():
        story.ask("PUT", f"/v1/volume/csi/{volume_id}", definition(volume_id, PluginID="ebs", **fields))
    gone = story.bridge("node-gone", watched("gone", external_node_id="gone"))
    story.beat("node-gone")
    story.ask("PUT", "/v1/volume/csi/of-gone", definition("of-gone", PluginID="gone", ExternalID="of-gone"))
    story.said(gone.leave())


def tell_claims(story: Story) -> None:
    """Claim volumes in every access mode, in both attachment modes, with and without a lease, to read and to write."""
    named = {"Name": "web.cache[0]", "JobID": "web", "TaskGroup": "cache"}
    for number, mode in enumerate(ACCESS_MODES):
        name, attachment = f"used-{mode}", ("file-system", "block-device")[number % 2]
        capability = {"AccessMode": mode, "AttachmentMode": attachment}
        story.create(name, RequestedCapabilities=[capability], **(SECRETS if number == 0 else {}))
        story.claim(name, Mode="read" if mode.endswith("reader-only") else "write", **capability, **named)
        if mode.startswith("multi"):
            story.claim(name, "node-b", AllocationID=f"second-{mode}", Mode="read", **UNMOUNTED)
    story.create("not-attachable", plugin="files")
    story.claim("not-attachable", **UNMOUNTED)
    for name, seconds in (("leased", 86_400), ("lease-over", 60), ("lease-renewed", 3_600)):
        story.create(name, plugin="files")
        story.claim(name, LeaseSeconds=seconds, **UNMOUNTED)
    story.ask("PUT", "/v1/volume/csi/lease-renewed/claim/alloc-lease-renewed/renew", {"LeaseSeconds": 7_200})
    for number in (1, 2, 3, 4):
        story.create(f"spared-{number}")
        story.claim(f"spared-{number}", f"node-s{number}", **({"LeaseSeconds": 60} if number == 1 else {}))
    # An operator releases a claim without waiting for its node.
    with story.still():
        query = "node=node-dead&force=true"
        story.system.call("DELETE", "/v1/volume/csi/dead-unproven/detach", query=query, headers=NOT_WAITING)


def tell_storages(story: Story) -> None:
    """Let several volumes name one storage, and deregister one of them while a past claim counts on it."""
    deps = story.system.deps
    deps.storages.begin_upgrade(deps.clock.now())
    deps.storages.advance_upgrade("default#shared-1")
    share = Stored("share", "share", 1024)
    story.system.provider.volumes[share.id] = share
    for number in (1, 2, 3):
        body = definition(f"shared-{number}", PluginID="files", ExternalID=share.id)
        story.ask("PUT", f"/v1/volume/csi/shared-{number}", body)
    story.claim("shared-1")
    with story.still():
        story.system.call("DELETE", "/v1/volume/csi/shared-1/claim/alloc-shared-1", headers=NOT_WAITING)
    story.ask("DELETE", "/v1/volume/csi/shared-1", query="force=true")
    late = story.begin("PUT", "/v1/volume/csi/late/create", definition("late", PluginID="ebs"))
    story.work(late, Strike("CreateVolume", doubt, after=True))
    story.finish(late)
    story.create("left")
    story.ask("DELETE", "/v1/volume/csi/left")


def tell_under_way(story: Story) -> None:
    """Leave the traces of writers and readers that were killed a moment ago."""
    system = story.system
    system.provider.volumes["half-known"] = Stored("half-known", "half-known", 1024)
    for name in ("half-known", "not-known"):
        body = definition(name, PluginID="ebs", ExternalID=name)
        with dying(system, "TransactWriteItems", 1, after=name == "half-known"):
            system.call("PUT", f"/v1/volume/csi/{name}", body)
    story.create("half-claimed", plugin="files")
    with dying(system, "TransactWriteItems", 1, after=True):
        system.call("PUT", "/v1/volume/csi/half-claimed/claim", claim_body("half-claimed", **UNMOUNTED))
    with dying(system, "PutItem", 1, after=True):
        system.call("PUT", "/v1/namespace/half-made", {"Name": "half-made"})
    with dying(system, "UpdateItem", 1):
        system.call("DELETE", "/v1/namespace/going")
    index = story.ask("GET", "/v1/volumes", query="type=csi").headers["X-Nomad-Index"]
    with dying(system, "DeleteItem", 1), story.still():
        system.call("GET", "/v1/volumes", query=f"type=csi&index={index}&wait=1s")


def tell_audits(story: Story) -> None:
    """Leave an audit that is done and has findings of every kind, one that failed, and one whose function died."""
    system = story.system
    for name in ("files-orphan", "files-snapped"):
        story.create(name, plugin="files")
    snapshot = system.provider.snapshots[story.snapshot("files-snapped")]
    for name in ("files-orphan", "files-snapped"):
        story.ask("DELETE", f"/v1/volume/csi/{name}")
    held = story.begin("PUT", "/v1/volume/csi/files-held/create", definition("files-held", PluginID="files"))
    story.work(held, Strike("CreateVolume", doubt, after=True))
    orphan = next(one.id for one in system.provider.volumes.values() if one.name.startswith("files-orphan"))
    system.plugin_queries.answers["list_volumes"] = _listing(
        {"external_id": one, "context": None} for one in (orphan, story.operation(held).storage_name, "of-nobody")
    )
    system.plugin_queries.answers["list_snapshots"] = _listing(
        [{"id": snapshot.id, "source": snapshot.source}, {"id": "of-nobody", "source": "of-nobody"}]
    )
    system.call("PUT", "/v1/audit/files")
    with _small_parts():
        audit.run(system.deps, *system.plugin_queries.audits.pop())
    story.remove("files-orphan", "files-snapped")

    def refuse(**_: Any) -> Any:
        raise PluginRejected("the plugin has no list today", code="INTERNAL")

    system.plugin_queries.answers["list_volumes"] = refuse
    system.call("PUT", "/v1/audit/split")
    audit.run(system.deps, *system.plugin_queries.audits.pop())
    system.plugin_queries.answers.clear()
    system.call("PUT", "/v1/audit/ebs")


def _listing(entries: Any) -> Callable[..., Any]:
    found = list(entries)
    return lambda **_: {"entries": found, "next_token": ""}


@contextmanager
def _small_parts() -> Iterator[None]:
    """Store few findings in each part of a report, so that it has several parts."""
    usual = audits.PART
    audits.PART = 3  # type: ignore[misc]
    yield
    audits.PART = usual  # type: ignore[misc]
