"""`python -m infra.emulator --port P --state FOLDER --key FILE --name HOST --log FILE`: run MiniStack behind Door.

MiniStack has more settings in its own environment variables, which infra/local/emulator.py sets.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
from pathlib import Path

from hypercorn.asyncio import serve
from hypercorn.config import Config

from infra.local import rootkey


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM, then write the state and end."""
    parser = argparse.ArgumentParser(prog="python -m infra.emulator")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--state", type=Path, required=True, help="folder to keep the state in")
    parser.add_argument("--key", type=Path, required=True, help="file with the root's access key, as JSON")
    parser.add_argument("--name", action="append", default=[], help="a host that is served beside the loopback's")
    parser.add_argument("--log", type=Path, required=True, help="file for what functions print")
    given = parser.parse_args(arguments)
    os.umask(0o077)
    _raise_limit_of_files()
    key = rootkey.load_or_make(given.key)
    _tell_ministack(given.state, key)
    asyncio.run(_serve(given, key))


def _tell_ministack(state: Path, key: rootkey.Key) -> None:
    """Set the variables that MiniStack reads when it is imported: its root's key, and where to keep its state."""
    os.environ |= {**key.environment(), "PERSIST_STATE": "1", "STATE_DIR": str(state)}


async def _serve(given: argparse.Namespace, key: rootkey.Key) -> None:
    from ministack import app

    from infra.emulator import logs
    from infra.emulator.door import Door
    from infra.emulator.persistence import PersistenceMiddleware
    from infra.emulator.storage import Storage

    logs.patch(given.log)
    storage = Storage(given.state)
    storage.patch()
    config = Config()
    config.bind = [f"{given.host}:{given.port}"]
    config.keep_alive_timeout = 75
    config.loglevel = "WARNING"
    await serve(Door(PersistenceMiddleware(app.app, storage), key, frozenset(given.name)), config)


def _raise_limit_of_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main(sys.argv[1:])
