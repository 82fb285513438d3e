"""Search volumes, plugins, nodes and namespaces, by the beginning of an ID or by a part of a name.

A search by the beginning shows the first `LIMIT` IDs of each context, and whether there are more. A search by a part
of a name goes through at most `FUZZY_READ` names of each context. Both read strongly. A context that Nomad has and
Moorage has not (jobs, allocations, …) is empty.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from chalicelib.service import namespaces, plugins
from chalicelib.service.deps import Deps
from chalicelib.store.index import NAMESPACES, NODES, PLUGINS

T = TypeVar("T")

LIMIT: Final = 20
FUZZY_LIMIT: Final = 100
FUZZY_READ: Final = 1000
"""Names that a fuzzy search reads in each context."""
SHORTEST_TEXT: Final = 2
_UUID_START: Final = re.compile(r"[0-9a-fA-F-]{0,36}")
_UUIDS: Final = frozenset({"allocs", "evals", "deployment", "nodes"})
"""Contexts whose IDs are UUIDs in Nomad. A text with which no UUID begins is not searched in them."""
_BY_PREFIX: Final = frozenset({"evals", "deployment", "volumes", "scaling_policy", "host_volumes"})
"""Contexts in which a fuzzy search goes by the beginning of the ID, as in Nomad."""


@dataclass(frozen=True, slots=True)
class Match:
    """One match of a fuzzy search. `scope` is the ID of the node, if `name` is a node's name."""

    name: str
    scope: tuple[str, ...] = ()


@dataclass
class SearchResult:
    """Matches by context, and which contexts have more. `index` is the newest of all contexts."""

    index: int
    matches: dict[str, list[str]] = field(default_factory=dict)
    fuzzy: dict[str, list[Match]] = field(default_factory=dict)
    truncated: dict[str, bool] = field(default_factory=dict)


def by_prefix(deps: Deps, contexts: Sequence[str], prefix: str, *, namespace: str) -> SearchResult:
    """Return the IDs that begin with `prefix`, in order, for each of the contexts."""
    result = SearchResult(_index(deps, contexts, namespace))
    for context in contexts:
        ids = _first(_beginning(deps, context, prefix, namespace), LIMIT)
        if context in _UUIDS and len(contexts) > 1 and not ids and not _UUID_START.fullmatch(prefix):
            continue
        result.matches[context], result.truncated[context] = ids[:LIMIT], len(ids) > LIMIT
    return result


def by_text(deps: Deps, contexts: Sequence[str], text: str, *, namespace: str) -> SearchResult:
    """Return the names with `text` in them, in upper or lower case: the earliest in a name first, then the shortest."""
    result = SearchResult(_index(deps, contexts, namespace))
    for context in contexts:
        if context in _BY_PREFIX:
            ids = _first(_beginning(deps, context, text, namespace), LIMIT)
            result.fuzzy[context] = [Match(i) for i in ids[:LIMIT]]
            result.truncated[context] = len(ids) > LIMIT
            continue
        candidates = _first(_names(deps, context), FUZZY_READ)
        matches = [m for m in candidates[:FUZZY_READ] if text.lower() in m.name.lower()]
        matches.sort(key=lambda m: (m.name.lower().index(text.lower()), len(m.name), m.name))
        result.truncated[context] = len(candidates) > FUZZY_READ or len(matches) > FUZZY_LIMIT
        if matches:
            result.fuzzy[context] = matches[:FUZZY_LIMIT]
    return result


def _first(items: Iterator[T], limit: int) -> list[T]:
    """Return one item more than the limit, which shows whether there are more."""
    return list(itertools.islice(items, limit + 1))


def _beginning(deps: Deps, context: str, prefix: str, namespace: str) -> Iterator[str]:
    """Yield the context's IDs that begin with `prefix`."""
    readers: Mapping[str, Callable[[], Iterator[str]]] = {
        "volumes": lambda: _volumes(deps, prefix, namespace),
        "plugins": lambda: (p.id for p in plugins.list_plugins(deps, prefix=prefix)[1]),
        "nodes": lambda: (n.id for n in deps.plugins.nodes(prefix=prefix)),
        "namespaces": lambda: (n.name for n in namespaces.list_namespaces(deps, prefix=prefix)[1]),
    }
    reader = readers.get(context)
    return reader() if reader is not None else iter(())


def _names(deps: Deps, context: str) -> Iterator[Match]:
    """Yield all names of a context. Only nodes have names: elsewhere the IDs count as names."""
    if context == "nodes":
        return (Match(n.name, (n.id,)) for n in deps.plugins.nodes())
    return (Match(i) for i in _beginning(deps, context, "", ""))


def _volumes(deps: Deps, prefix: str, namespace: str) -> Iterator[str]:
    for name in namespaces.names(deps) if namespace == "*" else iter((namespace,)):
        # Twice as many as are shown, since tombstones are read too.
        for page in deps.volumes.in_namespace(name, prefix=prefix, limit=2 * LIMIT):
            yield from (volume.id for volume in page if volume.exists)


def _index(deps: Deps, contexts: Sequence[str], namespace: str) -> int:
    """Return the newest index of the contexts. It must be read before the data (docs/protocols.md, section 1)."""
    watch = deps.index.watch()
    indexes = {
        "volumes": watch.of_volumes(namespace),
        "plugins": watch.of(PLUGINS),
        "nodes": watch.of(NODES),
        "namespaces": watch.of(NAMESPACES),
    }
    return max(indexes.get(context, 0) for context in contexts)
