"""The table of the kinds of operation."""

from collections.abc import Mapping
from typing import Final

from chalicelib.domain.operation import Kind
from chalicelib.operations import (
    create_snapshot,
    create_volume,
    delete_snapshot,
    delete_volume,
    expand_volume,
    publish_volume,
    unpublish_volume,
)
from chalicelib.operations.spec import KindSpec, VolumeHold

KINDS: Final[Mapping[Kind, KindSpec]] = {
    spec.kind: spec
    for spec in (
        create_volume.KIND,
        delete_volume.KIND,
        expand_volume.KIND,
        create_snapshot.KIND,
        delete_snapshot.KIND,
        publish_volume.KIND,
        unpublish_volume.KIND,
    )
}

OPEN_TO_CLAIMS: Final = frozenset[str]().union(
    *(spec.holds.open_to_claims for spec in KINDS.values() if isinstance(spec.holds, VolumeHold))
)
"""Names of what may hold a volume (`Volume.operation_kind`) while claims on it come and go."""
