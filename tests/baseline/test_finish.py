"""Today's workers finish every operation that an earlier version began, at each of its steps."""

import base64
from collections.abc import Iterator

import pytest

from chalicelib.domain.operation import Status
from chalicelib.domain.secrets import encryption_context
from chalicelib.errors import StoreUnavailable
from chalicelib.operations import engine
from chalicelib.sealing import WORKER_KEY_CONTEXT
from moorage import certificates
from tests.baseline.files import Baseline
from tests.baseline.world import forget_mounts, upgrade
from tests.harness import System
from tests.operations.invariants import all_operations, unpublished, violations

HOUR = 3600


def test_every_open_operation_comes_to_its_end(world: System) -> None:
    """It succeeds, unless its client was told already that it failed. No storage is left without a record of it."""
    world.clock.moment += HOUR
    upgrade(world)
    begun = [operation for operation in all_operations(world) if operation.open]
    for operation in sorted(begun, key=lambda o: o.id):
        engine.run(world.context, operation.id)
        if is_in_doubt(world, operation.id):  # it was before, or is now, since so many workers died of it
            assert world.call("PUT", f"/v1/operation/{operation.id}/resume").status == 200
        world.pump()
    ended = {operation.id: operation for operation in all_operations(world)}
    assert {o.id: (o.kind, o.step, ended[o.id].status) for o in begun if ended[o.id].open} == {}
    assert {o.volume_id: ended[o.id].error for o in begun if ended[o.id].error != o.error} == {}
    assert world.deps.index.repair(world.clock.now()) > 0
    assert unpublished(world) == []
    forget_mounts(world)
    assert violations(world) == []


def is_in_doubt(world: System, operation_id: str) -> bool:
    found = world.deps.operations.get(operation_id)
    return found is not None and found.status is Status.IN_DOUBT


def test_secrets_that_an_earlier_version_sealed_are_opened(world: System) -> None:
    """These are the secrets of volumes, of requests and of the worker. None opens as another volume's."""
    sealer = world.sealer
    kept = [*_sealed(world)]
    assert len(kept) > 20
    for namespace, volume_id, sealed in kept:
        assert "user" in sealer.open_secrets(sealed, encryption_context(namespace, volume_id))
    identity = world.deps.namespaces.worker_identity()
    assert identity is not None
    key = sealer.open(identity.sealed_key, WORKER_KEY_CONTEXT)
    issued = certificates.check_pair(identity.ca_pem.encode(), identity.certificate_pem.encode(), key)
    assert issued.serial == identity.serial
    with pytest.raises(StoreUnavailable, match="belong to something else"):
        sealer.open_secrets(kept[0][2], encryption_context("another", "volume"))


def _sealed(world: System) -> Iterator[tuple[str, str, bytes]]:
    """Yield namespace, volume ID and ciphertext of everything that is sealed for a volume."""
    for name in ("default", "prod"):
        for page in world.deps.volumes.in_namespace(name):
            yield from ((v.namespace, v.id, v.sealed_secrets) for v in page if v.sealed_secrets)
    for operation in all_operations(world):
        for sealed in (operation.sealed_secrets, base64.b64decode(operation.params.get("volume_secrets") or "")):
            if sealed:
                yield operation.namespace, operation.volume_id, sealed


def test_a_request_that_is_sent_again_joins_its_operation(world: System, baseline: Baseline) -> None:
    """Clients repeat a request without an answer. The record of an earlier version must recognise it."""
    upgrade(world)
    known = {item["sk"]["S"] for item in baseline.rows["operations"]}
    wrong = []
    for one in baseline.repeats:
        said = world.call(one.method, one.path, one.body.encode(), query=one.query, headers=one.headers)
        ids = said.json["Operations"] if said.status == 202 else said.body
        wanted = one.json["Operations"] if one.status == 202 else one.text
        # An operation that undoes is not joined: the same create begins a new one, under another ID.
        same = ids == wanted or (one.status == 202 and not known & {*ids, *wanted})
        if (said.status, same) != (one.status, True):
            wrong.append((one.what, said.status, said.body))
    assert wrong == []
