"""Add the volumes of an older version to their storages' items, once for each stage (docs/protocols.md, section 6).

Code of the older version does not know the items. So this begins when none can run any more. Until it has ended,
records neither come nor go; claims on them do.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from chalicelib.domain.deadlines import LONGEST_WRITER
from chalicelib.domain.volume import Volume
from chalicelib.service import namespaces
from chalicelib.service.deps import Deps
from chalicelib.store import ownership, tables

DEPLOYING: Final = 300.0
"""Seconds that a deployment may take until the last function has the new code."""
OLD_CODE: Final = LONGEST_WRITER + DEPLOYING
"""Seconds after which no function runs the code of the older version."""
SECONDS: Final = 20.0
"""How long one sweep may take: its function has a minute for all sweeps."""
ADOPTED_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Report:
    """How many volumes were added to their storages, and whether others are left."""

    adopted: int = 0
    left: bool = False


def sweep(deps: Deps) -> Report:
    """Add the next volumes, if the stage is being upgraded. The next sweep goes on where this one ends."""
    if ownership.is_upgraded(deps):
        return Report()
    since, after = deps.storages.begin_upgrade(deps.clock.now())
    if deps.clock.now() < since + OLD_CODE:
        return Report(left=True)
    adopted, end = 0, deps.clock.monotonic() + SECONDS
    with ThreadPoolExecutor(ADOPTED_AT_ONCE) as pool:
        for page in _pages(deps, after):
            adopted += sum(pool.map(partial(ownership.adopt, deps), page))
            deps.storages.advance_upgrade(tables.member_sk(page[-1].namespace, page[-1].id))
            if deps.clock.monotonic() > end:
                return Report(adopted, left=True)
    deps.storages.end_upgrade()
    return Report(adopted)


def _pages(deps: Deps, after: str) -> Iterator[list[Volume]]:
    """Yield every namespace's records in order, from `after` on (as tables.member_sk names it)."""
    first, volume_id = tables.member_of(after)
    for name in namespaces.names(deps):
        if name >= first:
            pages = deps.volumes.in_namespace(name, start=volume_id if name == first and volume_id else None)
            yield from (page for page in pages if page)
