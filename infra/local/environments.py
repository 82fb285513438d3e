"""Make the virtual environments from the locks: `python -m infra.local.environments run|dev|emulator|functions|lock`.

Standard library only, since it runs before anything is installed. uv installs, and checks hashes.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.local import say, settings, uv

ROOT: Final = settings.ROOT
LOCKS: Final = (
    "requirements",
    "requirements-run",
    "requirements-dev",
    "requirements-emulator",
    "requirements-toolchains",
    "requirements-uv",
)
OUR_PACKAGES: Final = (ROOT / "infra" / "bridge", ROOT / "infra" / "devplugin")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A folder with a Python of its own that holds exactly what one lock names."""

    folder: str
    lock: str
    megabytes: int
    purpose: str
    ours: bool = False
    """Whether it also holds infra/bridge and infra/devplugin, as editable installs."""
    compiled: bool = False
    """Whether its bytecode is written when it is made. Else many processes that start together would each write it."""

    @property
    def path(self) -> Path:
        return ROOT / self.folder

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

    @property
    def packages(self) -> Path:
        """Folder of its packages. The environment's Python has the version of the one that made it."""
        return self.path / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


RUN: Final = Environment(
    folder=".venv", lock="requirements-run.txt", megabytes=400, purpose="the local system", ours=True
)
DEV: Final = Environment(
    folder=".venv", lock="requirements-dev.txt", megabytes=900, purpose="a developer's tools", ours=True
)
EMULATOR: Final = Environment(
    folder=".venv-emulator", lock="requirements-emulator.txt", megabytes=200, purpose="the emulator of AWS"
)
FUNCTIONS: Final = Environment(
    folder=".venv-functions", lock="requirements.txt", megabytes=200, purpose="the functions' packages", compiled=True
)
TOOLCHAINS: Final = Environment(
    folder=".venv-toolchains", lock="requirements-toolchains.txt", megabytes=900, purpose="Go and Java"
)
BY_NAME: Final = {"run": RUN, "dev": DEV, "emulator": EMULATOR, "functions": FUNCTIONS, "toolchains": TOOLCHAINS}


def ensure(first: Environment, *more: Environment) -> Path:
    """Make or renew the environments whose lock or Python changed, in parallel.

    Returns the path of the first one's Python. Raises Trouble.
    """
    environments = (first, *more)
    if not all(map(_is_current, environments)):
        with _one_at_a_time():
            missing = [environment for environment in map(_covering, environments) if not _is_current(environment)]
            if missing:
                _install(missing)
    return first.python


def compile_locks() -> None:
    """Write every lock anew from its .in file, for all platforms, with hashes and without the address of an index."""
    uv.program()
    for name in LOCKS:
        command = ["pip", "compile", "--quiet", "--universal", "--generate-hashes", "--python-version", "3.11"]
        command += ["--no-emit-index-url", "--no-emit-find-links", "--custom-compile-command", "make lock"]
        command += [f"{name}.in", "--output-file", f"{name}.txt"]
        with say.step(f"Locking {name}.in") as step:
            uv.run(command, step)


def _install(environments: list[Environment]) -> None:
    _require_room(environments)
    uv.program()
    what = f"Installing {', '.join(environment.purpose for environment in environments)} (once for each lock)"
    with say.step(what) as step, ThreadPoolExecutor(len(environments)) as pool:
        try:  # an interrupt may come while the second is submitted and the first runs
            for done in [pool.submit(_make, environment, step) for environment in environments]:
                done.result()
        except KeyboardInterrupt:
            say.PROGRAMS.end()
            raise


def _make(environment: Environment, step: say.Step) -> None:
    _stamp(environment).unlink(missing_ok=True)
    if not _python_works(environment):
        shutil.rmtree(environment.path, ignore_errors=True)
        uv.run(["venv", "--python", sys.executable, str(environment.path)], step)
    of_it = ["--python", str(environment.python)]
    compiled = ["--compile-bytecode"] if environment.compiled else []
    uv.run(["pip", "sync", *of_it, "--require-hashes", *compiled, environment.lock], step)
    ours = [argument for package in _our_packages(environment) for argument in ("-e", str(package))]
    if ours:
        uv.run(["pip", "install", *of_it, "--no-deps", "--no-build-isolation", *ours], step)
        uv.run(["pip", "check", *of_it], step)
    _stamp(environment).write_text(_fingerprint(environment))


def _require_room(environments: list[Environment]) -> None:
    free = shutil.disk_usage(ROOT).free // 1_000_000
    wanted = sum(environment.megabytes for environment in environments)
    if free < wanted:
        folders = ", ".join(environment.folder for environment in environments)
        raise say.Trouble(f"{folders} need about {wanted} MB and the disk has {free} MB left: free some space")


def _is_current(environment: Environment) -> bool:
    environment = _covering(environment)
    stamp = _stamp(environment)
    return stamp.is_file() and stamp.read_text() == _fingerprint(environment) and environment.python.exists()


def _covering(environment: Environment) -> Environment:
    """Return DEV for RUN if a developer made DEV. They share a folder, and DEV's lock includes RUN's."""
    stamp = _stamp(environment)
    made_for = stamp.read_text().partition(" ")[0] if stamp.is_file() else ""
    return DEV if environment is RUN and made_for == DEV.lock else environment


def _python_works(environment: Environment) -> bool:
    """Return whether the folder's Python starts. It does not if the Python that made it was moved or upgraded."""
    if not environment.python.exists():
        return False
    command = [str(environment.python), "-c", "import sys; print(sys.version_info[:2])"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout.strip() == str(sys.version_info[:2])


def _stamp(environment: Environment) -> Path:
    return environment.path / ".made-from-lock"


def _fingerprint(environment: Environment) -> str:
    """Return the lock's name and a digest of all that the environment is made from."""
    digest = hashlib.sha256((ROOT / environment.lock).read_bytes())
    for package in _our_packages(environment):
        digest.update(str(package).encode())
        digest.update((package / "pyproject.toml").read_bytes())
    return f"{environment.lock} {digest.hexdigest()}"


def _our_packages(environment: Environment) -> list[Path]:
    return [package for package in OUR_PACKAGES if environment.ours]


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    with say.readable_errors(str(ROOT)), (ROOT / ".environments.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main(arguments: list[str]) -> int:
    """Make the named environments, or the locks. Return the exit code."""
    try:
        unknown = [name for name in arguments if name not in BY_NAME]
        if unknown and arguments != ["lock"]:
            raise say.Trouble(f"no environment is called {unknown[0]}: choose from {', '.join([*BY_NAME, 'lock'])}")
        if arguments == ["lock"]:
            compile_locks()
        elif arguments:
            ensure(*(BY_NAME[name] for name in arguments))
    except say.Trouble as exc:
        say.trouble(str(exc))
        return 1
    except KeyboardInterrupt:
        say.trouble("interrupted")
        return say.INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
