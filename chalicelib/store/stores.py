"""Every store of one stage."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

from chalicelib.clock import Clock
from chalicelib.store.claims import ClaimStore
from chalicelib.store.commit import Commit, Committer
from chalicelib.store.dynamo import Dynamo
from chalicelib.store.index import IndexStore
from chalicelib.store.namespaces import NamespaceStore
from chalicelib.store.operations import OperationStore
from chalicelib.store.plugins import PluginStore
from chalicelib.store.storages import StorageStore
from chalicelib.store.volumes import VolumeStore


@dataclass(frozen=True)
class Stores:
    """The stores of one stage on one client, and their clock."""

    clock: Clock
    dynamo: Dynamo
    index: IndexStore
    committer: Committer
    volumes: VolumeStore
    claims: ClaimStore
    operations: OperationStore
    plugins: PluginStore
    namespaces: NamespaceStore
    storages: StorageStore

    def parts(self) -> dict[str, Any]:
        """Return the stores by name, for a larger collection that is built on them."""
        return {part.name: getattr(self, part.name) for part in fields(Stores)}


def open_stores(
    table: Callable[[str], str], *, region: str, clock: Clock, listeners: Iterable[Callable[[Commit], None]] = ()
) -> Stores:
    """Build the stores on the tables that `table` names. `listeners` are called after each change that clients see."""
    dynamo = Dynamo(table, region=region, sleep=clock.sleep, jitter=clock.jitter)
    index = IndexStore(dynamo)
    committer = Committer(dynamo, index, clock, listeners=listeners)
    return Stores(
        clock=clock,
        dynamo=dynamo,
        index=index,
        committer=committer,
        volumes=VolumeStore(dynamo),
        claims=ClaimStore(dynamo),
        operations=OperationStore(dynamo),
        plugins=PluginStore(dynamo, committer),
        namespaces=NamespaceStore(dynamo),
        storages=StorageStore(dynamo),
    )
