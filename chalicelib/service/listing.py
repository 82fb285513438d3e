"""Lists of volumes by namespace, plugin, node, prefix and filter, in pages, ordered by namespace and ID.

No list scans a table. The index is read first and the records after it, both strongly. So a change that is committed
later is published later, and wakes the readers that block on this answer's index (docs/lists-and-blocking.md).
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
"""Records that a page with a filter may read, and that any other page may read beside those that it shows (tombstones
are read too). A page that has read so many ends there, with its token.
"""
QUERY_COST: Final = 10
"""The cost in records of one more Query: that of an empty namespace, or of one volume's claims."""
SIZE_LIMIT: Final = 5 * 1024 * 1024
"""The largest answer in bytes. Its function returns it encoded once more, in at most 6 MB (AWS: Lambda quotas)."""
STUB_BYTES: Final = 730
"""Bytes of an entry beside its texts, with the longest numbers. So no entry must be encoded to know its size."""
FIRST_READ: Final = 500
"""Records read at once when the request asks for no page."""

Matches = Callable[[Volume, Plugin | None, Callable[[int], None]], bool]
"""Returns whether an entry is listed. It calls its third argument with what it read beside the record, in records."""


@dataclass(frozen=True, slots=True)
class VolumeQuery:
    """The request of a list. A `per_page` of 0 is all entries, a negative one is none."""

    namespace: str = "default"
    prefix: str = ""
    plugin_id: str = ""
    node_id: str = ""
    per_page: int = 0
    next_token: str = ""
    matches: Matches | None = None
    size_limit: int = SIZE_LIMIT
    """Bytes."""
    until: float = float("inf")
    """When the answer must be complete, on the monotonic clock."""


@dataclass
class VolumePage:
    """One page. `next_token` is `<namespace>.<id>` of the first volume of the next page."""

    index: int
    volumes: list[tuple[Volume, Plugin | None]] = field(default_factory=list)
    next_token: str = ""


def current(deps: Deps, namespace: str) -> int:
    """Return the index that a blocked list waits on: the larger of that of the namespace's volumes and that of plugins.

    Plugins count because the entries show their health.
    """
    watch = deps.index.watch(consistent=False)
    return max(watch.of_volumes(namespace), watch.of(PLUGINS))


def list_volumes(deps: Deps, query: VolumeQuery) -> VolumePage:
    """Return one page. Raises RequestError 413 when an unpaged list is too large or takes too long."""
    page = VolumePage(deps.index.watch().now)
    budget = _Budget(deps, query, page)
    for volume, plugin in _existing(deps, query, page, budget):
        if query.matches is not None and not query.matches(volume, plugin, budget.spend):
            continue
        full = bool(query.per_page) and len(page.volumes) >= query.per_page
        if full or not budget.has_room_for(volume):
            page.next_token = f"{volume.namespace}.{volume.id}"
            return page
        page.volumes.append((volume, plugin))
    return page


class _Budget:
    """How much one answer may read and hold, and how long it may take."""

    def __init__(self, deps: Deps, query: VolumeQuery, page: VolumePage) -> None:
        self._deps, self._query, self._page = deps, query, page
        self._paged, self._size = bool(query.per_page), 0
        self._unread = READ_BUDGET + (0 if query.matches else max(query.per_page, 0))

    def spend(self, records: int) -> None:
        """Count what was read, in records."""
        self._unread -= records

    def ends_at(self, namespace: str, volume_id: str) -> bool:
        """Return whether the page ends before this volume. If it does, its token names the volume.

        An unpaged list must be complete, so it raises RequestError when the time is over.
        """
        late = self._deps.clock.monotonic() > self._query.until
        if late and not self._paged:
            raise RequestError("the list takes too long in one piece: ask for pages with per_page", status=413)
        if not self._paged or not (late or self._unread < 0):
            return False
        self._page.next_token = f"{namespace}.{volume_id}"
        return True

    def has_room_for(self, volume: Volume) -> bool:
        """Count the volume's entry, and return whether the answer is still small enough.

        An unpaged list must be complete, so it raises RequestError when it is not.
        """
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
    """Return the most bytes that the entry's texts can take.

    The answer is JSON inside of a string of JSON, so every character that can be escaped is, twice.
    """
    stated = volume.definition
    texts = (
        volume.namespace, volume.id, stated.name, stated.external_id, volume.plugin_id, stated.provider,
        volume.access_mode, volume.attachment_mode, stated.topologies,
    )  # fmt: skip
    # Each topology is shown in an object of its own, with one name more than it is stored with.
    return len(json.dumps(json.dumps(texts, ensure_ascii=False))) + 18 * len(stated.topologies or ())


def _existing(
    deps: Deps, query: VolumeQuery, answer: VolumePage, budget: _Budget
) -> Iterator[tuple[Volume, Plugin | None]]:
    """Yield the volumes that exist, each with its plugin. The answer's index rises to that of each record read."""
    plugins: dict[str, Plugin | None] = {}
    for page in _pages(deps, query, budget):
        missing = {v.plugin_id for v in page if v.exists} - plugins.keys()
        if missing:
            plugins |= dict.fromkeys(missing) | deps.plugins.get_many(missing)
        for volume in page:
            answer.index = max(answer.index, volume.modify_index)
            budget.spend(1)
            if budget.ends_at(volume.namespace, volume.id):
                return
            if volume.exists:
                yield volume, plugins[volume.plugin_id]


def _pages(deps: Deps, query: VolumeQuery, budget: _Budget) -> Iterator[list[Volume]]:
    """Yield records as they are read, by namespace and ID, from the token on."""
    # One more than is shown, for the token. If that is not enough, the store reads twice as many the next time.
    limit = min(max(query.per_page, 1) + 1, FIRST_READ) if query.per_page else FIRST_READ
    if query.node_id:
        yield from _on_nodes(deps, query, limit, budget)
        return
    if query.plugin_id:
        yield from _of_plugins(deps, query, limit, budget)
        return
    for namespace, start in _namespaces(deps, query, budget):
        yield from deps.volumes.in_namespace(namespace, prefix=query.prefix, start=start, limit=limit)


def _namespaces(deps: Deps, query: VolumeQuery, budget: _Budget) -> Iterator[tuple[str, str | None]]:
    """Yield the namespaces to read, each with the ID to start from."""
    token_namespace, _, token_id = query.next_token.partition(".")
    for namespace in namespaces.names(deps) if query.namespace == "*" else (query.namespace,):
        if query.next_token and namespace < token_namespace:
            continue
        start = token_id if query.next_token and namespace == token_namespace else None
        if budget.ends_at(namespace, start or ""):
            return
        budget.spend(QUERY_COST)
        yield namespace, start


def _on_nodes(deps: Deps, query: VolumeQuery, limit: int, budget: _Budget) -> Iterator[list[Volume]]:
    """Yield the volumes that are claimed on nodes whose ID begins with `node_id`, from the nodes' lists of claims."""
    ids = {query.node_id} | {node.id for node in deps.plugins.nodes(prefix=query.node_id)}
    plugins = set(_plugin_ids(deps, query)) if query.plugin_id else None
    token = query.next_token.partition(".")
    start = (token[0], token[2]) if query.next_token else None
    namespace = "" if query.namespace == "*" else query.namespace
    streams = [deps.claims.on_node(node_id, namespace=namespace, start=start) for node_id in sorted(ids)]
    # Several claims of one volume are neighbours in the merged order, and count once.
    keys = (key for key, _ in itertools.groupby((ns, volume_id) for ns, volume_id, _ in heapq.merge(*streams)))
    matching = _with_prefix(keys, query.prefix, budget)
    while chunk := list(itertools.islice(matching, min(limit, 100))):
        yield [v for v in deps.volumes.get_many(chunk) if plugins is None or v.plugin_id in plugins]


def _with_prefix(keys: Iterator[tuple[str, str]], prefix: str, budget: _Budget) -> Iterator[tuple[str, str]]:
    for namespace, volume_id in keys:
        if budget.ends_at(namespace, volume_id):
            return
        if volume_id.startswith(prefix):
            yield namespace, volume_id
        else:
            budget.spend(1)


def _plugin_ids(deps: Deps, query: VolumeQuery) -> list[str]:
    """Return the plugin with this ID, or, if there is none, all plugins whose ID begins with it."""
    if deps.plugins.get(query.plugin_id) is not None:
        return [query.plugin_id]
    return [p.id for p in deps.plugins.all(prefix=query.plugin_id)]


def _of_plugins(deps: Deps, query: VolumeQuery, limit: int, budget: _Budget) -> Iterator[list[Volume]]:
    """Yield the volumes of the plugins that `_plugin_ids` returns."""
    ids = _plugin_ids(deps, query)
    begin: Iterable[tuple[str | None, str | None]]
    if query.namespace == "*" and not query.prefix:
        # A plugin's volumes are stored in order of namespace and ID, so one Query reads all namespaces.
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
    """Yield the records of several plugins in one order, one at a time: no page is read before it is needed."""
    flat = [itertools.chain.from_iterable(pages) for pages in streams]
    yield from ([volume] for volume in heapq.merge(*flat, key=lambda v: (v.namespace, v.id)))
