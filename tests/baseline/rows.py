"""The forms of keys, and a baseline's items as rows."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from chalicelib.store import dynamo, tables
from chalicelib.store.tables import (
    AuditRow,
    ChangesRow,
    CheckRow,
    ClaimRow,
    IndexRow,
    InstanceRow,
    LeaseRow,
    LockRow,
    MemberRow,
    MissedHeartbeatRow,
    NamespaceRow,
    NodeClaimRow,
    NodeRow,
    OperationRow,
    PluginRow,
    Row,
    StaleMountRow,
    StorageRow,
    SweepRow,
    TrustRow,
    TurnRow,
    UpgradeRow,
    VolumeRow,
    WaitRow,
)
from tests.baseline.files import Baseline, Item


@dataclass(frozen=True)
class Key:
    """Keys of one form. `parts` are the names in store/tables.py that make them."""

    table: str
    pk: str
    sk: str
    row: type[Row]
    parts: tuple[str, ...] = ()

    def fits(self, table: str, pk: str, sk: str) -> bool:
        return table == self.table and bool(re.fullmatch(self.pk, pk) and re.fullmatch(self.sk, sk, re.DOTALL))

    @property
    def name(self) -> str:
        return f"{self.row.__name__} at {self.table}: {self.pk} {self.sk}"


KEYS: Final = (
    Key("volumes", r"ns#[^#]+", r".+", VolumeRow, ("volumes_pk",)),
    Key("volumes", r"plugin#.+", r"[^#]+#.+", MemberRow, ("members_pk", "member_sk")),
    Key("volumes", r"storage#[0-9a-f]{64}", r"-", StorageRow, ("storage_pk",)),
    Key("claims", r"vol#[^#]+#.+", r".+", ClaimRow, ("claims_pk",)),
    Key("claims", r"node#.+", r"[^#]+#.+\n.+", NodeClaimRow, ("node_claims_pk", "node_claims_sk")),
    Key("claims", r"stale#[0-9a-f]{64}", r"[^#]+#.+\n.+", StaleMountRow, ("stale_mounts_pk", "node_claims_sk")),
    Key("operations", r"lease#[0-9a-f]{64}", r"-", LeaseRow, ("lease_pk",)),
    Key("operations", r"op#[a-z]", r"[a-z]{22}", OperationRow, ("operation_pk",)),
    Key("operations", r"lock#[0-9a-f]{64}", r"-", LockRow, ("lock_pk",)),
    Key("operations", r"turn#[0-9a-f]{64}", r"-", TurnRow, ("turn_pk",)),
    Key("plugins", r"plugin", r".+", PluginRow, ("PLUGINS_PK",)),
    Key("plugins", r"instance#.+", r".+", InstanceRow, ("instances_pk",)),
    Key("plugins", r"node", r".+", NodeRow, ("NODES_PK",)),
    Key("meta", r"index", r"index", IndexRow),
    Key("meta", r"namespace", r".+", NamespaceRow, ("NAMESPACES_PK",)),
    Key("meta", r"wait#\d+", r"-", WaitRow, ("wait_pk",)),
    Key("meta", r"audit#.+", r"last", AuditRow, ("audits_pk",)),
    Key("meta", r"audit#.+", r"[a-z]{22}#\d{6}", AuditRow, ("audits_pk",)),
    Key("meta", r"worker", r"tls", TrustRow),
    Key("meta", r"operations", r"changes", ChangesRow),
    Key("meta", r"sweep", r"nodes", SweepRow),
    Key("meta", r"sweep", r"deaf", MissedHeartbeatRow),
    Key("meta", r"sweep", r"counters", CheckRow),
    Key("meta", r"sweep", r"storages", UpgradeRow),
)


@dataclass(frozen=True)
class Rows:
    """A baseline's items as rows, by class. `moment` is when they were read, in seconds since the epoch."""

    moment: float
    items: Mapping[type[Row], list[Any]]

    @classmethod
    def of(cls, baseline: Baseline) -> "Rows":
        found: dict[type[Row], list[Any]] = defaultdict(list)
        for table, items in baseline.rows.items():
            for item in items:
                row = key_of(table, item).row
                found[row].append(item if row is IndexRow else dynamo.load(row, item))
        return cls(baseline.moment, found)

    def claims_of(self, operation: OperationRow) -> list[ClaimRow]:
        return [claim for claim in self.items[ClaimRow] if claim.operation_id == operation.sk]

    def volume_of(self, claim: ClaimRow) -> VolumeRow | None:
        namespace, _, volume_id = claim.pk.removeprefix("vol#").partition("#")
        place = tables.volumes_pk(namespace), volume_id
        return next((volume for volume in self.items[VolumeRow] if (volume.pk, volume.sk) == place), None)


def key_of(table: str, item: Item) -> Key:
    """Return the form of the item's key. Exactly one must fit."""
    fitting = [key for key in KEYS if key.fits(table, item["pk"]["S"], item["sk"]["S"])]
    assert len(fitting) == 1, f"{item['pk']} {item['sk']} in {table} is of {len(fitting)} forms: {fitting}"
    return fitting[0]
