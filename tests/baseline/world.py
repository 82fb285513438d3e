"""A control plane in this process whose tables can be filled with a baseline's rows, and whose key is known."""

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, Final

import pytest

from chalicelib import wiring
from chalicelib.store.tables import TABLES
from chalicelib.sweeps import storages
from tests import harness
from tests.baseline.files import Baseline, Item
from tests.emulated import aws
from tests.fakes import kms
from tests.fakes.clock import FakeClock
from tests.fakes.provider import FakeProvider, Stored
from tests.harness import System

MOST_IN_A_BATCH: Final = 25
"""AWS: BatchWriteItem."""


@contextmanager
def empty_world(clock: FakeClock | None = None, *, wait_seconds: float = 25.0) -> Iterator[System]:
    """Build a control plane without rows.

    Secrets are sealed under the key of tests/fakes/kms.py, because the rows of a baseline hold ciphertext that its
    version wrote, and today's version must open it.
    """
    with aws() as place, kms.serving() as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_KMS", endpoint)
        system = harness.make_system(
            patch, replace(place, key_arn=kms.KEY_ARN), wait_seconds=wait_seconds, clock=clock or FakeClock()
        )
        patch.setattr(wiring, "queue", lambda: system.queue)
        _with_own_tokens(system)
        yield system
        harness.forget()


def _with_own_tokens(system: System) -> None:
    """Salt the tokens of transactions with a value of this world.

    The emulator remembers tokens after their tables are gone, and one test after the other runs operations with the
    same IDs.
    """
    salt = secrets.token_hex(4)

    def salted(params: dict[str, Any], **_: Any) -> None:
        token = hashlib.sha256((salt + params["ClientRequestToken"]).encode()).hexdigest()
        params["ClientRequestToken"] = token[:36]

    system.deps.dynamo.client.meta.events.register("before-parameter-build.dynamodb.TransactWriteItems", salted)


@contextmanager
def loaded_world(baseline: Baseline, *, wait_seconds: float = 25.0) -> Iterator[System]:
    """Build a control plane with all rows of the baseline, at the moment at which they were read."""
    with empty_world(wait_seconds=wait_seconds) as system:
        load(system, baseline)
        yield system


def upgrade(system: System) -> None:
    """Let the sweep add the volumes of the baseline's version to their storages, when that cannot run any more."""
    storages.sweep(system.deps)
    system.clock.moment += storages.OLD_CODE
    assert not storages.sweep(system.deps).left


def load(system: System, baseline: Baseline) -> None:
    """Put the rows into the empty tables, and set the clock and the provider to that moment."""
    put_rows(system, baseline.rows)
    system.clock.moment = baseline.moment
    provider = provider_of(baseline.provider)
    for name, value in vars(provider).items():
        setattr(system.provider, name, value)


def put_rows(system: System, rows: Mapping[str, Sequence[Item]]) -> None:
    client = system.deps.dynamo.client
    for table, items in rows.items():
        for first in range(0, len(items), MOST_IN_A_BATCH):
            requests = [{"PutRequest": {"Item": item}} for item in items[first : first + MOST_IN_A_BATCH]]
            assert not client.batch_write_item(RequestItems={table_name(system, table): requests})["UnprocessedItems"]


def read_rows(system: System) -> dict[str, list[Item]]:
    """Return every item of every table."""
    pages = system.deps.dynamo.client.get_paginator("scan").paginate
    return {
        table: [item for page in pages(TableName=table_name(system, table)) for item in page["Items"]]
        for table in TABLES
    }


def table_name(system: System, table: str) -> str:
    return system.deps.dynamo.table(table)


def described(provider: FakeProvider) -> dict[str, Any]:
    """Return the provider's storage, in JSON's types."""
    return {
        "attached": sorted(map(list, provider.attached)),
        "made": provider.made,
        "mounted": sorted(map(list, provider.mounted)),
        "snapshots": [asdict(stored) for stored in provider.snapshots.values()],
        "volumes": [asdict(stored) for stored in provider.volumes.values()],
    }


def provider_of(body: Mapping[str, Any]) -> FakeProvider:
    """Return the provider that `described` returned as JSON."""
    return FakeProvider(
        attached={(volume, node) for volume, node in body["attached"]},
        made=body["made"],
        mounted={(volume, node, path) for volume, node, path in body["mounted"]},
        snapshots={one["id"]: Stored(**one) for one in body["snapshots"]},
        volumes={one["id"]: Stored(**one) for one in body["volumes"]},
    )


def forget_mounts(system: System) -> None:
    """Remove the mounts of nodes that are not healthy, as if their machines were off."""
    off = {node.id for node in system.deps.plugins.nodes() if not node.healthy}
    system.provider.mounted -= {place for place in system.provider.mounted if place[1] in off}
