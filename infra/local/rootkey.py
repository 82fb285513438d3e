"""The access key of the emulator's root: random for each state folder, in a file that only its owner can read."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.local.say import Trouble

LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@dataclass(frozen=True)
class Key:
    """An access key of AWS."""

    access_key_id: str
    secret: str

    def environment(self) -> dict[str, str]:
        """Return the environment variables from which AWS's SDKs read it."""
        return {"AWS_ACCESS_KEY_ID": self.access_key_id, "AWS_SECRET_ACCESS_KEY": self.secret}


WELL_KNOWN: Final = Key("test", "test")
"""The key that emulators take by default."""


def load_or_make(path: Path) -> Key:
    """Return the key in the file, after making one if there is none. Raises Trouble if it cannot be read."""
    if not path.exists():
        _make(path)
    return _read(path)


def _make(path: Path) -> None:
    """Write a new key to the file, whole or not at all. A key that another process wrote meanwhile stays."""
    key = {
        "access_key_id": "AKIA" + "".join(secrets.choice(LETTERS) for _ in range(16)),
        "secret": secrets.token_hex(20),
    }
    descriptor, unfinished = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(key, file)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            path.hardlink_to(unfinished)
    finally:
        Path(unfinished).unlink()


def _read(path: Path) -> Key:
    try:
        found = json.loads(path.read_text())
        return Key(str(found["access_key_id"]), str(found["secret"]))
    except (ValueError, KeyError, TypeError) as exc:
        raise Trouble(f"{path} holds no access key: remove it, and the next start makes another") from exc
