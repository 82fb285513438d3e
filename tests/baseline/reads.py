"""Make every read of the API about a set of rows. The requests follow from the rows."""

import json
from collections.abc import Iterator
from typing import Final

from tests.baseline.files import Exchange
from tests.baseline.parts import exchange
from tests.baseline.world import read_rows
from tests.harness import System

NEVER: Final = "never-was"
"""A name that no row has."""
SEARCHED: Final = ("volumes", "plugins", "nodes", "namespaces")


def answers(system: System) -> list[Exchange]:
    """Return today's answer to each read."""
    return [
        exchange(system, "POST" if body else "GET", path, query=query, body=body)
        for path, query, body in (*_things(system), *_lists(system), *_searches())
    ]


def _things(system: System) -> Iterator[tuple[str, str, str]]:
    """Yield the read of each thing that a row is about, and of one that does not exist, as path, query and body."""
    rows = read_rows(system)
    keys = {table: sorted((item["pk"]["S"], item["sk"]["S"]) for item in items) for table, items in rows.items()}
    claimed = {pk.removeprefix("vol#") for pk, _ in keys["claims"]} | {f"default#{NEVER}"}
    for pk, volume_id in (*keys["volumes"], ("ns#default", NEVER)):
        kind, _, namespace = pk.partition("#")
        if kind == "ns":
            yield f"/v1/volume/csi/{volume_id}", f"namespace={namespace}", ""
            if f"{namespace}#{volume_id}" in claimed:
                yield f"/v1/volume/csi/{volume_id}/claims", f"namespace={namespace}", ""
    audits = [(pk.partition("#")[2], sk) for pk, sk in keys["meta"] if pk.startswith("audit#")]
    for plugin_id, name in (*audits, (NEVER, "last")):
        run, _, number = name.partition("#")
        yield f"/v1/audit/{plugin_id}", f"next_token={run}.{int(number)}" if number else "", ""
    for path, names in (
        ("plugin/csi", [sk for pk, sk in keys["plugins"] if pk == "plugin"]),
        ("node", [sk for pk, sk in keys["plugins"] if pk == "node"]),
        ("namespace", [sk for pk, sk in keys["meta"] if pk == "namespace"]),
        ("operation", [sk for pk, sk in keys["operations"] if pk.startswith("op#")]),
    ):
        yield from ((f"/v1/{path}/{name}", "", "") for name in (*names, NEVER))


def _lists(system: System) -> Iterator[tuple[str, str, str]]:
    volumes, every = "/v1/volumes", "type=csi&namespace=*"
    yield volumes, every, ""
    for query in ("namespace=prod", f"namespace={NEVER}", "prefix=used", "per_page=7"):
        yield volumes, f"type=csi&{query}", ""
    yield volumes, f"{every}&per_page=7&next_token=default.plain", ""
    yield volumes, f'{every}&filter=AccessMode != "" and Name contains "used"', ""
    for plugin in system.deps.plugins.all():
        yield volumes, f"{every}&plugin_id={plugin.id}&per_page=15", ""
    for node in system.deps.plugins.nodes():
        yield volumes, f"{every}&node_id={node.id}&per_page=15", ""
    for path in ("/v1/plugins", "/v1/nodes", "/v1/namespaces"):
        yield path, "type=csi" if path == "/v1/plugins" else "", ""
        yield path, "type=csi&prefix=node-s" if path == "/v1/plugins" else "prefix=node-s", ""
    for query in ("per_page=5", "status=in doubt&per_page=5", "namespace=prod"):
        yield "/v1/operations", query, ""


def _searches() -> Iterator[tuple[str, str, str]]:
    for context in SEARCHED:
        yield "/v1/search", "", json.dumps({"Context": context, "Prefix": "n"})
    for text in ("used", "node", "ebs"):
        yield "/v1/search/fuzzy", "", json.dumps({"Context": "all", "Text": text})
