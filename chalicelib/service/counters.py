"""Compare a volume's claim counters, which decide who may claim it, with its claims (docs/protocols.md, section 2).

The counters change in one transaction with the claims. So they differ only after a record was restored or edited by
hand. They are checked all the same: some volumes at each sweep (sweeps/counters.py), and one volume before a request
is refused because the volume is in use.
"""

from chalicelib import log
from chalicelib.domain.volume import Volume
from chalicelib.service.deps import Deps
from chalicelib.store import claims as claim_store
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
