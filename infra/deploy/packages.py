"""Installs the functions' lock, hashes checked, into a folder: for Lambda's platform, or for this machine's own."""

from __future__ import annotations

import compileall
import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
LOCK: Final = ROOT / "requirements.txt"
LAMBDA_PLATFORMS: Final = ("manylinux_2_17", "manylinux2014", "manylinux_2_26", "manylinux_2_28", "manylinux_2_34")
OLD_GLIBC: Final = ("manylinux_2_17", "manylinux2014", "manylinux_2_26")
"""Lambda's Python 3.11 runs on Amazon Linux 2 (glibc 2.26), later ones on Amazon Linux 2023 (glibc 2.34)."""


class PackagesError(Exception):
    """The lock could not be installed; the text is what pip said last."""


def here() -> Path:
    """Folder for the functions' packages for this machine: one for each lock and Python."""
    python = f"{sys.platform} {sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(LOCK.read_bytes() + python.encode()).hexdigest()[:16]
    return ROOT / "build" / f"functions-{digest}"


def for_this_machine() -> Path:
    """The folder `here`, filled: at once when it was filled before, by one process when several ask."""
    folder = here()
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_name(f"{folder.name}.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if not folder.is_dir():
                _install_into(folder, [])
    return folder


def for_lambda(folder: Path, machine: str = "x86_64") -> None:
    """Fill `folder` with the packages that Lambda's Python of this version takes; wheels only, nothing is built."""
    shutil.rmtree(folder, ignore_errors=True)
    usable = OLD_GLIBC if sys.version_info < (3, 12) else LAMBDA_PLATFORMS
    platforms = [option for name in usable for option in ("--platform", f"{name}_{machine}")]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    _install_into(folder, ["--only-binary=:all:", "--implementation=cp", f"--python-version={version}", *platforms])


def _install_into(folder: Path, options: list[str]) -> None:
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    command += ["--no-deps", "--no-compile", "--target", str(unfinished), *options, "-r", str(LOCK)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PackagesError((done.stdout + done.stderr).strip()[-2000:])
    if not options:
        compileall.compile_dir(unfinished, quiet=2, workers=0)
    unfinished.rename(folder)
