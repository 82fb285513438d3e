"""What every service function is given."""

from dataclasses import dataclass

from chalicelib.ask import Asker
from chalicelib.clock import Clock
from chalicelib.domain.plugin import USUAL_PATIENCE, Patience
from chalicelib.sealing import Sealer
from chalicelib.sqs import OperationQueue
from chalicelib.store.claims import ClaimStore
from chalicelib.store.commit import Committer
from chalicelib.store.dynamo import Dynamo
from chalicelib.store.index import IndexStore
from chalicelib.store.namespaces import NamespaceStore
from chalicelib.store.operations import OperationStore
from chalicelib.store.plugins import PluginStore
from chalicelib.store.volumes import VolumeStore
from chalicelib.store.waits import WaitStore


@dataclass(frozen=True)
class Deps:
    """The API's stores and neighbours."""

    clock: Clock
    dynamo: Dynamo
    index: IndexStore
    committer: Committer
    volumes: VolumeStore
    claims: ClaimStore
    operations: OperationStore
    plugins: PluginStore
    namespaces: NamespaceStore
    sealer: Sealer
    queue: OperationQueue
    asker: Asker
    waits: WaitStore
    wait_seconds: float
    answer_by: float | None = None
    """On the monotonic clock: when the request that is served must be answered."""
    patience: Patience = USUAL_PATIENCE
