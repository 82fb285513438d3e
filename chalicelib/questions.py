"""What a plugin can be asked without changing anything: the other side of chalicelib/ask.py."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final, Protocol

from chalicelib import tracing
from chalicelib.ask import DEADLINE, error_answer
from chalicelib.csi import controller
from chalicelib.domain.secrets import encryption_context, plugin_encryption_context
from chalicelib.domain.volume import Volume
from chalicelib.errors import PluginError
from chalicelib.store import volumes
from chalicelib.worker import Worker


class Opener(Protocol):
    def open_secrets(self, sealed: bytes, context: Mapping[str, str]) -> dict[str, str]: ...


def answer(worker: Worker, secrets: Opener, event: Mapping[str, Any]) -> dict[str, Any]:
    """Answer one question; a call that failed is an answer too."""
    seconds = min(float(event.get("deadline", DEADLINE)), DEADLINE)
    until = worker.clock.monotonic() + seconds
    try:
        with tracing.subsegment(str(event["ask"]), plugin_id=str(event["plugin_id"])):
            return {"ok": QUESTIONS[event["ask"]](worker, secrets, event, until)}
    except PluginError as exc:
        return error_answer(exc)


def _validate_volume(worker: Worker, secrets: Opener, event: Mapping[str, Any], until: float) -> None:
    volume = Volume(
        namespace=event["namespace"],
        id=event["volume_id"],
        plugin_id=event["plugin_id"],
        definition=volumes.decode(event["definition"]),
    )
    opened = secrets.open_secrets(base64.b64decode(event["secrets"]), encryption_context(volume.namespace, volume.id))
    controller.validate_volume(worker.controller(volume.plugin_id), volume, secrets=opened, until=until)


def _list_volumes(worker: Worker, _secrets: Opener, event: Mapping[str, Any], until: float) -> dict[str, Any]:
    page = controller.list_volumes(
        worker.controller(event["plugin_id"]),
        per_page=int(event["per_page"]),
        next_token=event["next_token"],
        until=until,
    )
    return asdict(page)


def _list_snapshots(worker: Worker, secrets: Opener, event: Mapping[str, Any], until: float) -> dict[str, Any]:
    opened = secrets.open_secrets(base64.b64decode(event["secrets"]), plugin_encryption_context(event["plugin_id"]))
    page = controller.list_snapshots(
        worker.controller(event["plugin_id"]),
        per_page=int(event["per_page"]),
        next_token=event["next_token"],
        secrets=opened,
        until=until,
    )
    return asdict(page)


QUESTIONS: Final[Mapping[str, Callable[[Worker, Opener, Mapping[str, Any], float], Any]]] = {
    "validate_volume": _validate_volume,
    "list_volumes": _list_volumes,
    "list_snapshots": _list_snapshots,
}
