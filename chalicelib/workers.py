"""The functions that are not the API: parse the event, call, log one line, nothing else.

Chalice loads this module as their entry, so app.py and its middleware are not in play here.
"""

import time
from typing import Any

from chalice.app import Blueprint

from chalicelib import log, wiring
from chalicelib.settings import Settings

workers = Blueprint(__name__)
_settings = Settings.from_env()


@workers.on_sqs_message(queue=_settings.operations_queue, batch_size=1, maximum_concurrency=20, name="run_operation")
def run_operation(event: Any) -> None:
    """Work on the operation that a message names."""
    from chalicelib.operations import engine

    started = time.monotonic()
    for record in event:
        for found in engine.work(wiring.context(), _body(record.body)["operation_id"]):
            after = wiring.stores().operations.get(found.id, consistent=False) or found
            log.line(
                "operation",
                operation_id=found.id,
                kind=found.kind.value,
                namespace=found.namespace,
                volume_id=found.volume_id,
                plugin_id=found.plugin_id,
                outcome=after.status.value,
                attempt=after.attempt,
                step=after.step,
                error=after.last_error,
                milliseconds=round((time.monotonic() - started) * 1000),
            )
            started = time.monotonic()


@workers.lambda_function(name="ask_plugin")
def ask_plugin(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Answer one query to a plugin (chalicelib/plugin_queries)."""
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


@workers.schedule("rate(1 minute)", name="sweep_operations")
def sweep_operations(_event: Any) -> None:
    """Rescue what stands still; look after nodes that are silent, and what is claimed on them."""
    from chalicelib.operations.sweep import sweep
    from chalicelib.service import claim_sweep, counters
    from chalicelib.service.silence import silence

    stores = wiring.stores()
    swept = sweep(wiring.clock(), stores.operations, stores.index, wiring.queue())
    nodes = silence(wiring.deps())
    claims = claim_sweep.sweep(wiring.deps(), down=nodes.down, fresh_since=nodes.fresh_since)
    repaired = counters.check_some(wiring.deps())
    log.line(
        "sweep",
        sent=swept.sent,
        published=swept.published,
        failed=swept.failed + claims.failed,
        nodes_down=nodes.down,
        nodes_forgotten=nodes.forgotten,
        claims_run_out=claims.run_out,
        claims_from_down_nodes=claims.from_down_nodes,
        claims_lost=claims.lost,
        repaired=repaired,
    )


@workers.schedule("rate(1 day)", name="audit_volumes")
def audit_volumes(event: Any) -> None:
    """Compare what the providers have with what is registered: all of them, or the one that a request asked for."""
    from chalicelib.service import audit

    wanted = event.detail
    if wanted:
        audit.run(wiring.deps(), wanted["plugin_id"], wanted["run"])
    else:
        audit.run_all(wiring.deps())


@workers.on_sqs_message(queue=_settings.dead_letter_queue, batch_size=1, name="bury_operation")
def bury_operation(event: Any) -> None:
    """A message that was delivered too often: the record says when to go on, so the sweeper will; a dead letter does
    not mean nobody works on it.
    """
    for record in event:
        body = _body(record.body)
        found = wiring.stores().operations.get(body["operation_id"])
        log.line(
            "dead letter",
            operation_id=body["operation_id"],
            kind=body.get("kind"),
            outcome=found.status.value if found else "unknown operation",
            attempt=found.attempt if found else None,
        )


def _body(text: str) -> dict[str, Any]:
    import json

    body: dict[str, Any] = json.loads(text)
    return body
