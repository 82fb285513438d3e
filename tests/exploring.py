"""Look at every state that a model can reach, the nearest first, and tell the shortest way to a violation.

A model is a protocol as atomic steps of several actors. tests/blocking and tests/storages have one each.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

S = TypeVar("S")


class ViolationError(Exception):
    """The protocol does not hold."""


class Model(Protocol[S]):
    """What is explored. A state must be hashable."""

    def first(self) -> S:
        """Return the state in which the actors begin."""

    def steps(self, state: S) -> Iterable[tuple[str, S]]:
        """Return what may happen next: a name, and the state after it. Raise ViolationError if it must not happen."""

    def at_rest(self, state: S) -> bool:
        """Return whether nothing that was begun is left to do."""

    def check(self, state: S, *, at_rest: bool) -> None:
        """Raise ViolationError if the state must not be seen."""

    def is_needed(self, name: str) -> bool:
        """Return whether a rest may depend on the step: not if it is a fault, or a client decides on it freely."""


@dataclass
class Explored:
    """How large it was."""

    states: int = 0
    steps: int = 0
    rests: int = 0


def explore(model: Model[S]) -> Explored:
    """Return how many states there are. Raise ViolationError with the way there when the protocol does not hold."""
    first = model.first()
    came: dict[S, tuple[S, str] | None] = {first: None}
    leads_to: dict[S, list[S]] = {first: []}
    explored, rests, waiting = Explored(), list[S](), deque([first])
    while waiting:
        state = waiting.popleft()
        try:
            at_rest = model.at_rest(state)
            model.check(state, at_rest=at_rest)
            following = list(model.steps(state))
        except ViolationError as exc:
            raise ViolationError(f"{exc}\n" + "\n".join(_way(came, state))) from exc
        if at_rest:
            rests.append(state)
        for name, after in following:
            explored.steps += 1
            if after not in came:
                came[after] = (state, name)
                leads_to[after] = []
                waiting.append(after)
            if model.is_needed(name):
                leads_to[after].append(state)
    explored.states, explored.rests = len(came), len(rests)
    stuck = came.keys() - _reaching(rests, leads_to)
    if stuck:
        state = min(stuck, key=lambda s: len(_way(came, s)))
        raise ViolationError("no rest can be reached any more\n" + "\n".join(_way(came, state)))
    return explored


def _way(came: Mapping[S, tuple[S, str] | None], state: S) -> list[str]:
    way = []
    step = came[state]
    while step is not None:
        way.append(step[1])
        step = came[step[0]]
    return way[::-1]


def _reaching(goals: Iterable[S], leads_to: Mapping[S, Iterable[S]]) -> set[S]:
    found = set(goals)
    waiting = deque(found)
    while waiting:
        for earlier in leads_to[waiting.popleft()]:
            if earlier not in found:
                found.add(earlier)
                waiting.append(earlier)
    return found
