"""The composition root: builds what a function needs, once per container. Imports inside the functions keep grpc out
of the API.
"""

from functools import cache
from typing import TYPE_CHECKING

from chalicelib import log, tracing
from chalicelib.clock import Clock
from chalicelib.settings import Settings

if TYPE_CHECKING:
    from chalicelib.operations.context import Context
    from chalicelib.sealing import Sealer
    from chalicelib.service.deps import Deps
    from chalicelib.sqs import OperationQueue
    from chalicelib.store.commit import Commit
    from chalicelib.store.stores import Stores
    from chalicelib.worker import Worker


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
    """The stores that every function shares, on one client."""
    from chalicelib.store.stores import open_stores

    return open_stores(settings().table, region=settings().region, clock=clock(), listeners=[_log_change])


def _log_change(change: "Commit") -> None:
    """Write one line for each change that clients can see: the place for events and metrics of changes."""
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
    """What the API's services are given."""
    from chalicelib.ask import Asker
    from chalicelib.service.deps import Deps
    from chalicelib.store.waits import WaitStore

    return Deps.on(
        stores(),
        sealer=sealer(),
        queue=queue(),
        asker=Asker(
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
def worker() -> "Worker":
    """What may speak to plugins: only the worker's functions call this."""
    from chalicelib.csi.channel import Identity, TlsChannels
    from chalicelib.sealing import WORKER_KEY_CONTEXT
    from chalicelib.worker import Worker

    def identity() -> Identity | None:
        found = stores().namespaces.worker_identity()
        if found is None:
            return None
        key = sealer().open(found.sealed_key, WORKER_KEY_CONTEXT)
        return Identity(
            found.ca_pem.encode(), found.certificate_pem.encode(), key, found.serial, frozenset(found.refused)
        )

    return Worker(plugins=stores().plugins, channels=TlsChannels(identity, clock().monotonic), clock=clock())


@cache
def context() -> "Context":
    """What the worker's operations are given."""
    from chalicelib.operations.context import Context
    from chalicelib.store.turns import TurnStore

    return Context.on(stores(), secrets=sealer(), calls=worker(), turns=TurnStore(stores().dynamo))
