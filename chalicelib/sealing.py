"""Secrets at rest: envelope encryption under the project's KMS key, by the AWS Encryption SDK.

The API's role may only seal (kms:GenerateDataKey), the worker's may open. The encryption context binds a ciphertext
to what it belongs to: copied to another volume it does not open. The SDK does not compare the context by itself, so
`open` does.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from chalicelib.errors import StoreUnavailable

WORKER_KEY_CONTEXT: Final = {"moorage": "worker-key"}
"""The encryption context of the worker's private key; those of secrets are in domain/secrets.py."""

CLIENT: Final[Mapping[str, Any]] = {
    "connect_timeout": 1,
    "read_timeout": 3,
    "retries": {"mode": "standard", "total_max_attempts": 4},
}
"""Of the KMS client: throttles and lost connections are tried three times more with jitter, within a request's time."""


class Sealer:
    """Seals and opens with one KMS key, named by its ARN or its alias."""

    def __init__(self, key: str, *, region: str) -> None:
        self._key, self._region = key, region
        self._sealing: Any = None
        self._opening: Any = None
        self._client: Any = None
        self.session: Any = None

    def seal_secrets(self, secrets: Mapping[str, str] | None, context: Mapping[str, str]) -> bytes:
        """Ciphertext of a map of secrets; nothing for an empty one, which costs no call."""
        return self.seal(json.dumps(dict(secrets)).encode(), context) if secrets else b""

    def open_secrets(self, sealed: bytes, context: Mapping[str, str]) -> dict[str, str]:
        return dict(json.loads(self.open(sealed, context))) if sealed else {}

    def seal(self, plain: bytes, context: Mapping[str, str]) -> bytes:
        """Ciphertext bound to `context`; raises StoreUnavailable when KMS does not answer or refuses."""
        from aws_encryption_sdk.exceptions import AWSEncryptionSDKClientError
        from botocore.exceptions import BotoCoreError

        self._prepare()
        try:
            sealed, _ = self._client.encrypt(source=plain, key_provider=self._sealing, encryption_context=dict(context))
        except (AWSEncryptionSDKClientError, BotoCoreError) as exc:
            raise StoreUnavailable(
                "the key service does not answer: nothing was stored, try again in a moment"
            ) from exc
        return bytes(sealed)

    def open(self, sealed: bytes, context: Mapping[str, str]) -> bytes:
        """The plain bytes; raises StoreUnavailable when KMS refuses or the ciphertext belongs to something else."""
        from aws_encryption_sdk.exceptions import AWSEncryptionSDKClientError
        from botocore.exceptions import BotoCoreError

        self._prepare()
        try:
            plain, header = self._client.decrypt(source=sealed, key_provider=self._opening)
        except (AWSEncryptionSDKClientError, BotoCoreError) as exc:
            raise StoreUnavailable("the key service does not open the stored secrets") from exc
        if any(header.encryption_context.get(name) != value for name, value in context.items()):
            raise StoreUnavailable("the stored secrets belong to something else: they were not used")
        return bytes(plain)

    def _prepare(self) -> None:
        if self._client is not None:
            return
        # Imported on first use: most requests carry no secrets, and the import is a third of a cold start.
        import aws_encryption_sdk
        import botocore.session
        from aws_encryption_sdk.identifiers import Algorithm, CommitmentPolicy
        from botocore.config import Config

        self.session = session = botocore.session.Session()
        session.set_config_variable("region", self._region)
        # The SDK builds its own KMS client of the session, and gives it nothing but its name.
        session.set_default_client_config(Config(**CLIENT))
        self._sealing = aws_encryption_sdk.StrictAwsKmsMasterKeyProvider(key_ids=[self._key], botocore_session=session)
        self._opening = aws_encryption_sdk.DiscoveryAwsKmsMasterKeyProvider(botocore_session=session)
        client = aws_encryption_sdk.EncryptionSDKClient(
            commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT
        )
        algorithm = Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
        self._client = _Client(client, algorithm)


class _Client:
    """The SDK's client with our algorithm: committing, not signed (nobody but the sealer holds the key)."""

    def __init__(self, client: Any, algorithm: Any) -> None:
        self._client, self._algorithm = client, algorithm

    def encrypt(self, **arguments: Any) -> Any:
        return self._client.encrypt(algorithm=self._algorithm, **arguments)

    def decrypt(self, **arguments: Any) -> Any:
        return self._client.decrypt(**arguments)
