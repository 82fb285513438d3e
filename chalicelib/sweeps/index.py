"""Publish for writers that died between their write and its publication (docs/protocols.md, section 1)."""

from dataclasses import dataclass

from chalicelib.service.deps import Deps


@dataclass(frozen=True, slots=True)
class Report:
    """How many writes were published for their writers."""

    published: int = 0


def sweep(deps: Deps) -> Report:
    """Publish each write that was allocated so long ago that its writer cannot be running."""
    return Report(published=deps.index.repair(deps.clock.now()))
