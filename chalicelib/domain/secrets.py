"""What sealed secrets are bound to: the encryption contexts of KMS, which opening must repeat (AWS: KMS, Encryption
context).

A stored ciphertext opens under its own context alone, so a context may not change while an operation that was sealed
with it can still run.
"""

import base64
from collections.abc import Mapping
from typing import Protocol


class Opener(Protocol):
    """Decrypts sealed secrets, which only the worker may do."""

    def open_secrets(self, sealed: bytes, context: Mapping[str, str]) -> dict[str, str]: ...


def encryption_context(namespace: str, volume_id: str) -> dict[str, str]:
    """Return the context of a volume's secrets, and of those of a request about it."""
    return {"moorage": "volume-secrets", "namespace": namespace, "volume": volume_id}


def plugin_encryption_context(plugin_id: str) -> dict[str, str]:
    """Return the context of the secrets of a request about a plugin's snapshots, which belong to no volume."""
    return encryption_context("", plugin_id)


def to_base64(sealed: bytes) -> str:
    """Return ciphertext as text, for where JSON needs text."""
    return base64.b64encode(sealed).decode()


def from_base64(text: str | None) -> bytes:
    """Return ciphertext from its text. Nothing is empty."""
    return base64.b64decode(text or "")
