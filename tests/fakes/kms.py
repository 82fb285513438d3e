"""A fake of KMS with a fixed key: what one run sealed under it, any later run opens.

The emulator makes new keys at each start, and its ciphertext has a form of its own. The rows that are kept in the tree
need a key that stays the same. The fake has the two actions of KMS that sealing and opening need.
"""

import base64
import hashlib
import json
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_ARN: Final = "arn:aws:kms:us-east-1:000000000000:key/00000000-0000-4000-8000-000000000000"
_MATERIAL: Final = hashlib.sha256(b"a key of Moorage's tests: it protects nothing").digest()
_NONCE: Final = 12


@contextmanager
def serving() -> Iterator[str]:
    """Serve the key on the loopback, and yield the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _generate_data_key(request: Mapping[str, Any]) -> dict[str, str]:
    plain, nonce = secrets.token_bytes(32), secrets.token_bytes(_NONCE)
    sealed = nonce + AESGCM(_MATERIAL).encrypt(nonce, plain, _bound_to(request))
    return {"KeyId": KEY_ARN, "Plaintext": _text(plain), "CiphertextBlob": _text(sealed)}


def _decrypt(request: Mapping[str, Any]) -> dict[str, str]:
    sealed = base64.b64decode(request["CiphertextBlob"])
    plain = AESGCM(_MATERIAL).decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound_to(request))
    return {"KeyId": KEY_ARN, "Plaintext": _text(plain)}


def _bound_to(request: Mapping[str, Any]) -> bytes:
    """Return the encryption context as bytes. It must be the same for encryption and decryption."""
    return json.dumps(request.get("EncryptionContext") or {}, sort_keys=True).encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


_ACTIONS: Final = {"TrentService.GenerateDataKey": _generate_data_key, "TrentService.Decrypt": _decrypt}


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            status, answer = 200, _ACTIONS[self.headers["X-Amz-Target"]](request)
        except InvalidTag:
            status, answer = 400, {"__type": "InvalidCiphertextException"}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that the base has
        """Log nothing."""
