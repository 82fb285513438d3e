"""What every service function is given."""

from dataclasses import dataclass

from chalicelib.domain.plugin import DEFAULT_LIVENESS, LivenessPolicy
from chalicelib.operations.starting import Api
from chalicelib.plugin_queries.client import PluginQueries
from chalicelib.store.waits import WaitStore


@dataclass(frozen=True)
class Deps(Api):
    """What every request shares: stores, key, queue, plugins, and how long a request may wait."""

    plugin_queries: PluginQueries
    waits: WaitStore
    wait_seconds: float
    """Seconds that any request may wait at most."""
    liveness: LivenessPolicy = DEFAULT_LIVENESS


@dataclass(frozen=True, slots=True)
class Budget:
    """How long one request may wait for the outcome of what it started."""

    wait: float
    """Seconds, as the client prefers (RFC 7240)."""
    answer_by: float
    """When the request must be answered, on the monotonic clock. The time before the wait counts."""

    def left(self, now: float) -> float:
        """Return the seconds until the request must be answered. `now` is on the monotonic clock."""
        return max(self.answer_by - now, 0.0)
