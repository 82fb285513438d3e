"""Return the index that a blocking query waits on. Above the client's index, what was read may have changed.

Each watch is a `Watch` of routes/mux.py. Polls read eventually consistently (docs/lists-and-blocking.md).
"""

from typing import Final

from chalicelib.routes.call import Call
from chalicelib.routes.mux import Watch
from chalicelib.service import listing, volumes
from chalicelib.service.deps import Deps
from chalicelib.store.index import MEMBERS, NAMESPACES, NODES, PLUGINS


def volume_list(deps: Deps, call: Call, _index: int) -> int:
    """Return the index of the last publication that a list of the namespace's volumes waits for."""
    return listing.current(deps, call.namespace)


def one_volume(deps: Deps, call: Call, index: int, volume_id: str) -> int:
    """Return an index above `index` once the volume has changed, appeared or gone away."""
    return volumes.current(deps, call.namespace, volume_id, index)


def operations(deps: Deps, _call: Call, _index: int, *_operation_id: str) -> int:
    """Return the index of the last change to any operation: one of them has no index of its own."""
    return deps.operations.changes(consistent=False)


def _scopes(*names: str) -> Watch:
    """Return a watch on whole scopes (store/index.py)."""

    def current(deps: Deps, _call: Call, _index: int, *_captured: str) -> int:
        watch = deps.index.watch(consistent=False)
        return max(watch.of(name) for name in names)

    return current


plugins: Final = _scopes(PLUGINS, MEMBERS)
nodes: Final = _scopes(NODES, PLUGINS)
namespaces: Final = _scopes(NAMESPACES)


def never(_deps: Deps, _call: Call, _index: int) -> int:
    """Return the index of a list that stays empty."""
    return 1
