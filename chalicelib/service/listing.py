"""Lists of volumes: in order of namespace and ID, a page at a time, by namespace, plugin, prefix and filter.

Nothing scans a table. The index is read first and strongly, then the records strongly: whatever is committed later
has not been published yet and wakes whoever blocks on this answer's index (docs/lists-and-blocking.md).
"""

import heapq
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from chalicelib.domain.plugin import Plugin
from chalicelib.domain.volume import Volume
from chalicelib.errors import RequestError
from chalicelib.service import namespaces
from chalicelib.service.deps import Deps
from chalicelib.store.index import PLUGINS

READ_BUDGET: Final = 5_000
"""Records that one page may read when a filter lets few of them through, or beyond those it shows; then a short page
is answered, with its token.
"""
SIZE_LIMIT: Final = 5 * 1024 * 1024
"""Bytes of an answer: a function's ends at 6 MB, with every quotation mark in it escaped (AWS: Lambda quotas)."""
STUB_BYTES: Final = 620
"""What an entry has beside its texts, the longest numbers included; with it nothing needs to be encoded twice."""
FIRST_READ: Final = 500
"""Records asked for at once when no page is asked for."""

Matches = Callable[[Volume, Plugin | None], bool]


@dataclass(frozen=True, slots=True)
class Query:
    """What a list is asked for; `per_page` 0 is all, a negative one none; `size_limit` is in bytes."""

    namespace: str = "default"
    prefix: str = ""
    plugin_id: str = ""
    node_id: str = ""
    per_page: int = 0
    next_token: str = ""
    matches: Matches | None = None
    size_limit: int = SIZE_LIMIT


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
    """The page; raises RequestError when an unpaged list is larger than an answer can be."""
    listed = Listed(deps.index.watch().now)
    budget = _Budget(query)
    for volume, plugin in _existing(deps, query, listed, budget):
        wanted = query.matches is None or query.matches(volume, plugin)
        full = bool(query.per_page) and len(listed.volumes) >= query.per_page
        if (full and wanted) or budget.reads_are_used_up or (wanted and not budget.takes(volume)):
            listed.next_token = f"{volume.namespace}.{volume.id}"
            return listed
        if wanted and not full:
            listed.volumes.append((volume, plugin))
    return listed


class _Budget:
    """What one answer may read and hold."""

    def __init__(self, query: Query) -> None:
        self._paged, self._size, self._limit = bool(query.per_page), 0, query.size_limit
        self._reads_left = READ_BUDGET + (0 if query.matches else max(query.per_page, 0))

    def read(self) -> None:
        self._reads_left -= 1

    @property
    def reads_are_used_up(self) -> bool:
        return self._paged and self._reads_left < 0

    def takes(self, volume: Volume) -> bool:
        """Whether the answer has room for it; raises RequestError when there is none and nobody asked for pages."""
        self._size += STUB_BYTES + _text_bytes(volume)
        if self._size <= self._limit:
            return True
        if not self._paged:
            raise RequestError(
                f"the list is larger than {self._limit / 1024 / 1024:.1f} MB: ask for pages with per_page", status=413
            )
        return False


def _text_bytes(volume: Volume) -> int:
    texts = (
        volume.namespace, volume.id, volume.name, volume.external_id, volume.plugin_id, volume.provider,
        volume.access_mode, volume.attachment_mode, volume.topologies,
    )  # fmt: skip
    # A topology is shown with one word more than it is stored with.
    return len(json.dumps(texts, ensure_ascii=False).encode()) + 16 * len(volume.topologies or ())


def _existing(deps: Deps, query: Query, listed: Listed, budget: _Budget) -> Iterator[tuple[Volume, Plugin | None]]:
    """The volumes that exist, each with its plugin; the answer's index is above every record that was read."""
    plugins: dict[str, Plugin | None] = {}
    for page in _pages(deps, query):
        missing = {v.plugin_id for v in page if v.exists} - plugins.keys()
        if missing:
            plugins |= dict.fromkeys(missing) | deps.plugins.get_many(missing)
        for volume in page:
            listed.index = max(listed.index, volume.modify_index)
            budget.read()
            if volume.exists:
                yield volume, plugins[volume.plugin_id]


def _pages(deps: Deps, query: Query) -> Iterator[list[Volume]]:
    """Records as they are read, in order of namespace and ID, from the token on."""
    # One more than is shown, for the token: a small page reads little, and the next reads double if it must go on.
    limit = min(max(query.per_page, 1) + 1, FIRST_READ) if query.per_page else FIRST_READ
    if query.node_id:
        yield from _on_nodes(deps, query, limit)
        return
    if query.plugin_id:
        yield from _of_plugins(deps, query, limit)
        return
    for namespace, start in _namespaces(deps, query):
        yield from deps.volumes.in_namespace(namespace, prefix=query.prefix, start=start, limit=limit)


def _namespaces(deps: Deps, query: Query) -> Iterator[tuple[str, str | None]]:
    """The namespaces to read, each with the ID to start from."""
    token_namespace, _, token_id = query.next_token.partition(".")
    for namespace in namespaces.names(deps) if query.namespace == "*" else (query.namespace,):
        if not query.next_token or namespace >= token_namespace:
            yield namespace, token_id if query.next_token and namespace == token_namespace else None


def _on_nodes(deps: Deps, query: Query, limit: int) -> Iterator[list[Volume]]:
    """Volumes that are claimed on the nodes whose ID begins so, by the nodes' own lists of claims."""
    ids = {query.node_id} | {node.id for node in deps.plugins.nodes(prefix=query.node_id)}
    plugins = set(_plugin_ids(deps, query)) if query.plugin_id else None
    token = query.next_token.partition(".")
    start = (token[0], token[2]) if query.next_token else None
    namespace = "" if query.namespace == "*" else query.namespace
    streams = [deps.claims.on_node(node_id, namespace=namespace, start=start) for node_id in sorted(ids)]
    places = (place for place, _ in itertools.groupby((ns, volume_id) for ns, volume_id, _ in heapq.merge(*streams)))
    wanted = (place for place in places if place[1].startswith(query.prefix))
    while chunk := list(itertools.islice(wanted, min(limit, 100))):
        yield [v for v in deps.volumes.get_many(chunk) if plugins is None or v.plugin_id in plugins]


def _plugin_ids(deps: Deps, query: Query) -> list[str]:
    """The plugin of that ID, or, if there is none, all whose ID begins so."""
    if deps.plugins.get(query.plugin_id) is not None:
        return [query.plugin_id]
    return [p.id for p in deps.plugins.all(prefix=query.plugin_id)]


def _of_plugins(deps: Deps, query: Query, limit: int) -> Iterator[list[Volume]]:
    """Volumes of the plugin with that ID, or, if there is none, of all plugins whose ID begins so."""
    ids = _plugin_ids(deps, query)
    if query.namespace == "*" and not query.prefix:
        # Memberships are in order of namespace and ID: one read goes through all namespaces.
        token = query.next_token.partition(".")
        begin: list[tuple[str | None, str | None]] = [(None, f"{token[0]}#{token[2]}" if query.next_token else None)]
    else:
        begin = list(_namespaces(deps, query))
    for namespace, start in begin:
        streams = [
            deps.volumes.of_plugin(i, namespace=namespace, prefix=query.prefix, start=start, limit=limit) for i in ids
        ]
        yield from streams[0] if len(streams) == 1 else _merged(streams)


def _merged(streams: list[Iterator[list[Volume]]]) -> Iterator[list[Volume]]:
    """The pages of several plugins as one, a record at a time, so that none is read before it is needed."""
    flat = [itertools.chain.from_iterable(pages) for pages in streams]
    yield from ([volume] for volume in heapq.merge(*flat, key=lambda v: (v.namespace, v.id)))
