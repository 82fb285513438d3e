"""Deadlines, in seconds, each computed from the one that it must exceed (docs/protocols.md, section 5).

    CSI call < lease < function timeout < queue visibility

A worker that runs must hold its lease. A function must not be stopped while a call of its is within its deadline. A
message must not be given to a second worker while the first may be running. `.chalice/config.json` and
`infra/stacks/moorage.yaml` repeat the last two values, and tests/unit/domain/test_deadlines.py compares them.
"""

from collections.abc import Mapping
from typing import Final

DEFAULT_CALL: Final = 60
SLOW_CALL: Final = 120
LONGEST_CALL: Final = 300
SLOW_RPCS: Final = frozenset({"CreateVolume", "CreateSnapshot"})

LEASE_MARGIN: Final = 15
"""The time that a worker needs beside the call: to read the record, open secrets and write the result."""
FUNCTION_TIMEOUT: Final = LONGEST_CALL + 2 * LEASE_MARGIN
QUEUE_VISIBILITY: Final = FUNCTION_TIMEOUT + 30

GRACE: Final = 5
"""How long after its deadline a call may still land at the provider. A plugin can set another value."""
LONGEST_GRACE: Final = 3600

GATEWAY_TIMEOUT: Final = 29
"""When API Gateway ends a request (AWS: API Gateway quotas, integration timeout)."""
WAIT_LIMIT: Final = 25
API_FUNCTION_TIMEOUT: Final = 30

AUDIT_TIMEOUT: Final = 900
"""The longest that a function may run (AWS: Lambda quotas): an audit reads whole lists."""

HEARTBEAT_SECONDS: Final = 30
"""How often a bridge is asked to send a heartbeat."""
LATE_AFTER: Final = 1.5 * HEARTBEAT_SECONDS
"""A node without a heartbeat for this long is late: it has missed one."""
SILENT_AFTER: Final = 3 * HEARTBEAT_SECONDS
"""A node without a heartbeat for this long is silent, and is marked down."""

LONGEST_WRITER: Final = max(FUNCTION_TIMEOUT, API_FUNCTION_TIMEOUT)
"""The longest that a process which allocated an index may go on writing with it."""


def call_seconds(rpc: str, deadlines: Mapping[str, float]) -> float:
    """Return the deadline of one call of `rpc`: the plugin's own or the default, at most `LONGEST_CALL`."""
    default = SLOW_CALL if rpc in SLOW_RPCS else DEFAULT_CALL
    return min(max(float(deadlines.get(rpc, default)), 0.1), LONGEST_CALL)


def lease_seconds(call: float) -> float:
    """Return the lease of a worker that is about to make a call of `call` seconds."""
    return call + LEASE_MARGIN
