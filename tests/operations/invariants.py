"""Find what is wrong when everything is at rest. After any faults, nothing may be (docs/protocols.md, section 3)."""

from chalicelib.domain.operation import Operation, Status
from chalicelib.domain.storage import Storage, StorageState
from chalicelib.domain.volume import Volume, VolumeState
from chalicelib.store import tables
from chalicelib.store.dynamo import load
from chalicelib.store.operations import operation_of
from chalicelib.store.tables import StaleMountRow, StorageRow
from tests.harness import System


def violations(system: System) -> list[str]:
    """Return everything that is wrong, in words.

    That is storage without a volume, a volume without storage, a volume or an operation that is stuck, a lock without a
    holder, a claim that is counted or mounted wrongly, an index that was allocated and not published, and a storage
    that does not name exactly its volumes, or counts other claims than they have.
    """
    found: list[str] = []
    names = {"default", *(namespace.name for namespace in system.deps.namespaces.all())}
    volumes = [v for name in sorted(names) for page in system.deps.volumes.in_namespace(name) for v in page]
    registered = {storage_of(v) for v in volumes if v.exists}
    kept = {s.external_id for s in all_storages(system) if s.kept}
    operations = all_operations(system)
    named = {o.storage_name for o in operations if o.open} | {o.external_id for o in operations if o.open}
    found += [
        f"orphan: the provider has {stored.name}, which nothing here names"
        for stored in system.provider.volumes.values()
        if stored.id not in registered and not {stored.id, stored.name} & named and stored.id not in kept
    ]
    found += [
        f"phantom: {v.id} has no storage" for v in volumes if v.exists and storage_of(v) not in system.provider.volumes
    ]
    found += [f"stuck: {v.id} is {v.state}" for v in volumes if v.state not in (VolumeState.READY, VolumeState.GONE)]
    found += [f"held: {v.id} by {v.operation_id}" for v in volumes if v.operation_id]
    found += [
        f"open: {o.kind} is {o.status} ({o.last_error})"
        for o in operations
        if o.status is not Status.SUCCEEDED and o.open
    ]
    scan = system.deps.dynamo.client.scan(TableName="moorage-test-operations")["Items"]
    found += ["a lock is left" for item in scan if item["pk"]["S"].startswith("lock#")]
    found += [wrong for v in volumes for wrong in wrong_claims(system, v)]
    found += wrong_storages(system, [v for v in volumes if v.exists])
    return found + [f"unpublished: {name}" for name in unpublished(system)]


def storage_of(volume: Volume) -> str:
    """Return the volume's ID at its provider: its own ID, if it was registered without another."""
    return volume.definition.external_id or volume.id


def wrong_claims(system: System, volume: Volume) -> list[str]:
    """Compare the claims with the volume's counters and modes, and with the provider's attachments and mounts."""
    claims = system.deps.claims.of_volume(volume.namespace, volume.id)
    found = []
    counted = (volume.readers, volume.writers, volume.past_claims)
    real = (sum(not c.writes for c in claims), sum(c.writes for c in claims), sum(not c.live for c in claims))
    if counted != real:
        found.append(f"{volume.id} counts {counted} and has {real}")
    if bool(volume.access_mode) != bool(claims):
        found.append(f"{volume.id} is {volume.access_mode!r} with {len(claims)} claims")
    nodes = {c.external_node_id for c in claims}
    places = {(c.node_id, path) for c in claims for path in (c.staging_path, c.target_path)}
    found += [
        f"attached without a claim: {external_id} on {node}"
        for external_id, node in system.provider.attached
        if external_id == volume.definition.external_id and node not in nodes
    ]
    found += [
        f"mounted without a claim: {external_id} at {node}:{path}"
        for external_id, node, path in system.provider.mounted
        if external_id == volume.definition.external_id
        and (node, path) not in places
        and path not in stale_paths(system, volume, node)
    ]
    held = {
        (ns, vol, alloc) for node in {c.node_id for c in claims} for ns, vol, alloc in system.deps.claims.on_node(node)
    }
    found += [
        f"claim of {c.allocation_id} is not held by its node"
        for c in claims
        if (c.namespace, c.volume_id, c.allocation_id) not in held
    ]
    return found


def wrong_storages(system: System, volumes: list[Volume]) -> list[str]:
    """Compare the storages' items with the volumes that exist and with their claims."""
    found = []
    storages = {(s.plugin_id, s.external_id): s for s in all_storages(system)}
    for volume in volumes:
        storage = storages.pop((volume.plugin_id, storage_of(volume)), None)
        if storage is None or (volume.namespace, volume.id) not in storage.records:
            found.append(f"unowned: {storage} does not name {volume.id}")
            continue
        storages[volume.plugin_id, storage_of(volume)] = storage
        if volume.shared != storage.shared:
            found.append(f"{volume.id} is shared: {volume.shared}, and its storage: {storage.shared}")
    names = {(v.namespace, v.id) for v in volumes}
    for storage in storages.values():
        if not storage.records <= names:
            found.append(f"{storage.external_id} names {storage.records - names}, which are gone")
        if storage.state is StorageState.LEAVING:
            found.append(f"{storage.external_id} is leaving by {storage.operation_id}")
        claims = [c for place in storage.volumes for c in system.deps.claims.of_volume(*place)]
        claims = [c for c in claims if (c.plugin_id, c.external_id) == (storage.plugin_id, storage.external_id)]
        real = (sum(not c.writes for c in claims), sum(c.writes for c in claims))
        if storage.shared and (storage.readers, storage.writers) != real:
            found.append(f"{storage.external_id} counts {storage.readers, storage.writers} and has {real}")
    return found


def all_storages(system: System) -> list[Storage]:
    """Return every storage that has an item."""
    scan = system.deps.dynamo.client.scan(TableName="moorage-test-volumes")["Items"]
    rows = [load(StorageRow, item) for item in scan if item["pk"]["S"].startswith("storage#")]
    return [system.deps.storages.get(row.plugin_id, row.external_id) for row in rows if row is not None]


def stale_paths(system: System, volume: Volume, node_id: str) -> set[str]:
    """Return the paths on the node at which a stale mount of the volume is noted."""
    pk = tables.stale_mounts_pk(volume.plugin_id, volume.definition.external_id, node_id)
    rows = system.deps.dynamo.query(StaleMountRow, pk).rows
    return {path for row in rows for path in (row.staging_path, row.target_path)}


def at_rest(system: System) -> bool:
    """Return whether nothing will change any more by itself."""
    return not unpublished(system) and not any(o.open for o in all_operations(system))


def unpublished(system: System) -> list[str]:
    """Return the names of the writes that allocated an index and never published."""
    key = {"pk": {"S": "index"}, "sk": {"S": "index"}}
    item = system.deps.dynamo.client.get_item(TableName="moorage-test-meta", Key=key).get("Item", {})
    return [name for name in item if name.startswith("pend#")]


def all_operations(system: System) -> list[Operation]:
    scan = system.deps.dynamo.client.scan(TableName="moorage-test-operations")["Items"]
    return [found for item in scan if item["pk"]["S"].startswith("op#") and (found := operation_of(item)) is not None]
