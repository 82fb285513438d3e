"""The counters of claims that a volume's conditions go by, held against the claims themselves (protocols, 2.5).

They change in one transaction with the claims, so they cannot differ unless a record was restored or changed by hand.
All the same they are looked at: some volumes at each sweep, in turn, and the volume in question whenever somebody is
refused because it is in use.
"""

from typing import Final

from chalicelib import log
from chalicelib.domain.volume import Volume
from chalicelib.service.deps import Deps
from chalicelib.store import claims as claim_store
from chalicelib.store.commit import Change, RefusedWrites
from chalicelib.store.index import volume_scope

CHECKED: Final = 20
"""Volumes looked at by one sweep: about forty read units a minute, however many volumes there are."""


def repair(deps: Deps, volume: Volume) -> bool:
    """Counters as the claims are, if they differ; under the version read before the claims, so no claim can slip in.

    The volume must have been read strongly before this call. True if they were wrong and are right now.
    """
    found = [c for c in deps.claims.of_volume(volume.namespace, volume.id) if c.is_on(volume)]
    readers, writers = sum(not c.writes for c in found), sum(c.writes for c in found)
    past = sum(not c.live for c in found)
    if (readers, writers, past) == (volume.readers, volume.writers, volume.past_claims):
        return False

    def build(refused: RefusedWrites) -> Change[bool]:
        if refused:
            return Change(False)  # a claim came or went meanwhile: what was read is over, the next look reads again
        return Change(
            True, lambda index: [claim_store.corrected(volume, index, readers=readers, writers=writers, past=past)]
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


def check_some(deps: Deps) -> int:
    """Look at the next volumes, plugin by plugin, and begin anew at the end; how many were repaired."""
    begin, after = deps.volumes.checked_until()
    ids = [i for i in sorted(p.id for p in deps.plugins.all()) if i >= begin]
    repaired, left = 0, CHECKED
    following: tuple[str, str | None] = ("", None)
    for position, plugin_id in enumerate(ids):
        volumes, last = deps.volumes.some_of_plugin(plugin_id, after=after if plugin_id == begin else None, limit=left)
        repaired += sum(repair(deps, volume) for volume in volumes if volume.exists)
        left -= len(volumes)
        if last is not None:
            following = plugin_id, last
            break
        if left <= 0:
            following = next(iter(ids[position + 1 :]), ""), None
            break
    if following != (begin, after):
        deps.volumes.check_goes_on(*following)
    return repaired
