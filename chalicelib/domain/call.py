"""What every CSI call is given beside its subject."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of an operation. It fences the call: a bridge refuses an older attempt than it has seen."""

    operation_id: str
    number: int


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Deadline, secrets and attempt of one call."""

    until: float
    """The deadline, on the monotonic clock. Time that passes before the call is sent counts."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    attempt: Attempt | None = None
    """None for a call that changes nothing."""
