"""Asking a plugin something that changes nothing, by a synchronous invocation of the worker's function.

The API's function has no way into the VPC and never imports grpc. A question is `{"ask": name, ...}`, an answer
`{"ok": ...}` or `{"error": {"kind", "text", "code"}}`: a shape of our own, since what Lambda makes of an exception
differs from runtime to runtime.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final, TypeVar

import boto3
import botocore.exceptions
from botocore.config import Config

from chalicelib.domain.external import ExternalVolume, Page, Snapshot
from chalicelib.errors import PluginError, PluginInDoubt, PluginRejected, PluginUnreachable, StoreUnavailable, Throttled

T = TypeVar("T")

DEADLINE: Final = 20.0
"""Seconds a question may take, within the gateway's limit."""
READ_TIMEOUT: Final = DEADLINE + 4
CONFIG: Final = Config(
    connect_timeout=2, read_timeout=READ_TIMEOUT, retries={"mode": "standard", "total_max_attempts": 1}
)
"""One try: a second one after a timeout would not fit into a request. Throttles come at once and are repeated here."""
THROTTLE_TRIES: Final = 4
THROTTLE_DELAY: Final = 0.1
_THROTTLES: Final = frozenset({"TooManyRequestsException", "ThrottlingException", "EC2ThrottledException"})

_KINDS: Final[dict[str, type[PluginError]]] = {
    "rejected": PluginRejected,
    "in_doubt": PluginInDoubt,
    "unreachable": PluginUnreachable,
}


class Asker:
    """Invokes the function that may speak to plugins, and the one that audits them."""

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

    def validate_volume(
        self, plugin_id: str, *, namespace: str, volume_id: str, definition: str, secrets: str, seconds: float
    ) -> None:
        """Ask whether the volume exists at its provider and can do what its definition says; `secrets` are sealed, in
        base64. Raises PluginRejected if not.
        """
        self.ask(
            "validate_volume",
            plugin_id=plugin_id,
            namespace=namespace,
            volume_id=volume_id,
            definition=definition,
            secrets=secrets,
            seconds=seconds,
        )

    def list_volumes(self, plugin_id: str, *, per_page: int, next_token: str) -> Page[ExternalVolume]:
        """Return one page of the provider's volumes; 0 per page lets the plugin choose."""
        return _page(
            ExternalVolume, self.ask("list_volumes", plugin_id=plugin_id, per_page=per_page, next_token=next_token)
        )

    def list_snapshots(self, plugin_id: str, *, per_page: int, next_token: str, secrets: str = "") -> Page[Snapshot]:
        """Return one page of the provider's snapshots; `secrets` are sealed, in base64."""
        answer = self.ask(
            "list_snapshots", plugin_id=plugin_id, per_page=per_page, next_token=next_token, secrets=secrets
        )
        return _page(Snapshot, answer)

    def ask(self, question: str, *, seconds: float = DEADLINE, **arguments: Any) -> Any:
        """The plugin's answer within `seconds`; raises the PluginError that the call ended in, StoreUnavailable when
        the worker failed.
        """
        payload = json.dumps({"ask": question, "deadline": min(seconds, DEADLINE), **arguments}).encode()
        answer = self._invoke("the worker that asks plugins", FunctionName=self._function, Payload=payload)
        body = json.loads(answer["Payload"].read())
        if answer.get("FunctionError"):
            raise StoreUnavailable("the worker that asks plugins failed: its log says why")
        return read_answer(body)

    def start_audit(self, plugin_id: str, run: str) -> None:
        """Have the plugin audited, and do not wait for it; raises StoreUnavailable when that was not accepted.

        The event has the shape of a schedule's (AWS: EventBridge events), since that is what the function is called by.
        """
        event = dict.fromkeys(("version", "account", "region", "source", "time", "id", "detail-type"), "")
        payload = json.dumps({**event, "resources": [], "detail": {"plugin_id": plugin_id, "run": run}}).encode()
        self._invoke(
            "the function that audits", FunctionName=self._audit_function, InvocationType="Event", Payload=payload
        )

    def _invoke(self, who: str, **arguments: Any) -> Any:
        """One invocation; while AWS says that too many run, again with growing delays, a few times."""
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


def _page(kind: type[T], answer: Mapping[str, Any]) -> Page[T]:
    """The page as the worker's function wrote it; fields that this version does not know are left out."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type] # both kinds are dataclasses
    entries = [kind(**{name: entry[name] for name in names & entry.keys()}) for entry in answer["entries"]]
    return Page(entries, answer["next_token"])


def read_answer(body: Mapping[str, Any]) -> Any:
    """What the worker's function returned, or the error that it stands for."""
    if "error" in body:
        error = body["error"]
        raise _KINDS[error["kind"]](error["text"], code=error["code"])
    return body["ok"]


def error_answer(error: PluginError) -> dict[str, Any]:
    """The answer that stands for an error."""
    kind = next((name for name, known in _KINDS.items() if isinstance(error, known)), "in_doubt")
    return {"error": {"kind": kind, "text": error.text, "code": error.code}}
