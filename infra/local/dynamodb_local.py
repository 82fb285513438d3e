"""DynamoDB Local for the store's tests: AWS's own engine, with its conditions and limits (`make conformance`)."""

from __future__ import annotations

import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from infra.local import clock, environments, say, toolchains
from infra.local.processes import Child, listens
from infra.local.settings import LOOPBACK, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK: Final = Path(__file__).with_name("dynamodb-local.lock")
FOLDER: Final = environments.ROOT / "build" / "dynamodb-local"
MAIN: Final = "software.amazon.dynamodb.services.local.main.ServerRunner"
START_WITHIN: Final = 60.0


def install() -> Path:
    """Fetch DynamoDB Local once for each lock, and return its folder. Raises Trouble."""
    stamp = FOLDER / "complete.lock"
    if not (stamp.is_file() and stamp.read_bytes() == LOCK.read_bytes()):
        python = environments.ensure(environments.TOOLCHAINS)
        with say.step("Fetching DynamoDB Local from Maven Central (50 MB, once)"):
            command = [str(python), "-m", "infra.local.maven", str(LOCK), str(FOLDER)]
            done = subprocess.run(command, cwd=environments.ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stdout + done.stderr).strip().splitlines()[-1:]
            raise say.Trouble(f"DynamoDB Local could not be fetched: {' '.join(last)}")
        stamp.write_bytes(LOCK.read_bytes())
    return FOLDER


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run DynamoDB Local in this block, with its data in memory and its log in `folder`. Yields its address."""
    java = toolchains.find(toolchains.JAVA)
    library = install()
    port = free_port()
    child = Child(
        name="dynamodb-local",
        command=[
            str(java),
            f"-Djava.library.path={library}",
            "-cp",
            f"{library}/*",
            MAIN,
            "-inMemory",
            "-sharedDb",
            "-disableTelemetry",
            "-port",
            str(port),
        ],
        environment=Settings.from_env().environment(),
        log=folder / "dynamodb-local.log",
        pid_file=folder / "dynamodb-local.json",
    )
    child.start()
    try:
        _wait(child, port)
        yield f"http://{LOOPBACK}:{port}"
    finally:
        child.stop()


def free_port() -> int:
    """Return a port of the loopback on which no process listens now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(child: Child, port: int) -> None:
    deadline = clock.monotonic() + START_WITHIN
    while not listens(LOOPBACK, port):
        if not child.runs:
            raise say.Trouble(f"DynamoDB Local ended at its start: {child.last_words()}")
        if clock.monotonic() > deadline:
            raise say.Trouble(f"DynamoDB Local did not answer within {START_WITHIN:.0f} s; its log: {child.log}")
        clock.sleep(0.1)
