"""Searches in Nomad's JSON: the two request bodies, the contexts, and the answers."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from chalicelib.wire.kinds import STRING, Field, Struct, Text

CONTEXTS: Final = (
    "allocs",
    "jobs",
    "nodes",
    "node_pools",
    "evals",
    "deployment",
    "plugins",
    "volumes",
    "scaling_policy",
    "vars",
    "namespaces",
    "host_volumes",
)
ALL: Final = "all"

_CONTEXT = Text("structs.Context")
_QUERY_OPTIONS = (
    Field("Region", STRING, embedded="QueryOptions"),
    Field("Namespace", STRING, embedded="QueryOptions"),
)
REQUEST: Final = Struct("structs.SearchRequest", (Field("Prefix", STRING), Field("Context", _CONTEXT), *_QUERY_OPTIONS))
FUZZY_REQUEST: Final = Struct(
    "structs.FuzzySearchRequest", (Field("Text", STRING), Field("Context", _CONTEXT), *_QUERY_OPTIONS)
)


def unknown_context(context: str) -> str:
    """Return the text that refuses a context."""
    names = " ".join(CONTEXTS)
    return f"context must be one of [{names}] or 'all' for all contexts; got \"{context}\""


def answer(index: int, matches: Mapping[str, Any], truncations: Mapping[str, bool]) -> dict[str, Any]:
    """Return the answer of either search."""
    return {
        "Index": index,
        "KnownLeader": True,
        "LastContact": 0,
        "Matches": dict(matches),
        "NextToken": "",
        "Truncations": dict(truncations),
    }


def fuzzy_match(found: str, scope: Sequence[str] = ()) -> dict[str, Any]:
    """Return one match. `scope` names the object that it belongs to, or the one whose name it is."""
    return {"ID": found, "Scope": list(scope)} if scope else {"ID": found}
