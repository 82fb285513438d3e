"""The update of a registered volume by a new definition: what changes, and by how much the volume must grow.

The rules and texts were recorded from a real Nomad. An omitted name, external ID, context or parameter map keeps the
stored one. An omitted mount option clears it. Capabilities are replaced. The provider's own facts (capacity,
topologies) are not taken from a request.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from chalicelib.domain.volume import Capability, Definition, Volume
from chalicelib.errors import Refused, joined

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


@dataclass(frozen=True, slots=True)
class Expansion:
    """The capacity range to ask the provider for, in bytes. 0 is no limit."""

    required: int
    limit: int


@dataclass(frozen=True, slots=True)
class VolumeUpdate:
    """The volume after the update, and the expansion that must come first, if one is needed."""

    volume: Volume
    expansion: Expansion | None


def merge(old: Volume, new: Volume) -> VolumeUpdate:
    """Return the update of `old` by `new`. Raises Refused with Nomad's text when something may not change."""
    problems = [*_identity_problems(old, new), *_use_problems(old, new.definition)]
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
        return VolumeUpdate(replace(old, definition=merged), None)
    if high and high < low:
        # Nomad's text: it says "or equal", though equal limits are accepted.
        raise Refused(f"max requested capacity ({human(high)}) less than or equal to min ({human(low)})")
    if high and high < stored.capacity:
        raise Refused(
            f"max requested capacity ({human(high)}) less than or equal to current ({human(stored.capacity)})"
        )
    grown = replace(old, definition=replace(merged, capacity_min=low, capacity_max=high))
    return VolumeUpdate(grown, Expansion(max(low, 0), max(high, 0)) if low > stored.capacity else None)


def human(size: int) -> str:
    """Return bytes as Nomad's texts show them, in decimal units: 1.0 kB, 21 MB."""
    if size < 10:
        return f"{size} B"
    value, unit = float(size), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    rounded = int(value * 10 + 0.5) / 10
    return f"{rounded:.1f} {_UNITS[unit]}" if rounded < 10 else f"{rounded:.0f} {_UNITS[unit]}"


def _identity_problems(old: Volume, new: Volume) -> Sequence[str]:
    """Return a text for each part of the volume's identity that the update would change."""
    stored, stated = old.definition, new.definition
    changed = (
        (bool(stated.name) and stated.name != stored.name, "volume name"),
        (bool(stated.external_id) and stated.external_id != stored.external_id, "volume external ID"),
        (new.plugin_id != old.plugin_id, "volume plugin ID"),
        (bool(stated.snapshot_id) and stated.snapshot_id != stored.snapshot_id, "volume snapshot ID"),
        (bool(stated.clone_id) and stated.clone_id != stored.clone_id, "volume clone ID"),
        (bool(stated.parameters) and stated.parameters != (stored.parameters or {}), "volume parameters"),
    )
    problems = [f"{what} cannot be updated" for is_changed, what in changed if is_changed]
    placed = stored.topology_request is not None or bool(stored.topologies)
    if placed and stated.topology_request != stored.topology_request:
        problems.append("volume topology request update was not compatible with existing topology")
    return problems


def _use_problems(old: Volume, stated: Definition) -> Sequence[str]:
    """Return a text for each part that the claims of the volume need as it is.

    These are the capability that they use, and the mount options: an update of a claimed volume must repeat them.
    """
    problems = []
    if old.access_mode and Capability(old.access_mode, old.attachment_mode) not in stated.capabilities:
        problems.append("volume requested capabilities update was not compatible with existing capability in use")
    if old.in_use and (stated.mount_options is None or _options(stated) != _options(old.definition)):
        problems.append("can not update mount options while volume is in use")
    return problems


def _options(definition: Definition) -> tuple[str, tuple[str, ...]]:
    options = definition.mount_options
    return (options.fs_type, options.mount_flags or ()) if options is not None else ("", ())
