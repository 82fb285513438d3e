"""The shapes and keys of the items of every table. tests/baseline/rows.py reads them back.

| table | pk | sk | item |
|---|---|---|---|
| volumes | `ns#<namespace>` | `<volume id>` | VolumeRow, kept as a tombstone for a day after its deletion |
| volumes | `plugin#<plugin id>` | `<namespace>#<volume id>` | MemberRow, in the volume's transaction |
| volumes | `storage#<hash of plugin and external id>` | `-` | StorageRow: the records that name a storage |
| claims | `vol#<namespace>#<volume id>` | `<allocation id>` | ClaimRow |
| claims | `node#<node id>` | `<namespace>#<volume id>\\n<allocation id>` | NodeClaimRow, in the claim's transaction |
| claims | `stale#<hash of the place>` | `<namespace>#<volume id>\\n<allocation id>` | StaleMountRow: a claim left it |
| operations | `lease#<hash of the claim>` | `-` | LeaseRow: when a claim that must be renewed runs out |
| operations | `op#<last letter of the id>` | `<operation id>` | OperationRow. IDs sort by time |
| operations | `lock#<hash of the subject>` | `-` | LockRow: the open operation that holds a subject |
| operations | `turn#<hash of the subject>` | `-` | TurnRow: whose call is in flight, and which operations wait |
| plugins | `plugin` | `<plugin id>` | PluginRow: counts, changed in one transaction with the instances |
| plugins | `instance#<plugin id>` | `<node id>` | InstanceRow |
| plugins | `node` | `<node id>` | NodeRow |
| meta | `index` | `index` | the index item: `seq`, `pub#<scope>`, `pend#<id>`, `at#<id>` (store/index.py) |
| meta | `namespace` | `<name>` | NamespaceRow. `default` exists without one |
| meta | `wait#<number>` | `-` | WaitRow: one of the places for waiting readers (store/waits.py) |
| meta | `audit#<plugin id>` | `last`, `<run>#<number>` | AuditRow: the last audit, and parts of its findings |
| meta | `worker` | `tls` | TrustRow: the CA, and the worker's certificate (docs/interfaces.md, section 3) |
| meta | `operations` | `changes` | ChangesRow: how often any operation changed (store/operations.py) |
| meta | `sweep` | `nodes` | SweepRow: when the nodes were swept the last time (store/plugins.py) |
| meta | `sweep` | `deaf` | MissedHeartbeatRow: when the control plane missed a heartbeat the last time |
| meta | `sweep` | `counters` | CheckRow: how far the claim counters have been checked (store/volumes.py) |
| meta | `sweep` | `storages` | UpgradeRow: whether every record of an older version is in its storage's item |

No namespace has a `#` in its name, so a key is unambiguous for every volume ID. A request that names such a namespace
finds nothing. `schema` is the number of the item's shape. A reader refuses an item with a larger one: writing it back
would lose what this code does not know.

Stored names never change. A Python name that differs from the stored one gives the latter as `attr_name`.
"""

import hashlib
from typing import Any, Final

from pynamodb.attributes import (
    BinaryAttribute,
    BooleanAttribute,
    ListAttribute,
    NumberAttribute,
    UnicodeAttribute,
    UnicodeSetAttribute,
)
from pynamodb.models import Model

SCHEMA: Final = 1
TOMBSTONE_SECONDS: Final = 24 * 3600
DUE_BUCKET: Final = "open"
LEASE_BUCKET: Final = "leases"
DUE_GSI: Final = "due"


def _name(namespace: str) -> str:
    """Return the namespace as it stands in keys. One with a `#`, which no namespace has, becomes the key of no item."""
    return namespace.replace("#", "%23")


def volumes_pk(namespace: str) -> str:
    return f"ns#{_name(namespace)}"


def members_pk(plugin_id: str) -> str:
    return f"plugin#{plugin_id}"


def member_sk(namespace: str, volume_id: str) -> str:
    return f"{_name(namespace)}#{volume_id}"


def member_of(text: str) -> tuple[str, str]:
    """Return the namespace and the volume ID of a text that `member_sk` made."""
    namespace, _, volume_id = text.partition("#")
    return namespace, volume_id


def storage_pk(plugin_id: str, external_id: str) -> str:
    return "storage#" + hashlib.sha256(f"{plugin_id}\n{external_id}".encode()).hexdigest()


def claims_pk(namespace: str, volume_id: str) -> str:
    return f"vol#{_name(namespace)}#{volume_id}"


def node_claims_pk(node_id: str) -> str:
    return f"node#{node_id}"


def node_claims_sk(namespace: str, volume_id: str, allocation_id: str) -> str:
    """Return the sort key of a claim in its node's list. `\n` separates, since IDs have no control characters."""
    return f"{_name(namespace)}#{volume_id}\n{allocation_id}"


def stale_mounts_pk(plugin_id: str, external_id: str, node_id: str) -> str:
    return "stale#" + hashlib.sha256(f"{plugin_id}\n{external_id}\n{node_id}".encode()).hexdigest()


def lease_pk(namespace: str, volume_id: str, allocation_id: str) -> str:
    return "lease#" + hashlib.sha256(node_claims_sk(namespace, volume_id, allocation_id).encode()).hexdigest()


def operation_pk(operation_id: str) -> str:
    return f"op#{operation_id[-1:]}"


def lock_pk(subject: str) -> str:
    return "lock#" + hashlib.sha256(subject.encode()).hexdigest()


def turn_pk(subject: str) -> str:
    return "turn#" + hashlib.sha256(subject.encode()).hexdigest()


def wait_pk(number: int) -> str:
    return f"wait#{number}"


def instances_pk(plugin_id: str) -> str:
    return f"instance#{plugin_id}"


def audits_pk(plugin_id: str) -> str:
    return f"audit#{plugin_id}"


PLUGINS_PK: Final = "plugin"
NODES_PK: Final = "node"
NAMESPACES_PK: Final = "namespace"


class Row(Model):
    """The attributes of every item."""

    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    schema = NumberAttribute(default=SCHEMA)
    expires_at = NumberAttribute(null=True)


class VolumeRow(Row):
    class Meta:
        table_name = "volumes"

    state = UnicodeAttribute()
    revision = NumberAttribute(default=0)
    plugin_id = UnicodeAttribute(null=True)
    operation_id = UnicodeAttribute(null=True)
    operation_kind = UnicodeAttribute(null=True)
    create_index = NumberAttribute(default=0)
    modify_index = NumberAttribute(default=0)
    create_time = NumberAttribute(default=0)
    modify_time = NumberAttribute(default=0)
    calls_until = NumberAttribute(null=True)
    access_mode = UnicodeAttribute(null=True)
    attachment_mode = UnicodeAttribute(null=True)
    readers = NumberAttribute(default=0)
    writers = NumberAttribute(default=0)
    past_claims = NumberAttribute(default=0)
    shared = BooleanAttribute(null=True)
    secrets = BinaryAttribute(legacy_encoding=False, null=True)
    definition = UnicodeAttribute(null=True)


class MemberRow(Row):
    class Meta:
        table_name = "volumes"


class StorageRow(Row):
    class Meta:
        table_name = "volumes"

    plugin_id = UnicodeAttribute()
    external_id = UnicodeAttribute()
    state = UnicodeAttribute()
    records = UnicodeSetAttribute(null=True)
    departed = UnicodeSetAttribute(null=True)
    operation_id = UnicodeAttribute(null=True)
    create_until = NumberAttribute(null=True)
    until = NumberAttribute(null=True)
    kept = BooleanAttribute(null=True)
    shared = BooleanAttribute(null=True)
    access_mode = UnicodeAttribute(null=True)
    attachment_mode = UnicodeAttribute(null=True)
    readers = NumberAttribute(default=0)
    writers = NumberAttribute(default=0)
    version = UnicodeAttribute()


class ClaimRow(Row):
    class Meta:
        table_name = "claims"

    state = UnicodeAttribute()
    node_id = UnicodeAttribute()
    mode = UnicodeAttribute()
    body = UnicodeAttribute()
    operation_id = UnicodeAttribute(null=True)
    published = BooleanAttribute(default=False)
    node = UnicodeAttribute(null=True)
    node_lost = BooleanAttribute(default=False)
    publish_context = UnicodeAttribute(null=True)
    create_index = NumberAttribute(default=0)
    modify_index = NumberAttribute(default=0)


class NodeClaimRow(Row):
    class Meta:
        table_name = "claims"


class StaleMountRow(Row):
    class Meta:
        table_name = "claims"

    node = UnicodeAttribute()
    staging_path = UnicodeAttribute()
    target_path = UnicodeAttribute()


class LeaseRow(Row):
    class Meta:
        table_name = "operations"

    claim = UnicodeAttribute()
    seconds = NumberAttribute()
    due_bucket = UnicodeAttribute()
    due_at = NumberAttribute()


class OperationRow(Row):
    class Meta:
        table_name = "operations"

    kind = UnicodeAttribute()
    status = UnicodeAttribute()
    step = UnicodeAttribute()
    namespace = UnicodeAttribute()
    volume_id = UnicodeAttribute()
    plugin_id = UnicodeAttribute()
    digest = UnicodeAttribute()
    storage_name = UnicodeAttribute(null=True)
    external_id = UnicodeAttribute(null=True)
    subject = UnicodeAttribute(null=True)
    definition = UnicodeAttribute(null=True)
    params = UnicodeAttribute(null=True)
    result = UnicodeAttribute(null=True)
    secrets = BinaryAttribute(legacy_encoding=False, null=True)
    attempt = NumberAttribute(default=0)
    tries = NumberAttribute(default=0)
    unanswered = NumberAttribute(default=0)
    calls_until = NumberAttribute(default=0)
    lease_until = NumberAttribute(default=0)
    not_before = NumberAttribute(default=0)
    error = UnicodeAttribute(null=True)
    last_error = UnicodeAttribute(null=True)
    create_time = NumberAttribute(default=0)
    update_time = NumberAttribute(default=0)
    due_bucket = UnicodeAttribute(null=True)
    due_at = NumberAttribute(null=True)


class LockRow(Row):
    class Meta:
        table_name = "operations"

    operation_id = UnicodeAttribute()


class TurnRow(Row):
    class Meta:
        table_name = "operations"

    holder = UnicodeAttribute()
    until = NumberAttribute()
    waiting = UnicodeSetAttribute(null=True)


class PluginRow(Row):
    class Meta:
        table_name = "plugins"

    body = UnicodeAttribute()
    """The last instance that registered, as JSON."""
    controller_body = UnicodeAttribute(null=True)
    """The last one with a controller: the plugin may also have instances without."""
    node_body = UnicodeAttribute(null=True)
    create_time = NumberAttribute(default=0)
    revision = NumberAttribute(default=0)
    controllers_healthy = NumberAttribute(default=0)
    controllers_expected = NumberAttribute(default=0)
    nodes_healthy = NumberAttribute(default=0)
    nodes_expected = NumberAttribute(default=0)
    instances = NumberAttribute(default=0)
    create_index = NumberAttribute(default=0)
    modify_index = NumberAttribute(default=0)


class InstanceRow(Row):
    class Meta:
        table_name = "plugins"

    body = UnicodeAttribute()
    healthy = BooleanAttribute()
    controller = BooleanAttribute()
    node = BooleanAttribute()


class NodeRow(Row):
    class Meta:
        table_name = "plugins"

    body = UnicodeAttribute()
    key = UnicodeAttribute()
    instance_id = UnicodeAttribute()
    sequence = NumberAttribute()
    seen_at = NumberAttribute()
    healthy = BooleanAttribute()
    down_since = NumberAttribute(null=True)
    claims_kept = BooleanAttribute(attr_name="spared", null=True)
    create_index = NumberAttribute(default=0)
    modify_index = NumberAttribute(default=0)


class NamespaceRow(Row):
    class Meta:
        table_name = "meta"

    state = UnicodeAttribute()
    body = UnicodeAttribute()
    create_index = NumberAttribute(default=0)
    modify_index = NumberAttribute(default=0)


class IndexRow(Row):
    class Meta:
        table_name = "meta"


class WaitRow(Row):
    class Meta:
        table_name = "meta"

    holder = UnicodeAttribute()
    until = NumberAttribute()


class AuditRow(Row):
    class Meta:
        table_name = "meta"

    body = UnicodeAttribute()
    started = NumberAttribute()


class TrustRow(Row):
    class Meta:
        table_name = "meta"

    ca_pem = UnicodeAttribute()
    certificate_pem = UnicodeAttribute(null=True)
    sealed_key = BinaryAttribute(legacy_encoding=False, null=True)
    serial = UnicodeAttribute(null=True)
    not_after = NumberAttribute(null=True)
    refused: ListAttribute[Any] = ListAttribute(null=True)


class SweepRow(Row):
    class Meta:
        table_name = "meta"

    swept_at = NumberAttribute()
    fresh_since = NumberAttribute()
    leases_since = NumberAttribute(null=True)


class ChangesRow(Row):
    class Meta:
        table_name = "meta"

    number = NumberAttribute(default=0)


class MissedHeartbeatRow(Row):
    class Meta:
        table_name = "meta"

    at = NumberAttribute()


class CheckRow(Row):
    class Meta:
        table_name = "meta"

    plugin_id = UnicodeAttribute()
    after = UnicodeAttribute(null=True)


class UpgradeRow(Row):
    class Meta:
        table_name = "meta"

    done = BooleanAttribute(null=True)
    since = NumberAttribute(null=True)
    after = UnicodeAttribute(null=True)


ROWS: Final[tuple[type[Row], ...]] = (
    VolumeRow,
    MemberRow,
    StorageRow,
    ClaimRow,
    NodeClaimRow,
    StaleMountRow,
    LeaseRow,
    OperationRow,
    LockRow,
    TurnRow,
    PluginRow,
    InstanceRow,
    NodeRow,
    NamespaceRow,
    IndexRow,
    WaitRow,
    AuditRow,
    TrustRow,
    SweepRow,
    ChangesRow,
    MissedHeartbeatRow,
    CheckRow,
    UpgradeRow,
)
TABLES: Final = ("volumes", "claims", "operations", "plugins", "meta", "acl")


def definitions(prefix: str) -> list[dict[str, Any]]:
    """Return CreateTable's arguments for every table, for stores without CloudFormation (DynamoDB Local, moto)."""
    out = []
    for name in TABLES:
        table: dict[str, Any] = {
            "TableName": prefix + name,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        }
        if name == "operations":
            table["AttributeDefinitions"] += [
                {"AttributeName": "due_bucket", "AttributeType": "S"},
                {"AttributeName": "due_at", "AttributeType": "N"},
            ]
            table["GlobalSecondaryIndexes"] = [
                {
                    "IndexName": DUE_GSI,
                    "KeySchema": [
                        {"AttributeName": "due_bucket", "KeyType": "HASH"},
                        {"AttributeName": "due_at", "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "ALL"},
                }
            ]
        out.append(table)
    return out
