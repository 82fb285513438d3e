"""Entry points of the Lambda functions other than the API: each parses its event, makes one call and logs one line.

Chalice names this module in each function's handler. So app.py, which serves the API, is not imported by them.
"""

import json
import time
from dataclasses import asdict
from typing import Any

from chalice.app import Blueprint

from chalicelib import log, wiring
from chalicelib.settings import Settings

functions = Blueprint(__name__)
_settings = Settings.from_env()


@functions.on_sqs_message(queue=_settings.operations_queue, batch_size=1, maximum_concurrency=20, name="run_operation")
def run_operation(event: Any) -> None:
    """Run the operation that a message names, and then those that were waiting for its turn."""
    from chalicelib.operations import engine

    started = time.monotonic()
    for record in event:
        for operation in engine.work(wiring.step_context(), _body(record.body)["operation_id"]):
            # The engine yields the record as it was before. The line says what became of it.
            after = wiring.stores().operations.get(operation.id, consistent=False) or operation
            log.line(
                "operation",
                operation_id=operation.id,
                kind=operation.kind.value,
                namespace=operation.namespace,
                volume_id=operation.volume_id,
                plugin_id=operation.plugin_id,
                outcome=after.status.value,
                attempt=after.attempt,
                step=after.step,
                error=after.last_error,
                milliseconds=round((time.monotonic() - started) * 1000),
            )
            started = time.monotonic()


@functions.lambda_function(name="ask_plugin")
def ask_plugin(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Return a plugin's answer to one query of the API (chalicelib/plugin_queries)."""
    from chalicelib.plugin_queries import server

    started = time.monotonic()
    answer = server.answer(wiring.csi_calls(), wiring.sealer(), event)
    log.line(
        "question",
        question=event.get("ask"),
        plugin_id=event.get("plugin_id"),
        outcome=answer.get("error", {}).get("code", "OK"),
        milliseconds=round((time.monotonic() - started) * 1000),
    )
    return answer


@functions.schedule("rate(1 minute)", name="sweep_operations")
def sweep_operations(_event: Any) -> None:
    """Run every sweep (chalicelib/sweeps/jobs.py). The function's name is older than the other sweeps."""
    from chalicelib.sweeps import jobs

    for job, report in jobs.run(wiring.deps()):
        log.line("sweep", job=job, **asdict(report))


@functions.schedule("rate(1 day)", name="audit_volumes")
def audit_volumes(event: Any) -> None:
    """Audit all plugins, or, if a request invoked the function, the plugin that its event names."""
    from chalicelib.service import audit

    request = event.detail
    if request:
        audit.run(wiring.deps(), request["plugin_id"], request["run"])
    else:
        audit.run_all(wiring.deps())


@functions.on_sqs_message(queue=_settings.dead_letter_queue, batch_size=1, name="bury_operation")
def bury_operation(event: Any) -> None:
    """Log a message that was delivered too often, and leave its operation alone.

    The record says when the operation is due, so the sweeper sends it again without this message.
    """
    for record in event:
        body = _body(record.body)
        operation = wiring.stores().operations.get(body["operation_id"])
        log.line(
            "dead letter",
            operation_id=body["operation_id"],
            kind=body.get("kind"),
            outcome=operation.status.value if operation else "unknown operation",
            attempt=operation.attempt if operation else None,
        )


def _body(text: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(text)
    return body
