"""Lists of volumes: in order of namespace and ID, a page at a time, by namespace, plugin, prefix and filter.

Nothing scans a table. The index is read first and strongly, then the records strongly: whatever is committed later
has not been published yet and wakes whoever blocks on this answer's index (docs/lists-and-blocking.md).
"""

import heapq
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from chalicelib.domain.plugin import Plugin
from chalicelib.domain.volume import Volume
from chalicelib.errors import RequestError
from chalicelib.service import namespaces
from chalicelib.service.deps import Deps
from chalicelib.store.index import PLUGINS

READ_BUDGET: Final = 5_000
"""Records that one page may read when a filter lets few of them through, or beyond those it shows, tombstones too;
then a short page is answered, with its token.
"""
QUERY_COST: Final = 10
"""What a Query of its own counts as, in records: of an empty namespace, of the claims of one volume."""
SIZE_LIMIT: Final = 5 * 1024 * 1024
"""Bytes of an answer as its function returns it, once more encoded, which ends at 6 MB (AWS: Lambda quotas)."""
STUB_BYTES: Final = 730
"""What an entry has beside its texts, the longest numbers included; with it no entry is encoded to be counted."""
FIRST_READ: Final = 500
"""Records asked for at once when no page is asked for."""

Matches = Callable[[Volume, Plugin | None, Callable[[int], None]], bool]
"""Whether an entry is wanted; what that costs beyond the record is told to the third argument, in records."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a list is asked for; `per_page` 0 is all, a negative one none; `size_limit` is in bytes; `until` is when
    the answer must be there, on the monotonic clock.
    """

    namespace: str = "default"
    prefix: str = ""
    plugin_id: str = ""
    node_id: str = ""
    per_page: int = 0
    next_token: str = ""
    matches: Matches | None = None
    size_limit: int = SIZE_LIMIT
    until: float = float("inf")


@dataclass
class Listed:
    """One page: `next_token` is `<namespace>.<id>` of the first volume of the next page."""

    index: int
    volumes: list[tuple[Volume, Plugin | None]] = field(default_factory=list)
    next_token: str = ""


def current(deps: Deps, namespace: str) -> int:
    """What a blocked list waits on: every change of the namespace's volumes, and of the plugins that its entries
    show.
    """
    watch = deps.index.watch(consistent=False)
    return max(watch.of_volumes(namespace), watch.of(PLUGINS))


def list_volumes(deps: Deps, query: Query) -> Listed:
    """The page; raises RequestError when an unpaged list is larger than an answer can be, or takes too long."""
    listed = Listed(deps.index.watch().now)
    budget = _Budget(deps, query, listed)
    for volume, plugin in _existing(deps, query, listed, budget):
        wanted = query.matches is None or query.matches(volume, plugin, budget.spend)
        full = bool(query.per_page) and len(listed.volumes) >= query.per_page
        if (full and wanted) or (wanted and not budget.takes(volume)):
            listed.next_token = f"{volume.namespace}.{volume.id}"
            return listed
        if wanted and not full:
            listed.volumes.append((volume, plugin))
    return listed


class _Budget:
    """What one answer may read and hold, and how long it may take."""

    def __init__(self, deps: Deps, query: Query, listed: Listed) -> None:
        self._deps, self._query, self._listed = deps, query, listed
        self._paged, self._size = bool(query.per_page), 0
        self._left = READ_BUDGET + (0 if query.matches else max(query.per_page, 0))

    def spend(self, records: int) -> None:
        self._left -= records

    def ends_at(self, namespace: str, volume_id: str) -> bool:
        """Whether nothing more is to be read; then this is where the next page begins.

        An unpaged list is complete, or it is none: raises RequestError when there is no time for it.
        """
        late = self._deps.clock.monotonic() > self._query.until
        if late and not self._paged:
            raise RequestError("the list takes too long in one piece: ask for pages with per_page", status=413)
        if not self._paged or not (late or self._left < 0):
            return False
        self._listed.next_token = f"{namespace}.{volume_id}"
        return True

    def takes(self, volume: Volume) -> bool:
        """Whether the answer has room for it; raises RequestError when there is none and nobody asked for pages."""
        self._size += STUB_BYTES + _text_bytes(volume)
        limit = self._query.size_limit
        if self._size <= limit:
            return True
        if not self._paged:
            raise RequestError(
                f"the list is larger than {limit / 1024 / 1024:.1f} MB: ask for pages with per_page", status=413
            )
        return False


def _text_bytes(volume: Volume) -> int:
    """Of the entry's texts, in JSON that is a string in JSON again, with everything escaped that can be."""
    stated = volume.definition
    texts = (
        volume.namespace, volume.id, stated.name, stated.external_id, volume.plugin_id, stated.provider,
        volume.access_mode, volume.attachment_mode, stated.topologies,
    )  # fmt: skip
    # A topology is shown with one word more than it is stored with.
    return len(json.dumps(json.dumps(texts, ensure_ascii=False))) + 18 * len(stated.topologies or ())


def _existing(deps: Deps, query: Query, listed: Listed, budget: _Budget) -> Iterator[tuple[Volume, Plugin | None]]:
    """The volumes that exist, each with its plugin; the answer's index is above every record that was read."""
    plugins: dict[str, Plugin | None] = {}
    for page in _pages(deps, query, budget):
        missing = {v.plugin_id for v in page if v.exists} - plugins.keys()
        if missing:
            plugins |= dict.fromkeys(missing) | deps.plugins.get_many(missing)
        for volume in page:
            listed.index = max(listed.index, volume.modify_index)
            budget.spend(1)
            if budget.ends_at(volume.namespace, volume.id):
                return
            if volume.exists:
                yield volume, plugins[volume.plugin_id]


def _pages(deps: Deps, query: Query, budget: _Budget) -> Iterator[list[Volume]]:
    """Records as they are read, in order of namespace and ID, from the token on."""
    # One more than is shown, for the token: a small page reads little, and the next reads double if it must go on.
    limit = min(max(query.per_page, 1) + 1, FIRST_READ) if query.per_page else FIRST_READ
    if query.node_id:
        yield from _on_nodes(deps, query, limit, budget)
        return
    if query.plugin_id:
        yield from _of_plugins(deps, query, limit, budget)
        return
    for namespace, start in _namespaces(deps, query, budget):
        yield from deps.volumes.in_namespace(namespace, prefix=query.prefix, start=start, limit=limit)


def _namespaces(deps: Deps, query: Query, budget: _Budget) -> Iterator[tuple[str, str | None]]:
    """The namespaces to read, each with the ID to start from."""
    token_namespace, _, token_id = query.next_token.partition(".")
    for namespace in namespaces.names(deps) if query.namespace == "*" else (query.namespace,):
        if query.next_token and namespace < token_namespace:
            continue
        start = token_id if query.next_token and namespace == token_namespace else None
        if budget.ends_at(namespace, start or ""):
            return
        budget.spend(QUERY_COST)
        yield namespace, start


def _on_nodes(deps: Deps, query: Query, limit: int, budget: _Budget) -> Iterator[list[Volume]]:
    """Volumes that are claimed on the nodes whose ID begins so, by the nodes' own lists of claims."""
    ids = {query.node_id} | {node.id for node in deps.plugins.nodes(prefix=query.node_id)}
    plugins = set(_plugin_ids(deps, query)) if query.plugin_id else None
    token = query.next_token.partition(".")
    start = (token[0], token[2]) if query.next_token else None
    namespace = "" if query.namespace == "*" else query.namespace
    streams = [deps.claims.on_node(node_id, namespace=namespace, start=start) for node_id in sorted(ids)]
    places = (place for place, _ in itertools.groupby((ns, volume_id) for ns, volume_id, _ in heapq.merge(*streams)))
    wanted = _within(places, query.prefix, budget)
    while chunk := list(itertools.islice(wanted, min(limit, 100))):
        yield [v for v in deps.volumes.get_many(chunk) if plugins is None or v.plugin_id in plugins]


def _within(places: Iterator[tuple[str, str]], prefix: str, budget: _Budget) -> Iterator[tuple[str, str]]:
    for namespace, volume_id in places:
        if budget.ends_at(namespace, volume_id):
            return
        if volume_id.startswith(prefix):
            yield namespace, volume_id
        else:
            budget.spend(1)


def _plugin_ids(deps: Deps, query: Query) -> list[str]:
    """The plugin of that ID, or, if there is none, all whose ID begins so."""
    if deps.plugins.get(query.plugin_id) is not None:
        return [query.plugin_id]
    return [p.id for p in deps.plugins.all(prefix=query.plugin_id)]


def _of_plugins(deps: Deps, query: Query, limit: int, budget: _Budget) -> Iterator[list[Volume]]:
    """Volumes of the plugin with that ID, or, if there is none, of all plugins whose ID begins so."""
    ids = _plugin_ids(deps, query)
    begin: Iterable[tuple[str | None, str | None]]
    if query.namespace == "*" and not query.prefix:
        # Memberships are in order of namespace and ID: one read goes through all namespaces.
        token = query.next_token.partition(".")
        begin = [(None, f"{token[0]}#{token[2]}" if query.next_token else None)]
    else:
        begin = _namespaces(deps, query, budget)
    for namespace, start in begin:
        streams = [
            deps.volumes.of_plugin(i, namespace=namespace, prefix=query.prefix, start=start, limit=limit) for i in ids
        ]
        if streams:
            yield from streams[0] if len(streams) == 1 else _merged(streams)


def _merged(streams: list[Iterator[list[Volume]]]) -> Iterator[list[Volume]]:
    """The pages of several plugins as one, a record at a time, so that none is read before it is needed."""
    flat = [itertools.chain.from_iterable(pages) for pages in streams]
    yield from ([volume] for volume in heapq.merge(*flat, key=lambda v: (v.namespace, v.id)))
