"""What a plugin can be asked without changing anything: the other side of chalicelib/ask.py."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final, Protocol

from chalicelib.ask import DEADLINE, error_answer
from chalicelib.csi.calls import CsiCalls
from chalicelib.domain.call import CallOptions
from chalicelib.domain.secrets import encryption_context, plugin_encryption_context
from chalicelib.domain.volume import Volume
from chalicelib.errors import PluginError
from chalicelib.store import volumes


class Opener(Protocol):
    def open_secrets(self, sealed: bytes, context: Mapping[str, str]) -> dict[str, str]: ...


def answer(calls: CsiCalls, secrets: Opener, event: Mapping[str, Any]) -> dict[str, Any]:
    """Answer one question; a call that failed is an answer too."""
    seconds = min(float(event.get("deadline", DEADLINE)), DEADLINE)
    until = calls.channels.monotonic() + seconds
    try:
        return {"ok": QUESTIONS[event["ask"]](calls, secrets, event, until)}
    except PluginError as exc:
        return error_answer(exc)


def _validate_volume(calls: CsiCalls, secrets: Opener, event: Mapping[str, Any], until: float) -> None:
    volume = Volume(
        namespace=event["namespace"],
        id=event["volume_id"],
        plugin_id=event["plugin_id"],
        definition=volumes.decode(event["definition"]),
    )
    opened = secrets.open_secrets(base64.b64decode(event["secrets"]), encryption_context(volume.namespace, volume.id))
    calls.validate_volume_capabilities(volume, call=CallOptions(until, opened))


def _list_volumes(calls: CsiCalls, _secrets: Opener, event: Mapping[str, Any], until: float) -> dict[str, Any]:
    page = calls.list_volumes(
        event["plugin_id"],
        per_page=int(event["per_page"]),
        next_token=event["next_token"],
        call=CallOptions(until),
    )
    return asdict(page)


def _list_snapshots(calls: CsiCalls, secrets: Opener, event: Mapping[str, Any], until: float) -> dict[str, Any]:
    opened = secrets.open_secrets(base64.b64decode(event["secrets"]), plugin_encryption_context(event["plugin_id"]))
    page = calls.list_snapshots(
        event["plugin_id"],
        per_page=int(event["per_page"]),
        next_token=event["next_token"],
        call=CallOptions(until, opened),
    )
    return asdict(page)


QUESTIONS: Final[Mapping[str, Callable[[CsiCalls, Opener, Mapping[str, Any], float], Any]]] = {
    "validate_volume": _validate_volume,
    "list_volumes": _list_volumes,
    "list_snapshots": _list_snapshots,
}
