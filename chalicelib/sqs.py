"""The queue of operations. A message carries an ID and no state, so a lost message loses nothing."""

import json
from typing import Any, Final

import boto3
import botocore.exceptions
from botocore.config import Config

from chalicelib.errors import StoreUnavailable

CONFIG: Final = Config(connect_timeout=1, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 3})


class OperationQueue:
    """The queue that `run_operation` reads."""

    def __init__(self, queue_name: str, *, region: str) -> None:
        self._name, self._region = queue_name, region
        self._client: Any = None
        self._url = ""

    def send(self, operation_id: str, kind: str) -> None:
        """Queue one operation. Raises StoreUnavailable if SQS does not answer. The sweeper then sends it later."""
        try:
            if self._client is None:
                client = boto3.client("sqs", region_name=self._region, config=CONFIG)
                self._url = client.get_queue_url(QueueName=self._name)["QueueUrl"]
                self._client = client
            self._client.send_message(
                QueueUrl=self._url, MessageBody=json.dumps({"operation_id": operation_id, "kind": kind})
            )
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as exc:
            raise StoreUnavailable("the queue does not answer: the operation is recorded and will be run") from exc
