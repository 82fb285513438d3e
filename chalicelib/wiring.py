"""The composition root: build what a function needs, once per container.

Imports inside the functions keep grpc out of the API.
"""

from functools import cache
from typing import TYPE_CHECKING

from chalicelib import log, tracing
from chalicelib.clock import Clock
from chalicelib.settings import Settings

if TYPE_CHECKING:
    from chalicelib.csi.calls import CsiCalls
    from chalicelib.operations.context import StepContext
    from chalicelib.sealing import Sealer
    from chalicelib.service.deps import Deps
    from chalicelib.sqs import OperationQueue
    from chalicelib.store.commit import Commit
    from chalicelib.store.stores import Stores


@cache
def settings() -> Settings:
    found = Settings.from_env()
    tracing.start(in_lambda=found.in_lambda)
    return found


@cache
def clock() -> Clock:
    return Clock()


@cache
def stores() -> "Stores":
    """Return the stores that every function uses, on one client."""
    from chalicelib.store.stores import open_stores

    return open_stores(settings().table, region=settings().region, clock=clock(), listeners=[_log_change])


def _log_change(change: "Commit") -> None:
    """Write one log line for a change that clients can see. Events and metrics of changes belong here."""
    volumes = ["/".join((pk.partition("#")[2], sk)) for pk, sk in change.items("volume")]
    log.line("change", index=change.index, scopes=change.scopes, volumes=volumes, tries=change.tries)


@cache
def queue() -> "OperationQueue":
    from chalicelib.sqs import OperationQueue

    return OperationQueue(settings().operations_queue, region=settings().region)


@cache
def sealer() -> "Sealer":
    from chalicelib.sealing import Sealer

    return Sealer(settings().key, region=settings().region)


@cache
def deps() -> "Deps":
    """Return the dependencies of the API's services."""
    from chalicelib.plugin_queries.client import PluginQueries
    from chalicelib.service.deps import Deps
    from chalicelib.store.waits import WaitStore

    return Deps(
        **stores().parts(),
        sealer=sealer(),
        queue=queue(),
        plugin_queries=PluginQueries(
            settings().ask_function,
            settings().audit_function,
            region=settings().region,
            sleep=clock().sleep,
            jitter=clock().jitter,
        ),
        waits=WaitStore(stores().dynamo, limit=settings().max_waits),
        wait_seconds=settings().wait_seconds,
        liveness=settings().liveness,
    )


@cache
def csi_calls() -> "CsiCalls":
    """Return the client of plugins. Only the worker's functions may call this, since it imports grpc."""
    from chalicelib.csi.calls import CsiCalls
    from chalicelib.csi.channel import TlsChannels, WorkerTls
    from chalicelib.sealing import WORKER_KEY_CONTEXT

    def read_tls() -> WorkerTls | None:
        row = stores().namespaces.worker_identity()
        if row is None:
            return None
        key = sealer().open(row.sealed_key, WORKER_KEY_CONTEXT)
        return WorkerTls(row.ca_pem.encode(), row.certificate_pem.encode(), key, row.serial, frozenset(row.refused))

    plugins = stores().plugins
    channels = TlsChannels(read_tls, clock().monotonic)
    return CsiCalls(plugins.instances, plugins.instance, channels, clock().jitter)


@cache
def step_context() -> "StepContext":
    """Return the dependencies of the worker's operations."""
    from chalicelib.operations.context import StepContext
    from chalicelib.store.turns import TurnStore

    return StepContext(**stores().parts(), secrets=sealer(), calls=csi_calls(), turns=TurnStore(stores().dynamo))
