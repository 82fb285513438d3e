"""Find uv, which installs every lock, or install it from PyPI, and give it pip's settings.

Standard library only, since it runs before anything is installed.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from infra.local import say
from infra.local.settings import ROOT, tool_environment

FOLDER: Final = ROOT / ".venv-uv"
LOCK: Final = ROOT / "requirements-uv.txt"
OLDEST: Final = (0, 9)
"""Older versions lack options that are used here."""
FROM_PIP: Final = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "cert": "SSL_CERT_FILE",
    "proxy": "HTTPS_PROXY",
    "trusted-host": "UV_INSECURE_HOST",
}
"""pip's settings and uv's variables for them. uv reads no pip.conf, and needs the same mirror or proxy as pip."""
INDEXES: Final = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX")


def program() -> Path:
    """Return the path of uv: on the PATH if it is new enough, or else in .venv-uv, after installing it there."""
    on_path = shutil.which("uv")
    if on_path and _version(Path(on_path)) >= OLDEST:
        return Path(on_path)
    ours = FOLDER / "bin" / "uv"
    if not (ours.exists() and _stamp().is_file() and _stamp().read_bytes() == LOCK.read_bytes()):
        _install()
    return ours


def environment() -> dict[str, str]:
    """Return the environment for uv: this process's, and pip's settings where uv has none of its own."""
    ours = tool_environment()
    return {**_from_pip(ours), **ours, "UV_PYTHON_DOWNLOADS": "never"}


def run(arguments: list[str], step: say.Step) -> None:
    """Run uv, with its output in `step` while it runs. Raises Trouble with its last lines when it fails."""
    command = [str(program()), *arguments]
    say.run(command, step, cwd=ROOT, env=environment())


def _install() -> None:
    """Make .venv-uv with uv in it. Only here does pip install something for a developer."""
    with say.step("Installing uv from PyPI") as step:
        shutil.rmtree(FOLDER, ignore_errors=True)
        step.note("making .venv-uv")
        say.run([sys.executable, "-m", "venv", str(FOLDER)], step, cwd=ROOT, env=tool_environment())
        pip = [str(FOLDER / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
        pip += ["--require-hashes", "--only-binary", ":all:", "-r", str(LOCK)]
        say.run(pip, step, cwd=ROOT, env=tool_environment())
        _stamp().write_bytes(LOCK.read_bytes())


def _stamp() -> Path:
    return FOLDER / ".made-from-lock"


def _version(uv: Path) -> tuple[int, ...]:
    try:
        done = subprocess.run([uv, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(r"\buv (\d+)\.(\d+)", done.stdout)
    return tuple(map(int, found.groups())) if found else ()


def _from_pip(env: Mapping[str, str]) -> dict[str, str]:
    """Return pip's settings, of its files and variables, under uv's names. An index of uv's own comes first."""
    ours = FOLDER / "bin" / "python"  # it has a pip; if uv is on the PATH, this Python may have one
    command = [str(ours) if ours.exists() else sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True, env=dict(env), check=False).stdout
    told = translate(listing)
    return {name: value for name, value in told.items() if not (name in INDEXES and any(map(env.get, INDEXES)))}


def translate(listing: str) -> dict[str, str]:
    """Return uv's variables for what `pip config list` prints: lines like `global.index-url='https://...'`.

    A variable overrides the section of a command, which overrides the section of all commands.
    """
    found = {}
    for section in ("global", "install", ":env:"):
        for key, value in re.findall(rf"^{section}\.([a-z-]+)='(.*)'$", listing, re.MULTILINE):
            if key in FROM_PIP:
                found[FROM_PIP[key]] = " ".join(value.replace("\\n", " ").split())
    return found
