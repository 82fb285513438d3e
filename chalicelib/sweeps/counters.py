"""Check the claim counters of some volumes at each sweep, in turn (service/counters.py says why)."""

from dataclasses import dataclass
from typing import Final

from chalicelib.domain.volume import Volume
from chalicelib.service.counters import repair, repair_storage
from chalicelib.service.deps import Deps
from chalicelib.store import ownership

VOLUMES: Final = 20
"""Volumes that one sweep reads: about a hundred read units a minute, however many volumes there are."""


@dataclass(frozen=True, slots=True)
class Report:
    """How many volumes had wrong counters."""

    repaired: int = 0


def sweep(deps: Deps) -> Report:
    """Repair the counters of the next volumes, plugin by plugin. After the last one, begin with the first again."""
    begin, after = deps.volumes.last_check()
    plugin_ids = [i for i in sorted(plugin.id for plugin in deps.plugins.all()) if i >= begin]
    found, unread = list[Volume](), VOLUMES
    following: tuple[str, str | None] = ("", None)
    for position, plugin_id in enumerate(plugin_ids):
        first = after if plugin_id == begin else None
        volumes, last = deps.volumes.some_of_plugin(plugin_id, after=first, limit=unread)
        found += [volume for volume in volumes if volume.exists]
        unread -= len(volumes)
        if last is not None:
            following = plugin_id, last
            break
        if unread <= 0:
            following = next(iter(plugin_ids[position + 1 :]), ""), None
            break
    # A stage with few volumes is read whole at each sweep, and its position never changes.
    if following != (begin, after):
        deps.volumes.record_check(*following)
    # The position is recorded first: a volume that cannot be repaired must not keep the others from their turn.
    return Report(repaired=sum([_repair(deps, volume) for volume in found]))


def _repair(deps: Deps, volume: Volume) -> bool:
    # After a restored backup, a record may be missing in its storage's item, too.
    adopted = ownership.is_upgraded(deps) and ownership.adopt(deps, volume)
    return any([adopted, repair(deps, volume), repair_storage(deps, volume)])
