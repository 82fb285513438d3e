"""Updating a registered volume by a new definition: what may change, what is kept, and what the new capacity asks
for.

Rules and texts as recorded from a real Nomad: an omitted name, external ID, context or parameter map keeps the stored
one, an omitted mount option clears it, capabilities are replaced, the provider's own facts (capacity, topologies) are
not taken from a request.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from chalicelib.domain.volume import Capability, Volume
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
    problems = [*_identity(old, new), *_in_use(old, new)]
    if problems:
        raise Refused(joined(problems))
    merged = replace(
        old,
        context=new.context or old.context,
        capabilities=new.capabilities,
        mount_options=new.mount_options,
        provider=new.provider or old.provider,
        provider_version=new.provider_version or old.provider_version,
    )
    low, high = new.capacity_min, new.capacity_max
    if (low, high) in ((0, 0), (old.capacity_min, old.capacity_max)):
        return Merged(merged, None)
    if high and high < low:
        raise Refused(f"max requested capacity ({human(high)}) less than or equal to min ({human(low)})")
    if high and high < old.capacity:
        raise Refused(f"max requested capacity ({human(high)}) less than or equal to current ({human(old.capacity)})")
    merged = replace(merged, capacity_min=low, capacity_max=high)
    return Merged(merged, Expansion(max(low, 0), max(high, 0)) if low > old.capacity else None)


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
    changed = (
        (bool(new.name) and new.name != old.name, "volume name"),
        (bool(new.external_id) and new.external_id != old.external_id, "volume external ID"),
        (new.plugin_id != old.plugin_id, "volume plugin ID"),
        (bool(new.snapshot_id) and new.snapshot_id != old.snapshot_id, "volume snapshot ID"),
        (bool(new.clone_id) and new.clone_id != old.clone_id, "volume clone ID"),
        (bool(new.parameters) and new.parameters != (old.parameters or {}), "volume parameters"),
    )
    found = [f"{what} cannot be updated" for is_changed, what in changed if is_changed]
    placed = old.topology_request is not None or bool(old.topologies)
    if placed and new.topology_request != old.topology_request:
        found.append("volume topology request update was not compatible with existing topology")
    return found


def _in_use(old: Volume, new: Volume) -> Sequence[str]:
    """What a claimed volume keeps: the capability that its claims use, and its mount options, which must be named."""
    found = []
    if old.access_mode and Capability(old.access_mode, old.attachment_mode) not in new.capabilities:
        found.append("volume requested capabilities update was not compatible with existing capability in use")
    if old.in_use and (new.mount_options is None or _options(new) != _options(old)):
        found.append("can not update mount options while volume is in use")
    return found


def _options(volume: Volume) -> tuple[str, tuple[str, ...]]:
    options = volume.mount_options
    return (options.fs_type, options.mount_flags or ()) if options is not None else ("", ())
