"""Makes the virtual environments from the locks: `python -m infra.local.environments run|dev|emulator|lock`.

Runs on the bare Python, before anything is installed: standard library only.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.local import say

ROOT: Final = Path(__file__).resolve().parents[2]
LOCKS: Final = (
    "requirements",
    "requirements-run",
    "requirements-dev",
    "requirements-emulator",
    "requirements-toolchains",
)
OUR_PACKAGES: Final = (ROOT / "infra" / "bridge", ROOT / "infra" / "devplugin")


@dataclass(frozen=True)
class Environment:
    """A folder with a Python of its own, made from one lock."""

    folder: str
    lock: str
    megabytes: int
    purpose: str
    ours: bool = False
    """Whether it also holds infra/bridge and infra/devplugin, as editable installs."""
    covers: str | None = None
    """Another environment of the same folder whose packages this one includes."""

    @property
    def path(self) -> Path:
        return ROOT / self.folder

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"


RUN: Final = Environment(".venv", "requirements-run.txt", 400, "the local system's packages", ours=True)
DEV: Final = Environment(
    ".venv", "requirements-dev.txt", 900, "a developer's packages", ours=True, covers="requirements-run.txt"
)
EMULATOR: Final = Environment(".venv-emulator", "requirements-emulator.txt", 200, "the emulator")
TOOLCHAINS: Final = Environment(
    ".venv-toolchains", "requirements-toolchains.txt", 900, "Go and Java for the conformance tests"
)
BY_NAME: Final = {"run": RUN, "dev": DEV, "emulator": EMULATOR, "toolchains": TOOLCHAINS}


def ensure(environment: Environment) -> Path:
    """Path of the environment's Python, after making or renewing it when its lock or its Python changed."""
    if _is_current(environment):
        return environment.python
    with _one_at_a_time():
        if not _is_current(environment):
            with say.plain_words(str(ROOT)):
                _make(environment)
    return environment.python


def compile_locks() -> None:
    """Write every lock anew from its .in file, for all platforms, with hashes and without the address of an index."""
    uv = ensure(DEV).with_name("uv")
    for name in LOCKS:
        command = [str(uv), "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--python-version", "3.11"]
        command += ["--no-emit-index-url", "--no-emit-find-links", "--custom-compile-command", "make lock"]
        command += [f"{name}.in", "--output-file", f"{name}.txt"]
        with say.step(f"Locking {name}.in"):
            subprocess.run(command, cwd=ROOT, check=True)


def _make(environment: Environment) -> None:
    free = shutil.disk_usage(ROOT).free // 1_000_000
    if free < environment.megabytes:
        raise say.Trouble(
            f"{environment.folder} needs about {environment.megabytes} MB and the disk has {free} MB left: "
            "free some space"
        )
    if not _python_works(environment):
        shutil.rmtree(environment.path, ignore_errors=True)
        _run(environment, [sys.executable, "-m", "venv", str(environment.path)], f"Making {environment.folder}")
    pip = [str(environment.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run(
        environment,
        [*pip, "--require-hashes", "-r", environment.lock],
        f"Installing {environment.purpose} into {environment.folder} (once; may take a minute or two)",
    )
    ours = [argument for package in _our_packages(environment) for argument in ("-e", str(package))]
    if ours:
        _run(
            environment,
            [*pip, "--no-deps", "--no-build-isolation", *ours],
            "Installing the bridge and the directory plugin",
        )
        check = [str(environment.python), "-m", "pip", "check", "--disable-pip-version-check"]
        _run(environment, check, "Checking that they fit together")
    for lock in filter(None, (environment.lock, environment.covers)):
        _stamp(environment, lock).write_text(_fingerprint(environment, lock))


def _run(environment: Environment, command: list[str], what: str) -> None:
    with say.step(what):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    output = done.stdout + done.stderr
    if "No space left on device" in output:
        raise say.Trouble(f"the disk is full while making {environment.folder}: free some space and run this again")
    if "ensurepip is not available" in output:
        raise say.Trouble(
            f"{sys.executable} cannot make virtual environments: install its venv package (Debian: python3-venv)"
        )
    raise say.Trouble(f"{' '.join(command[:4])} failed; its last words:\n{output.strip()[-2000:]}")


def _is_current(environment: Environment) -> bool:
    stamp = _stamp(environment, environment.lock)
    return (
        stamp.is_file()
        and stamp.read_text() == _fingerprint(environment, environment.lock)
        and environment.python.exists()
    )


def _python_works(environment: Environment) -> bool:
    """Whether the folder's Python starts: one that was moved, upgraded or deleted breaks its venv."""
    if not environment.python.exists():
        return False
    command = [str(environment.python), "-c", "import pip, sys; print(sys.version_info[:2])"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0


def _stamp(environment: Environment, lock: str) -> Path:
    return environment.path / f".made-from-{lock}"


def _fingerprint(environment: Environment, lock: str) -> str:
    digest = hashlib.sha256((ROOT / lock).read_bytes())
    for package in _our_packages(environment):
        digest.update(str(package).encode())
        digest.update((package / "pyproject.toml").read_bytes())
    return digest.hexdigest()


def _our_packages(environment: Environment) -> list[Path]:
    return [package for package in OUR_PACKAGES if environment.ours and (package / "pyproject.toml").is_file()]


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    with say.plain_words(str(ROOT)), (ROOT / ".environments.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main(arguments: list[str]) -> int:
    """Make the named environments, or the locks."""
    try:
        for name in arguments:
            if name == "lock":
                compile_locks()
            elif name in BY_NAME:
                ensure(BY_NAME[name])
            else:
                raise say.Trouble(f"no environment is called {name}: choose of {', '.join([*BY_NAME, 'lock'])}")
    except say.Trouble as exc:
        say.trouble(str(exc))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
