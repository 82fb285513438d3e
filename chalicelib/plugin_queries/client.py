"""The API's side of queries to plugins: a synchronous invocation of the worker's function.

The API's function has no way into the VPC and never imports grpc.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import boto3
import botocore.exceptions
from botocore.config import Config

from chalicelib.domain.external import ExternalVolume, Page, Snapshot
from chalicelib.domain.volume import Volume
from chalicelib.errors import StoreUnavailable, Throttled
from chalicelib.plugin_queries.shapes import (
    DEADLINE,
    ListSnapshots,
    ListVolumes,
    Query,
    ValidateVolume,
    decode_answer,
    decode_page,
    encode_query,
)

READ_TIMEOUT: Final = DEADLINE + 4
CONFIG: Final = Config(
    connect_timeout=2, read_timeout=READ_TIMEOUT, retries={"mode": "standard", "total_max_attempts": 1}
)
"""One attempt, since a second one after a timeout would not fit into a request. `_invoke` repeats throttled ones."""
THROTTLE_TRIES: Final = 4
THROTTLE_DELAY: Final = 0.1
_THROTTLES: Final = frozenset({"TooManyRequestsException", "ThrottlingException", "EC2ThrottledException"})


class PluginQueries:
    """The client of queries to plugins, which change nothing. It also starts their audits.

    A query raises the PluginError that the plugin's call ended in, or StoreUnavailable when the worker failed.
    """

    def __init__(
        self,
        function: str,
        audit_function: str,
        *,
        region: str,
        sleep: Callable[[float], None],
        jitter: Callable[[], float],
    ) -> None:
        self._function, self._audit_function, self._region = function, audit_function, region
        self._sleep, self._jitter = sleep, jitter
        self._client: Any = None

    def validate_volume(self, volume: Volume, *, sealed_secrets: bytes, seconds: float) -> None:
        """Raise PluginRejected unless the volume exists at its provider and can do what its definition says."""
        self._ask(ValidateVolume(volume, sealed_secrets), seconds)

    def list_volumes(self, plugin_id: str, *, per_page: int, next_token: str) -> Page[ExternalVolume]:
        """Return one page of the provider's volumes. 0 per page lets the plugin choose."""
        return decode_page(ExternalVolume, self._ask(ListVolumes(plugin_id, per_page, next_token), DEADLINE))

    def list_snapshots(
        self, plugin_id: str, *, per_page: int, next_token: str, sealed_secrets: bytes = b""
    ) -> Page[Snapshot]:
        """Return one page of the provider's snapshots. 0 per page lets the plugin choose."""
        query = ListSnapshots(plugin_id, per_page, next_token, sealed_secrets)
        return decode_page(Snapshot, self._ask(query, DEADLINE))

    def start_audit(self, plugin_id: str, run: str) -> None:
        """Start an audit of the plugin, and return at once. Raises StoreUnavailable when AWS does not accept it.

        The event has the shape of a schedule's (AWS: EventBridge events), since a schedule calls the function, too.
        """
        event = dict.fromkeys(("version", "account", "region", "source", "time", "id", "detail-type"), "")
        payload = json.dumps({**event, "resources": [], "detail": {"plugin_id": plugin_id, "run": run}}).encode()
        self._invoke(
            "the function that audits", FunctionName=self._audit_function, InvocationType="Event", Payload=payload
        )

    def send(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send an encoded query to the worker's function, and return its encoded answer."""
        answer = self._invoke(
            "the worker that asks plugins", FunctionName=self._function, Payload=json.dumps(event).encode()
        )
        body: Mapping[str, Any] = json.loads(answer["Payload"].read())
        if answer.get("FunctionError"):
            raise StoreUnavailable("the worker that asks plugins failed: its log says why")
        return body

    def _ask(self, query: Query, seconds: float) -> Any:
        return decode_answer(self.send(encode_query(query, seconds)))

    def _invoke(self, who: str, **arguments: Any) -> Any:
        """Invoke a function, and repeat a throttled invocation a few times, with growing delays."""
        for attempt in range(THROTTLE_TRIES):
            try:
                return self._lambda().invoke(**arguments)
            except botocore.exceptions.ClientError as exc:
                if exc.response.get("Error", {}).get("Code") not in _THROTTLES:
                    raise StoreUnavailable(f"{who} does not answer: try again in a moment") from exc
            except botocore.exceptions.BotoCoreError as exc:
                raise StoreUnavailable(f"{who} does not answer: try again in a moment") from exc
            self._sleep(THROTTLE_DELAY * 2**attempt * (0.5 + self._jitter()))
        raise Throttled(f"{who} is busy: try again in a moment")

    def _lambda(self) -> Any:
        if self._client is None:
            self._client = boto3.client("lambda", region_name=self._region, config=CONFIG)
        return self._client
