"""The access key of the emulator's root: a random one for each state folder, in a file that only its owner can read."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from infra.local.say import Trouble

if TYPE_CHECKING:
    from pathlib import Path

LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@dataclass(frozen=True)
class Key:
    """An access key, as AWS's SDKs take it."""

    access_key_id: str
    secret: str

    def environment(self) -> dict[str, str]:
        """The variables that AWS's SDKs read it from."""
        return {"AWS_ACCESS_KEY_ID": self.access_key_id, "AWS_SECRET_ACCESS_KEY": self.secret}


WELL_KNOWN: Final = Key("test", "test")
"""What emulators take that were started by hand."""


def kept(path: Path) -> Key:
    """Read the key that is in the file, after making one where there is none yet."""
    made = Key("AKIA" + "".join(secrets.choice(LETTERS) for _ in range(16)), secrets.token_hex(20))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"access_key_id": made.access_key_id, "secret": made.secret}, file)
        file.flush()
        os.fsync(file.fileno())
    return made


def _read(path: Path) -> Key:
    try:
        found = json.loads(path.read_text())
        return Key(str(found["access_key_id"]), str(found["secret"]))
    except (ValueError, KeyError, TypeError) as exc:
        raise Trouble(f"{path} holds no access key: remove it, and the next start makes another") from exc
