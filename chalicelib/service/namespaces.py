"""Create, read and delete namespaces.

A namespace is created before a volume can be in it, and deleted only when it has none.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from chalicelib.errors import Refused, WriteConflict, joined
from chalicelib.service.deps import Deps
from chalicelib.store import namespaces as namespace_store
from chalicelib.store.commit import Change, RefusedWrites
from chalicelib.store.dynamo import Write
from chalicelib.store.index import NAMESPACES
from chalicelib.store.namespaces import BUILT_IN, DEFAULT, Namespace, NamespaceState

NAME: Final = re.compile(r"[a-zA-Z0-9-]{1,128}")
DESCRIPTION_LIMIT: Final = 256


def list_namespaces(deps: Deps, *, prefix: str = "") -> tuple[int, list[Namespace]]:
    """Return the index and all namespaces, by name."""
    # Read before the data: a change in between is published later, with a larger index.
    index = deps.index.watch().now
    found = {n.name: n for n in deps.namespaces.all(prefix=prefix)}
    if DEFAULT.startswith(prefix):
        found.setdefault(DEFAULT, BUILT_IN)
    shown = [n for _, n in sorted(found.items())]
    return max([index, *(n.modify_index for n in shown)]), shown


def read(deps: Deps, name: str) -> tuple[int, Namespace | None]:
    """Return the index and the namespace, or None if there is none."""
    index = deps.index.watch().now
    found = deps.namespaces.get(name) or (BUILT_IN if name == DEFAULT else None)
    if found is not None:
        return max(index, found.modify_index), found
    return index, None


def write(deps: Deps, name: str, body: Mapping[str, object], *, description: str, quota: str) -> int:
    """Create or change a namespace, and return the index.

    `body` is what is stored of the request. Raises Refused, or WriteConflict while the namespace is being deleted.
    """
    problems = []
    if not NAME.fullmatch(name):
        problems.append(f'invalid name "{name}". Must match regex ^[a-zA-Z0-9-]{{1,128}}$')
    if len(description) > DESCRIPTION_LIMIT:
        problems.append(f"description longer than {DESCRIPTION_LIMIT}")
    if problems:
        raise Refused(f'Invalid namespace "{name}": ' + joined(problems))
    if quota:
        raise Refused(f'namespace "{name}" using non-existent quota "{quota}"')

    def build(_: RefusedWrites) -> Change[None]:
        read = deps.namespaces.get(name)
        if read is not None and read.state is NamespaceState.DELETING:
            raise WriteConflict(f"namespace {name} is being deleted: try again in a moment, or repeat the delete")

        def writes(index: int) -> list[Write]:
            created = read.create_index if read else 1 if name == DEFAULT else index
            wanted = Namespace(name, body, create_index=created, modify_index=index)
            return [namespace_store.put(wanted, read=read)]

        return Change(None, writes)

    index, _ = deps.committer.commit(NAMESPACES, build=build, what=f"namespace {name}")
    return index


def delete(deps: Deps, name: str) -> int:
    """Delete a namespace without volumes, and return the index.

    The namespace is marked before its volumes are read. Every create checks the mark in its own transaction, so a
    create that the read does not see can no longer succeed. Raises Refused, or WriteConflict if others change the
    namespace.
    """
    if name == DEFAULT:
        raise Refused("can not delete default namespace")
    found = deps.namespaces.get(name)
    if found is None:
        raise Refused("namespace not found")
    marked = replace(found, state=NamespaceState.DELETING)
    if found.state is NamespaceState.ACTIVE and not deps.namespaces.put(marked, read=found):
        raise WriteConflict(f"namespace {name} is being changed by others: try again in a moment")
    if _has_volumes(deps, name):
        deps.namespaces.put(replace(found, state=NamespaceState.ACTIVE), read=marked)
        raise Refused(joined([f'namespace "{name}" has volumes associated with it in regions: [global]']))
    removal = Change(None, lambda _: [namespace_store.remove(name)])
    # One try: if the mark is gone, another delete has found volumes and has taken it back.
    index, _ = deps.committer.commit(NAMESPACES, build=lambda _: removal, what=f"namespace {name}", tries=1)
    return index


def names(deps: Deps) -> Iterator[str]:
    """Yield every namespace's name, in order."""
    yield from sorted({n.name for n in deps.namespaces.all()} | {DEFAULT})


def _has_volumes(deps: Deps, name: str) -> bool:
    """Return whether it has any record but a tombstone. A volume that is being created counts."""
    pages = deps.volumes.in_namespace(name)
    return any(volume.state != "gone" for page in pages for volume in page)
