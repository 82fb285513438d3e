"""Secrets at rest: envelope encryption under the stage's KMS key, by the AWS Encryption SDK.

The API's role may only seal (kms:GenerateDataKey). The worker's role may also open (kms:Decrypt). The encryption
context binds a ciphertext to its owner: copied to another volume, it does not open (docs/protocols.md, section 4).
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from chalicelib.errors import StoreUnavailable

WORKER_KEY_CONTEXT: Final = {"moorage": "worker-key"}
"""The encryption context of the worker's private key. Those of secrets are in domain/secrets.py."""

CLIENT: Final[Mapping[str, Any]] = {
    "connect_timeout": 1,
    "read_timeout": 3,
    "retries": {"mode": "standard", "total_max_attempts": 4},
}
"""Options of the KMS client. Four tries with jitter, for throttling and lost connections, fit into a request's time."""


class Sealer:
    """Encryption under one KMS key, named by its ARN or its alias, and decryption under the key of a ciphertext."""

    def __init__(self, key: str, *, region: str) -> None:
        self._key, self._region = key, region
        self._sealing: Any = None
        self._opening: Any = None
        self._client: Any = None
        self.session: Any = None

    def seal_secrets(self, secrets: Mapping[str, str] | None, context: Mapping[str, str]) -> bytes:
        """Encrypt a map of secrets. An empty one gives empty bytes, without a call."""
        return self.seal(json.dumps(dict(secrets)).encode(), context) if secrets else b""

    def open_secrets(self, sealed: bytes, context: Mapping[str, str]) -> dict[str, str]:
        """Decrypt what `seal_secrets` returned."""
        return dict(json.loads(self.open(sealed, context))) if sealed else {}

    def seal(self, plain: bytes, context: Mapping[str, str]) -> bytes:
        """Encrypt bytes, bound to `context`. Raises StoreUnavailable when KMS does not answer or refuses."""
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
        """Decrypt bytes. Raises StoreUnavailable when KMS refuses or the ciphertext is bound to another context."""
        from aws_encryption_sdk.exceptions import AWSEncryptionSDKClientError
        from botocore.exceptions import BotoCoreError

        self._prepare()
        try:
            plain, header = self._client.decrypt(source=sealed, key_provider=self._opening)
        except (AWSEncryptionSDKClientError, BotoCoreError) as exc:
            raise StoreUnavailable("the key service does not open the stored secrets") from exc
        # The SDK checks that the stored context is authentic, not that it is the expected one.
        if any(header.encryption_context.get(name) != value for name, value in context.items()):
            raise StoreUnavailable("the stored secrets belong to something else: they were not used")
        return bytes(plain)

    def _prepare(self) -> None:
        if self._client is not None:
            return
        # Imported on first use: most requests have no secrets, and the import takes a third of a cold start.
        import aws_encryption_sdk
        import botocore.session
        from aws_encryption_sdk.identifiers import Algorithm, CommitmentPolicy
        from botocore.config import Config

        self.session = session = botocore.session.Session()
        session.set_config_variable("region", self._region)
        # The SDK makes its KMS client from the session without any options, so they are set as the session's defaults.
        session.set_default_client_config(Config(**CLIENT))
        self._sealing = aws_encryption_sdk.StrictAwsKmsMasterKeyProvider(key_ids=[self._key], botocore_session=session)
        # A strict provider opens only under key ARNs, and the key may be named by an alias (AWS: Encryption SDK, key
        # providers). The function's role limits which keys may open.
        self._opening = aws_encryption_sdk.DiscoveryAwsKmsMasterKeyProvider(botocore_session=session)
        client = aws_encryption_sdk.EncryptionSDKClient(
            commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT
        )
        algorithm = Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
        self._client = _Client(client, algorithm)


class _Client:
    """The SDK's client with one algorithm: with key commitment, and without a signature.

    AWS advises a signature where those who encrypt and those who decrypt are not equally trusted. Here both are
    functions of this project.
    """

    def __init__(self, client: Any, algorithm: Any) -> None:
        self._client, self._algorithm = client, algorithm

    def encrypt(self, **arguments: Any) -> Any:
        return self._client.encrypt(algorithm=self._algorithm, **arguments)

    def decrypt(self, **arguments: Any) -> Any:
        return self._client.decrypt(**arguments)
