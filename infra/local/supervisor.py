"""The children of a local system: start them, start them again when they end, and stop them in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from infra.local import clock, say

if TYPE_CHECKING:
    from pathlib import Path

    from infra.local.processes import Child
    from infra.local.settings import Settings

STABLE_AFTER: Final = 30.0
"""Seconds after which a child that was started again counts as healthy."""
FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 10.0
TRIES: Final = 6
"""Starts of a child that ends again and again before the system gives up."""


class Role(IntEnum):
    """What a child is for. Children stop in this order."""

    PROXY = 0
    """First, so that no new request comes in."""
    EMULATOR = 1
    """Before the bridge, which the emulator's worker processes may still be calling."""
    BRIDGE = 2
    PLUGIN = 3
    """Last, because the bridge calls it until it ends."""

    @classmethod
    def of(cls, name: str) -> Role:
        """Return the role of the child `name`: `proxy`, `emulator`, `bridge` or `plugin-<id>`."""
        return cls.__members__.get(name.partition("-")[0].upper(), cls.PLUGIN)


@dataclass
class _ChildState:
    """A child and how often it ended of late."""

    child: Child
    started: float
    failures: int = 0
    start_again_at: float | None = None


@dataclass
class Supervisor:
    """Children that are started again, after a pause, when they end."""

    _states: dict[str, _ChildState] = field(default_factory=dict)

    def start(self, child: Child) -> None:
        """Start the child and supervise it from now on, in place of an earlier one of its name."""
        child.start()
        self._states[child.name] = _ChildState(child, clock.monotonic())

    def children(self, role: Role | None = None) -> list[Child]:
        """Return the children of a role, or all of them, in the order in which they were started."""
        return [state.child for name, state in self._states.items() if role in (None, Role.of(name))]

    def restart_ended(self) -> None:
        """Start again each child that ended, once its pause is over. Raises Trouble for one that does not stay up."""
        for state in self._states.values():
            child = state.child
            if child.runs:
                if state.failures and clock.monotonic() - state.started > STABLE_AFTER:
                    state.failures = 0
            elif state.start_again_at is None:
                self._schedule(state)
            elif clock.monotonic() >= state.start_again_at:
                child.start()
                state.started, state.start_again_at = clock.monotonic(), None

    def _schedule(self, state: _ChildState) -> None:
        child = state.child
        state.failures += 1
        if state.failures > TRIES:
            raise say.Trouble(f"{child.name} does not stay up: {child.last_words()} (log: {child.log})")
        pause = min(FIRST_PAUSE * 2**state.failures, LONGEST_PAUSE)
        say.line(f"{child.name} ended (exit code {child.exit_code}); again in {pause:.1f} s. {child.last_words(1)}")
        child.stop()  # what it started may still run
        state.start_again_at = clock.monotonic() + pause

    def stop(self, role: Role) -> None:
        """Stop the children of a role."""
        for child in self.children(role):
            child.stop()


def pid_files(settings: Settings) -> list[Path]:
    """Return the pid files of the children that run or that an earlier run left, in the order in which to stop them."""
    own = (settings.supervisor_file, settings.ready_file)
    files = [path for path in settings.run.glob("*.json") if path not in own]
    return sorted(files, key=lambda path: (Role.of(path.stem), path.name))
