"""Install the functions' lock, hashes checked, into a folder for Lambda's platform.

pip does it, because it takes the exact list of wheel tags that a Lambda runtime accepts. uv takes one platform only.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
LOCK: Final = ROOT / "requirements.txt"
LAMBDA_PLATFORMS: Final = ("manylinux_2_17", "manylinux2014", "manylinux_2_26", "manylinux_2_28", "manylinux_2_34")
OLD_GLIBC: Final = ("manylinux_2_17", "manylinux2014", "manylinux_2_26")
"""Lambda's Python 3.11 runs on Amazon Linux 2 (glibc 2.26), later versions on Amazon Linux 2023 (glibc 2.34)."""


class PackagesError(Exception):
    """The lock could not be installed. The text is the end of pip's output."""


def for_lambda(folder: Path, machine: str = "x86_64") -> None:
    """Fill `folder` with the packages for Lambda's Python of this version, from wheels only. Raises PackagesError."""
    usable = OLD_GLIBC if sys.version_info < (3, 12) else LAMBDA_PLATFORMS
    platforms = [option for name in usable for option in ("--platform", f"{name}_{machine}")]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    command += ["--no-deps", "--no-compile", "--target", str(unfinished), "--only-binary=:all:", "--implementation=cp"]
    command += [f"--python-version={version}", *platforms, "-r", str(LOCK)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PackagesError((done.stdout + done.stderr).strip()[-2000:])
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
