"""Searches over volumes, plugins, nodes and namespaces: by the beginning of an ID, or by a part of a name.

Everything is read by queries on sort keys, strongly, and no more than is shown: the first `LIMIT` of each context, and
whether there are more. What Nomad also searches and does not exist here (jobs, allocations, …) is found empty.
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
"""Names that a fuzzy search looks at in each context."""
SHORTEST_TEXT: Final = 2
_UUID_START: Final = re.compile(r"[0-9a-fA-F-]{0,36}")
_UUIDS: Final = frozenset({"allocs", "evals", "deployment", "nodes"})
"""Contexts whose IDs are UUIDs in Nomad: a text that no UUID begins with is not looked for in them."""
_BY_PREFIX: Final = frozenset({"evals", "deployment", "volumes", "scaling_policy", "host_volumes"})
"""Contexts that a fuzzy search looks into by the beginning of the ID, as Nomad does."""


@dataclass(frozen=True, slots=True)
class Match:
    """What a fuzzy search found; `scope` is the ID of the node whose name it is."""

    found: str
    scope: tuple[str, ...] = ()


@dataclass
class Found:
    """Matches by context, with the contexts that had more; `index` is the newest of all contexts."""

    index: int
    matches: dict[str, list[str]] = field(default_factory=dict)
    fuzzy: dict[str, list[Match]] = field(default_factory=dict)
    truncated: dict[str, bool] = field(default_factory=dict)


def by_prefix(deps: Deps, contexts: Sequence[str], prefix: str, *, namespace: str) -> Found:
    """IDs that begin with `prefix`, in order, for each of the contexts."""
    found = Found(_index(deps, contexts, namespace))
    for context in contexts:
        ids = _first(_beginning(deps, context, prefix, namespace), LIMIT)
        if context in _UUIDS and len(contexts) > 1 and not ids and not _UUID_START.fullmatch(prefix):
            continue
        found.matches[context], found.truncated[context] = ids[:LIMIT], len(ids) > LIMIT
    return found


def by_text(deps: Deps, contexts: Sequence[str], text: str, *, namespace: str) -> Found:
    """Names that hold `text` in any case, best first: earliest in the name, then the shortest name."""
    found = Found(_index(deps, contexts, namespace))
    for context in contexts:
        if context in _BY_PREFIX:
            ids = _first(_beginning(deps, context, text, namespace), LIMIT)
            found.fuzzy[context] = [Match(i) for i in ids[:LIMIT]]
            found.truncated[context] = len(ids) > LIMIT
            continue
        looked_at = _first(_named(deps, context), FUZZY_READ)
        matches = [m for m in looked_at[:FUZZY_READ] if text.lower() in m.found.lower()]
        matches.sort(key=lambda m: (m.found.lower().index(text.lower()), len(m.found), m.found))
        found.truncated[context] = len(looked_at) > FUZZY_READ or len(matches) > FUZZY_LIMIT
        if matches:
            found.fuzzy[context] = matches[:FUZZY_LIMIT]
    return found


def _first(found: Iterator[T], limit: int) -> list[T]:
    """One more than shown, to know whether there are more."""
    return list(itertools.islice(found, limit + 1))


def _beginning(deps: Deps, context: str, prefix: str, namespace: str) -> Iterator[str]:
    readers: Mapping[str, Callable[[], Iterator[str]]] = {
        "volumes": lambda: _volumes(deps, prefix, namespace),
        "plugins": lambda: (p.id for p in plugins.list_plugins(deps, prefix=prefix)[1]),
        "nodes": lambda: (n.id for n in deps.plugins.nodes(prefix=prefix)),
        "namespaces": lambda: (n.name for n in namespaces.list_namespaces(deps, prefix=prefix)[1]),
    }
    reader = readers.get(context)
    return reader() if reader is not None else iter(())


def _named(deps: Deps, context: str) -> Iterator[Match]:
    """Everything of a context under the name by which people know it."""
    if context == "nodes":
        return (Match(n.name, (n.id,)) for n in deps.plugins.nodes())
    return (Match(i) for i in _beginning(deps, context, "", ""))


def _volumes(deps: Deps, prefix: str, namespace: str) -> Iterator[str]:
    wanted = namespaces.names(deps) if namespace == "*" else iter((namespace,))
    for name in wanted:
        # Tombstones are read too: a few more than shown are asked for at once.
        for page in deps.volumes.in_namespace(name, prefix=prefix, limit=2 * LIMIT):
            yield from (volume.id for volume in page if volume.exists)


def _index(deps: Deps, contexts: Sequence[str], namespace: str) -> int:
    """The newest index of the contexts; read before the data."""
    watch = deps.index.watch()
    indexes = {
        "volumes": watch.of_volumes(namespace),
        "plugins": watch.of(PLUGINS),
        "nodes": watch.of(NODES),
        "namespaces": watch.of(NAMESPACES),
    }
    return max(indexes.get(context, 0) for context in contexts)
