"""Clients of AWS's services at an emulator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from infra.local.settings import REGION

if TYPE_CHECKING:
    from infra.local.rootkey import Key


class EmulatorClients:
    """Clients of the services at `endpoint`, with the key of the emulator's root."""

    def __init__(self, endpoint: str, key: Key) -> None:
        self._endpoint = endpoint
        self._session = boto3.Session(
            aws_access_key_id=key.access_key_id, aws_secret_access_key=key.secret, region_name=REGION
        )
        self._config = Config(retries={"total_max_attempts": 2}, connect_timeout=5, read_timeout=60)

    def client(self, service: Any) -> Any:
        """Return a boto3 client of `service`, for example `"dynamodb"`."""
        return self._session.client(service, endpoint_url=self._endpoint, config=self._config)
