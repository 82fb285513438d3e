"""What every service function is given."""

from dataclasses import dataclass

from chalicelib.domain.plugin import USUAL_PATIENCE, Patience
from chalicelib.plugin_queries.client import PluginQueries
from chalicelib.sealing import Sealer
from chalicelib.sqs import OperationQueue
from chalicelib.store.stores import Stores
from chalicelib.store.waits import WaitStore


@dataclass(frozen=True)
class Deps(Stores):
    """The API's stores and neighbours; the same for every request."""

    sealer: Sealer
    queue: OperationQueue
    plugin_queries: PluginQueries
    waits: WaitStore
    wait_seconds: float
    """The longest that any request may wait."""
    patience: Patience = USUAL_PATIENCE

    @classmethod
    def on(
        cls,
        stores: Stores,
        *,
        sealer: Sealer,
        queue: OperationQueue,
        plugin_queries: PluginQueries,
        waits: WaitStore,
        wait_seconds: float,
        patience: Patience = USUAL_PATIENCE,
    ) -> "Deps":
        """Return the dependencies on these stores."""
        return cls(
            clock=stores.clock,
            dynamo=stores.dynamo,
            index=stores.index,
            committer=stores.committer,
            volumes=stores.volumes,
            claims=stores.claims,
            operations=stores.operations,
            plugins=stores.plugins,
            namespaces=stores.namespaces,
            sealer=sealer,
            queue=queue,
            plugin_queries=plugin_queries,
            waits=waits,
            wait_seconds=wait_seconds,
            patience=patience,
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """How long one request may wait for the outcome of what it began."""

    wait: float
    """Seconds, as its client wants it (RFC 7240)."""
    answer_by: float
    """On the monotonic clock: when it must be answered. What it does before it waits counts."""

    def left(self, now: float) -> float:
        """Seconds until it must be answered; `now` is on the monotonic clock."""
        return max(self.answer_by - now, 0.0)
