"""How the deadlines of one operation fit into each other, computed in one place.

    CSI call < lease < function timeout < queue visibility

A worker that still runs must still hold its lease, a function must not be ended while a call it made is within its
deadline, and a message must not be given to a second worker while the first can still be running (docs/interfaces.md,
section 2). All values are seconds. `.chalice/config.json` and `infra/stacks/moorage.yaml` repeat the last two;
tests/unit/domain/test_deadlines.py compares.
"""

from collections.abc import Mapping
from typing import Final

DEFAULT_CALL: Final = 60
SLOW_CALL: Final = 120
LONGEST_CALL: Final = 300
SLOW_RPCS: Final = frozenset({"CreateVolume", "CreateSnapshot"})

LEASE_MARGIN: Final = 15
"""What a worker needs beside the call: reading the record, opening secrets, writing the result."""
FUNCTION_TIMEOUT: Final = LONGEST_CALL + 2 * LEASE_MARGIN
QUEUE_VISIBILITY: Final = FUNCTION_TIMEOUT + 30

GRACE: Final = 5
"""How long after its deadline a call may still land at the provider, by default; a setting of the plugin."""
LONGEST_GRACE: Final = 3600

GATEWAY_TIMEOUT: Final = 29
"""API Gateway ends a request after 29 s (AWS: API Gateway quotas, integration timeout)."""
WAIT_LIMIT: Final = 25
API_FUNCTION_TIMEOUT: Final = 30

AUDIT_TIMEOUT: Final = 900
"""An audit reads whole lists; this is as long as a function may run (AWS: Lambda quotas)."""

HEARTBEAT_SECONDS: Final = 30
"""How often a bridge is asked to say that it is there."""
LATE_AFTER: Final = 1.5 * HEARTBEAT_SECONDS
"""A node that is not heard of for so long has missed a heartbeat."""
SILENT_AFTER: Final = 3 * HEARTBEAT_SECONDS

LONGEST_WRITER: Final = max(FUNCTION_TIMEOUT, API_FUNCTION_TIMEOUT)
"""No process that allocated an index can still be writing with it after this long."""


def call_seconds(rpc: str, deadlines: Mapping[str, float]) -> float:
    """Deadline of one call of `rpc`, from a plugin's own `deadlines` or the defaults, never above `LONGEST_CALL`."""
    default = SLOW_CALL if rpc in SLOW_RPCS else DEFAULT_CALL
    return min(max(float(deadlines.get(rpc, default)), 0.1), LONGEST_CALL)


def lease_seconds(call: float) -> float:
    """Lease of a worker that is about to make a call of `call` seconds."""
    return call + LEASE_MARGIN
