"""Updating a registered volume by a new definition: what may change, what is kept, and what the new capacity asks
for.

Rules and texts as recorded from a real Nomad: an omitted name, external ID, context or parameter map keeps the stored
one, an omitted mount option clears it, capabilities are replaced, the provider's own facts (capacity, topologies) are
not taken from a request.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from chalicelib.domain.volume import Capability, Definition, Volume
from chalicelib.errors import Refused, joined

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


@dataclass(frozen=True, slots=True)
class Expansion:
    """What the provider must be asked for, in bytes; 0 means no limit of that kind."""

    required: int
    limit: int


@dataclass(frozen=True, slots=True)
class Merged:
    """The volume after the update, and the expansion that must happen first, if any."""

    volume: Volume
    expansion: Expansion | None


def merge(old: Volume, new: Volume) -> Merged:
    """The update of `old` by `new`; raises Refused with Nomad's text when something may not change."""
    problems = [*_identity(old, new), *_in_use(old, new.definition)]
    if problems:
        raise Refused(joined(problems))
    stored, stated = old.definition, new.definition
    merged = replace(
        stored,
        context=stated.context or stored.context,
        capabilities=stated.capabilities,
        mount_options=stated.mount_options,
        provider=stated.provider or stored.provider,
        provider_version=stated.provider_version or stored.provider_version,
    )
    low, high = stated.capacity_min, stated.capacity_max
    if (low, high) in ((0, 0), (stored.capacity_min, stored.capacity_max)):
        return Merged(replace(old, definition=merged), None)
    if high and high < low:
        raise Refused(f"max requested capacity ({human(high)}) less than or equal to min ({human(low)})")
    if high and high < stored.capacity:
        raise Refused(
            f"max requested capacity ({human(high)}) less than or equal to current ({human(stored.capacity)})"
        )
    grown = replace(old, definition=replace(merged, capacity_min=low, capacity_max=high))
    return Merged(grown, Expansion(max(low, 0), max(high, 0)) if low > stored.capacity else None)


def human(size: int) -> str:
    """Bytes in the decimal units and rounding of the recorded texts: 1.0 kB, 21 MB."""
    if size < 10:
        return f"{size} B"
    value, unit = float(size), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    rounded = int(value * 10 + 0.5) / 10
    return f"{rounded:.1f} {_UNITS[unit]}" if rounded < 10 else f"{rounded:.0f} {_UNITS[unit]}"


def _identity(old: Volume, new: Volume) -> Sequence[str]:
    stored, stated = old.definition, new.definition
    changed = (
        (bool(stated.name) and stated.name != stored.name, "volume name"),
        (bool(stated.external_id) and stated.external_id != stored.external_id, "volume external ID"),
        (new.plugin_id != old.plugin_id, "volume plugin ID"),
        (bool(stated.snapshot_id) and stated.snapshot_id != stored.snapshot_id, "volume snapshot ID"),
        (bool(stated.clone_id) and stated.clone_id != stored.clone_id, "volume clone ID"),
        (bool(stated.parameters) and stated.parameters != (stored.parameters or {}), "volume parameters"),
    )
    found = [f"{what} cannot be updated" for is_changed, what in changed if is_changed]
    placed = stored.topology_request is not None or bool(stored.topologies)
    if placed and stated.topology_request != stored.topology_request:
        found.append("volume topology request update was not compatible with existing topology")
    return found


def _in_use(old: Volume, stated: Definition) -> Sequence[str]:
    """What a claimed volume keeps: the capability that its claims use, and its mount options, which must be named."""
    found = []
    if old.access_mode and Capability(old.access_mode, old.attachment_mode) not in stated.capabilities:
        found.append("volume requested capabilities update was not compatible with existing capability in use")
    if old.in_use and (stated.mount_options is None or _options(stated) != _options(old.definition)):
        found.append("can not update mount options while volume is in use")
    return found


def _options(definition: Definition) -> tuple[str, tuple[str, ...]]:
    options = definition.mount_options
    return (options.fs_type, options.mount_flags or ()) if options is not None else ("", ())
