"""What every service function is given."""

from dataclasses import dataclass

from chalicelib.ask import Asker
from chalicelib.domain.plugin import USUAL_PATIENCE, Patience
from chalicelib.operations.starting import Api
from chalicelib.store.waits import WaitStore


@dataclass(frozen=True)
class Deps(Api):
    """The API's stores and neighbours; the same for every request."""

    asker: Asker
    waits: WaitStore
    wait_seconds: float
    """The longest that any request may wait."""
    patience: Patience = USUAL_PATIENCE


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
