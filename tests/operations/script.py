"""Make calls of a provider fail: which one, how, and whether before or after its effect."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.fakes.provider import FakeProvider


@dataclass(frozen=True)
class Strike:
    """What happens to one call. `act` may raise an error for the caller, or die."""

    act: Callable[[], None]
    after: bool = False


def tell(error: BaseException) -> Callable[[], None]:
    """Return an act that raises the error."""

    def act() -> None:
        raise error

    return act


@dataclass
class Script:
    """Strikes by RPC and number of the call. The count begins at 1, when the script is put into the provider."""

    strikes: Mapping[tuple[str, int], Strike]
    calls: Counter[str] = field(default_factory=Counter)
    struck: list[tuple[str, int]] = field(default_factory=list)

    def put_into(self, provider: FakeProvider) -> "Script":
        provider.before.append(self._before)
        provider.after.append(self._after)
        return self

    def _before(self, rpc: str, _: FakeProvider) -> None:
        self.calls[rpc] += 1
        self._strike(rpc, after=False)

    def _after(self, rpc: str, _: FakeProvider) -> None:
        self._strike(rpc, after=True)

    def _strike(self, rpc: str, *, after: bool) -> None:
        call = (rpc, self.calls[rpc])
        strike = self.strikes.get(call)
        if strike is not None and strike.after is after:
            self.struck.append(call)
            strike.act()
