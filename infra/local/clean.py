"""`make clean`: remove what `make` made, and nothing of a user's. Standard library only, since it removes .venv."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from infra.local import say
from infra.local.settings import ROOT, Settings

BUILT: Final = (
    ".venv", ".venv-*", "build", ".chalice/deployments", ".chalice/venv", "infra/*/src/*.egg-info", "__pycache__",
    "chalicelib/**/__pycache__", "infra/**/__pycache__", "tests/**/__pycache__",
    ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".schemathesis",
)  # fmt: skip
"""Bytecode of our own folders only, because a volume in the state folder may hold some."""


def clean(settings: Settings, root: Path = ROOT) -> int:
    """Remove environments, packages and caches. Raises Trouble while the local system runs from them."""
    with say.readable_errors(str(root)), _not_running(settings):
        found = {pattern: _matches(root, pattern, settings.state) for pattern in BUILT}
        if any(found.values()):
            with say.step(f"Removing {', '.join(pattern for pattern, paths in found.items() if paths)}"):
                for path in (path for paths in found.values() for path in paths):
                    shutil.rmtree(path, ignore_errors=not path.exists())
        say.line(f"State is kept: {settings.state}. make forget removes it." if settings.state.exists() else "Clean.")
    return 0


def _matches(root: Path, pattern: str, state: Path) -> list[Path]:
    """Return the paths of a pattern, without links, the state folder and what is in it or around it."""
    return [
        path
        for path in root.glob(pattern)
        if not (path.is_symlink() or path.is_relative_to(state) or state.is_relative_to(path))
    ]


@contextmanager
def _not_running(settings: Settings) -> Iterator[None]:
    """Hold the lock of a local system of this state folder. Raises Trouble while it runs."""
    lock = settings.run / "lock"
    if not lock.exists():
        yield
        return
    with lock.open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise say.Trouble("the local system runs from what would be removed: make stop first") from exc
        yield
