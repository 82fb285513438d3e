"""`make clean`: removes what `make` made, and nothing of a user's. On the bare Python: it removes .venv, too."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from infra.local import say
from infra.local.settings import ROOT, Settings

BUILT: Final = (
    ".venv", ".venv-*", "build", ".chalice/deployments", ".chalice/venv", "**/__pycache__", "infra/*/src/*.egg-info",
    ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".schemathesis",
)  # fmt: skip


def clean(settings: Settings, root: Path = ROOT) -> int:
    """Remove environments, packages and caches; raises Trouble while the local system runs from them."""
    with _not_running(settings), say.plain_words(str(root)):
        found = [path for pattern in BUILT for path in root.glob(pattern) if not path.is_symlink()]
        if found:
            with say.step(f"Removing {', '.join(pattern for pattern in BUILT if any(root.glob(pattern)))}"):
                for path in found:
                    shutil.rmtree(path, ignore_errors=not path.exists())
        say.line(f"State is kept: {settings.state}. make forget removes it." if settings.state.exists() else "Clean.")
    return 0


@contextmanager
def _not_running(settings: Settings) -> Iterator[None]:
    """Hold the lock that a local system of this state folder holds while it runs."""
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
