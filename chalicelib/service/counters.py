"""Compare a volume's claim counters, which decide who may claim it, with its claims (docs/protocols.md, section 2).

The counters change in one transaction with the claims. So they differ only after a record was restored or edited by
hand. They are checked all the same: some volumes at each sweep (sweeps/counters.py), and one volume before a request
is refused because the volume is in use.
"""

from chalicelib import log
from chalicelib.domain.storage import record_of, storage_of
from chalicelib.domain.volume import Volume
from chalicelib.service.deps import Deps
from chalicelib.store import claims as claim_store
from chalicelib.store import ownership
from chalicelib.store.commit import Change, RefusedWrites
from chalicelib.store.index import volume_scope


def repair(deps: Deps, volume: Volume) -> bool:
    """Set the volume's counters to the numbers of its claims, if they differ. Return whether they were repaired.

    The volume must have been read strongly before this call. The write is refused if the volume changed since then, so
    no claim can come between the two reads.
    """
    claims = [c for c in deps.claims.of_volume(volume.namespace, volume.id) if c.is_on(volume)]
    readers, writers = sum(not c.writes for c in claims), sum(c.writes for c in claims)
    past = sum(not c.live for c in claims)
    if (readers, writers, past) == (volume.readers, volume.writers, volume.past_claims):
        return False

    def build(refused: RefusedWrites) -> Change[bool]:
        if refused:
            # A claim came or went, so the counts are outdated. The next check counts again.
            return Change(False)
        return Change(
            True,
            lambda index: [claim_store.correct_counters(volume, index, readers=readers, writers=writers, past=past)],
        )

    _, repaired = deps.committer.commit(volume_scope(volume.namespace), build=build, what=f"volume {volume.id}")
    if not repaired:
        return False
    log.line(
        "counters repaired",
        namespace=volume.namespace,
        volume_id=volume.id,
        were=f"{volume.readers} readers, {volume.writers} writers, {volume.past_claims} past",
        are=f"{readers} readers, {writers} writers, {past} past",
    )
    return True


def repair_storage(deps: Deps, volume: Volume) -> bool:
    """Set the counters of the volume's storage to the numbers of its claims, and return whether they were wrong.

    This reads the claims of every record of the storage, so it is not for a request.
    """
    storage = ownership.shared_by(deps, volume)
    # The storage was read first: a claim that comes after that changes its version, and so refuses the write.
    if storage is None or record_of(volume) != min(storage.records, default=None):
        return False  # each storage is counted once, not for each of its records
    claims = [c for place in sorted(storage.volumes) for c in deps.claims.of_volume(*place)]
    on_it = [c for c in claims if storage_of(c) == (storage.plugin_id, storage.external_id)]
    readers, writers = sum(not c.writes for c in on_it), sum(c.writes for c in on_it)
    if (readers, writers) == (storage.readers, storage.writers):
        return False
    repaired = deps.dynamo.try_write(ownership.recount(deps, storage, readers=readers, writers=writers))
    if repaired:
        log.line(
            "storage counters repaired",
            plugin_id=storage.plugin_id,
            external_id=storage.external_id,
            were=f"{storage.readers} readers, {storage.writers} writers",
            are=f"{readers} readers, {writers} writers",
        )
    return repaired
