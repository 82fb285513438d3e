"""Lists of volumes: in order of namespace and ID, a page at a time, by namespace, plugin, prefix and filter.

Nothing scans a table. The watch is read first and strongly, then the records strongly: whatever is committed later
has not been published yet and wakes whoever blocks on this answer's index (protocols, section 1).
"""

import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from chalicelib.domain.plugin import Plugin
from chalicelib.domain.volume import Volume
from chalicelib.errors import RequestError
from chalicelib.service import namespaces
from chalicelib.service.deps import Deps

READ_BUDGET: Final = 5_000
"""Records that one page may read when a filter lets few of them through; then a short page is answered, with its
token.
"""
SIZE_LIMIT: Final = 5 * 1024 * 1024
STUB_BYTES: Final = 700
"""A cautious guess of an entry's size; with it the size is checked without encoding twice."""

Matches = Callable[[Volume, Plugin | None], bool]


@dataclass(frozen=True, slots=True)
class Query:
    """What a list is asked for; `per_page` 0 is all, a negative one none."""

    namespace: str = "default"
    prefix: str = ""
    plugin_id: str = ""
    node_id: str = ""
    per_page: int = 0
    next_token: str = ""
    matches: Matches | None = None


@dataclass
class Listed:
    """One page: `next_token` is `<namespace>.<id>` of the first volume of the next page."""

    index: int
    volumes: list[tuple[Volume, Plugin | None]] = field(default_factory=list)
    next_token: str = ""


def list_volumes(deps: Deps, query: Query) -> Listed:
    """The page; raises RequestError when an unpaged list is larger than an answer can be."""
    watch = deps.index.watch()
    listed = Listed(max(watch.of_volumes(query.namespace), 1))
    if query.node_id:
        # No volume is on a node without a claim, and claims name their node.
        return listed
    plugins = _Plugins(deps)
    seen = size = 0
    for page in _pages(deps, query):
        plugins.learn(page)
        for volume in page:
            listed.index = max(listed.index, volume.modify_index)
            seen += 1
            if not volume.exists:
                continue
            plugin = plugins.of(volume)
            full = query.per_page and len(listed.volumes) >= query.per_page
            if (full or (query.per_page and seen > READ_BUDGET)) and (full or query.matches):
                if not full or query.matches is None or query.matches(volume, plugin):
                    listed.next_token = f"{volume.namespace}.{volume.id}"
                    return listed
                continue
            if query.matches is None or query.matches(volume, plugin):
                listed.volumes.append((volume, plugin))
                size += STUB_BYTES + len(volume.id) + len(volume.name) + len(volume.external_id)
        if size > SIZE_LIMIT:
            raise RequestError("the list is larger than 5 MB: ask for pages with per_page", status=413)
    return listed


class _Plugins:
    """The plugins of the volumes read so far, each read once."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._known: dict[str, Plugin | None] = {}

    def learn(self, page: list[Volume]) -> None:
        missing = {v.plugin_id for v in page if v.exists} - self._known.keys()
        if missing:
            found = self._deps.plugins.get_many(missing)
            self._known |= {plugin_id: found.get(plugin_id) for plugin_id in missing}

    def of(self, volume: Volume) -> Plugin | None:
        return self._known.get(volume.plugin_id)


def _pages(deps: Deps, query: Query) -> Iterator[list[Volume]]:
    token_namespace, _, token_id = query.next_token.partition(".")
    wanted = [query.namespace] if query.namespace != "*" else list(namespaces.names(deps))
    limit = query.per_page + 1 if query.per_page > 0 and query.matches is None else 500
    for namespace in wanted:
        if query.next_token and namespace < token_namespace:
            continue
        start = token_id if query.next_token and namespace == token_namespace else None
        if query.plugin_id:
            yield from _of_plugin(deps, query, namespace, start)
        else:
            yield from deps.volumes.in_namespace(namespace, prefix=query.prefix, start=start, limit=min(limit, 500))


def _of_plugin(deps: Deps, query: Query, namespace: str, start: str | None) -> Iterator[list[Volume]]:
    """Volumes of the plugin with that ID, or, if there is none, of all plugins whose ID begins so."""
    ids = [query.plugin_id]
    if deps.plugins.get(query.plugin_id, consistent=False) is None:
        ids = [p.id for p in deps.plugins.all(prefix=query.plugin_id)]
    streams = [
        itertools.chain.from_iterable(deps.volumes.of_plugin(i, namespace=namespace, prefix=query.prefix, start=start))
        for i in ids
    ]
    merged = heapq.merge(*streams, key=lambda v: v.id)
    while page := list(itertools.islice(merged, 200)):
        yield page
