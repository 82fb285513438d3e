"""What must be true when everything is at rest, whatever happened before (protocols, section 3)."""

from chalicelib.domain.operation import Operation, Status
from chalicelib.domain.volume import VolumeState
from chalicelib.store.operations import operation_of
from tests.harness import System


def violations(system: System) -> list[str]:
    """Everything that is wrong: orphans, phantoms, volumes and operations that are stuck, locks without holder."""
    found: list[str] = []
    volumes = [v for page in system.deps.volumes.in_namespace("default") for v in page]
    registered = {v.external_id for v in volumes if v.exists}
    operations = all_operations(system)
    named = {o.storage_name for o in operations if o.open} | {o.external_id for o in operations if o.open}
    found += [
        f"orphan: the provider has {stored.name}, which nothing here names"
        for stored in system.provider.volumes.values()
        if stored.id not in registered and not {stored.id, stored.name} & named
    ]
    found += [
        f"phantom: {v.id} has no storage" for v in volumes if v.exists and v.external_id not in system.provider.volumes
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
    return found + [f"unpublished: {name}" for name in unpublished(system)]


def at_rest(system: System) -> bool:
    """Nothing will change any more by itself."""
    return not unpublished(system) and not any(o.open for o in all_operations(system))


def unpublished(system: System) -> list[str]:
    """Writes that allocated an index and never published."""
    key = {"pk": {"S": "index"}, "sk": {"S": "index"}}
    item = system.deps.dynamo.client.get_item(TableName="moorage-test-meta", Key=key).get("Item", {})
    return [name for name in item if name.startswith("pend#")]


def all_operations(system: System) -> list[Operation]:
    scan = system.deps.dynamo.client.scan(TableName="moorage-test-operations")["Items"]
    return [found for item in scan if item["pk"]["S"].startswith("op#") and (found := operation_of(item)) is not None]
