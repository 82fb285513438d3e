"""Asking a plugin something that changes nothing, by a synchronous invocation of the worker's function.

The API's function has no way into the VPC and never imports grpc. A question is `{"ask": name, ...}`, an answer
`{"ok": ...}` or `{"error": {"kind", "text", "code"}}`: a shape of our own, since what Lambda makes of an exception
differs from runtime to runtime.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import boto3
import botocore.exceptions
from botocore.config import Config

from chalicelib.errors import PluginError, PluginInDoubt, PluginRejected, PluginUnreachable, StoreUnavailable

DEADLINE: Final = 20.0
"""Seconds a question may take, within the gateway's limit."""
READ_TIMEOUT: Final = DEADLINE + 4
CONFIG: Final = Config(
    connect_timeout=2, read_timeout=READ_TIMEOUT, retries={"mode": "standard", "total_max_attempts": 1}
)

_KINDS: Final[dict[str, type[PluginError]]] = {
    "rejected": PluginRejected,
    "in_doubt": PluginInDoubt,
    "unreachable": PluginUnreachable,
}


class Asker:
    """Invokes the function that may speak to plugins, and the one that audits them."""

    def __init__(self, function: str, audit_function: str, *, region: str) -> None:
        self._function, self._audit_function, self._region = function, audit_function, region
        self._client: Any = None

    def ask(self, question: str, **arguments: Any) -> Any:
        """The plugin's answer; raises the PluginError that the call ended in, StoreUnavailable when the worker
        failed.
        """
        payload = json.dumps({"ask": question, "deadline": DEADLINE, **arguments}).encode()
        try:
            answer = self._lambda().invoke(FunctionName=self._function, Payload=payload)
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as exc:
            raise StoreUnavailable("the worker that asks plugins does not answer: try again in a moment") from exc
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
        try:
            self._lambda().invoke(FunctionName=self._audit_function, InvocationType="Event", Payload=payload)
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as exc:
            raise StoreUnavailable("the function that audits does not answer: try again in a moment") from exc

    def _lambda(self) -> Any:
        if self._client is None:
            self._client = boto3.client("lambda", region_name=self._region, config=CONFIG)
        return self._client


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
