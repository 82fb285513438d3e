"""Fetch locked artifacts from Maven Central: `python -m infra.local.maven LOCK FOLDER`, in .venv-toolchains.

Every file is checked against the SHA-256 in the lock before it gets its name in the folder.
"""

import hashlib
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jgo.maven import MavenContext


def fetch(lock: Path, folder: Path) -> int:
    """Fill `folder` with what `lock` names, and return the number of files."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [line.split() for line in lock.read_text().splitlines() if line and not line.startswith("#")]
    context = MavenContext(repo_cache=folder / ".repository", timeout=120)
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(lambda entry: _one(context, folder, *entry), wanted))
    shutil.rmtree(folder / ".repository")
    return len(wanted)


def _one(context: MavenContext, folder: Path, coordinates: str, digest: str) -> None:
    group, artifact, version, kind = coordinates.split(":")
    target = folder / f"{artifact}-{version}.{kind}"
    if target.is_file() and _sha256(target) == digest:
        return
    found = Path(context.project(group, artifact).at_version(version).artifact(packaging=kind).resolve())
    if _sha256(found) != digest:
        raise SystemExit(f"{coordinates} is not the file that the lock names: {_sha256(found)}")
    shutil.copyfile(found, target)


def _sha256(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


if __name__ == "__main__":
    print(f"{fetch(Path(sys.argv[1]), Path(sys.argv[2]))} files")  # noqa: T201 - for a person
