"""Queries to plugins and their answers, as JSON between the API's function and the worker's.

A query is `{"ask": name, "deadline": seconds, ...}`. An answer is `{"ok": ...}` or
`{"error": {"kind", "text", "code"}}`: Lambda reports an exception in another form for each runtime.

During an upgrade the two functions may be a version apart. So a name never changes, a new field has a default, and a
field that this version does not know is ignored.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Final, TypeVar

from chalicelib.domain.external import Page
from chalicelib.domain.secrets import from_base64, to_base64
from chalicelib.domain.volume import Volume
from chalicelib.errors import PluginError, PluginInDoubt, PluginRejected, PluginUnreachable
from chalicelib.store import volumes

T = TypeVar("T")
Json = dict[str, Any]

DEADLINE: Final = 20.0
"""Seconds that a query may take, within the gateway's limit."""


@dataclass(frozen=True, slots=True)
class ValidateVolume:
    """The query whether a volume exists at its provider and can do what its definition says."""

    NAME: ClassVar = "validate_volume"
    volume: Volume
    sealed_secrets: bytes = field(repr=False)

    def encode(self) -> Json:
        return {
            "plugin_id": self.volume.plugin_id,
            "namespace": self.volume.namespace,
            "volume_id": self.volume.id,
            "definition": volumes.encode(self.volume.definition),
            "secrets": to_base64(self.sealed_secrets),
        }

    @classmethod
    def decode(cls, event: Mapping[str, Any]) -> "ValidateVolume":
        definition = volumes.decode(event["definition"])
        volume = Volume(event["namespace"], event["volume_id"], event["plugin_id"], definition=definition)
        return cls(volume, from_base64(event["secrets"]))


@dataclass(frozen=True, slots=True)
class ListVolumes:
    """The query for one page of the provider's volumes."""

    NAME: ClassVar = "list_volumes"
    plugin_id: str
    per_page: int
    """0 lets the plugin choose."""
    next_token: str

    def encode(self) -> Json:
        return {"plugin_id": self.plugin_id, "per_page": self.per_page, "next_token": self.next_token}

    @classmethod
    def decode(cls, event: Mapping[str, Any]) -> "ListVolumes":
        return cls(event["plugin_id"], int(event["per_page"]), event["next_token"])


@dataclass(frozen=True, slots=True)
class ListSnapshots:
    """The query for one page of the provider's snapshots."""

    NAME: ClassVar = "list_snapshots"
    plugin_id: str
    per_page: int
    """0 lets the plugin choose."""
    next_token: str
    sealed_secrets: bytes = field(default=b"", repr=False)

    def encode(self) -> Json:
        return {
            "plugin_id": self.plugin_id,
            "per_page": self.per_page,
            "next_token": self.next_token,
            "secrets": to_base64(self.sealed_secrets),
        }

    @classmethod
    def decode(cls, event: Mapping[str, Any]) -> "ListSnapshots":
        secrets = from_base64(event["secrets"])
        return cls(event["plugin_id"], int(event["per_page"]), event["next_token"], secrets)


Query = ValidateVolume | ListVolumes | ListSnapshots
_QUERIES: Final[Mapping[str, type[Query]]] = {kind.NAME: kind for kind in (ValidateVolume, ListVolumes, ListSnapshots)}


def encode_query(query: Query, seconds: float) -> Json:
    """Return the query as JSON. Its deadline is `seconds`, at most DEADLINE."""
    return {"ask": query.NAME, "deadline": min(seconds, DEADLINE), **query.encode()}


def decode_query(event: Mapping[str, Any]) -> tuple[Query, float]:
    """Return a query, and the seconds within which it must be answered."""
    return _QUERIES[event["ask"]].decode(event), min(float(event.get("deadline", DEADLINE)), DEADLINE)


_ERRORS: Final[Mapping[str, type[PluginError]]] = {
    "rejected": PluginRejected,
    "in_doubt": PluginInDoubt,
    "unreachable": PluginUnreachable,
}


def encode_answer(answer: Page[Any] | None) -> Json:
    """Return the answer to a query as JSON."""
    return {"ok": None if answer is None else asdict(answer)}


def encode_error(error: PluginError) -> Json:
    """Return the error that a query ended in as JSON."""
    # An error of no known kind must not count as final.
    kind = next((name for name, known in _ERRORS.items() if isinstance(error, known)), "in_doubt")
    return {"error": {"kind": kind, "text": error.text, "code": error.code}}


def decode_answer(body: Mapping[str, Any]) -> Any:
    """Return the answer's JSON. Raises the PluginError that the body stands for."""
    if "error" in body:
        error = body["error"]
        raise _ERRORS[error["kind"]](error["text"], code=error["code"])
    return body["ok"]


def decode_page(kind: type[T], answer: Mapping[str, Any]) -> Page[T]:
    """Return an answer's page of `kind`, which is ExternalVolume or Snapshot."""
    names = {one.name for one in fields(kind)}  # type: ignore[arg-type] # both kinds are dataclasses
    entries = [kind(**{name: entry[name] for name in names & entry.keys()}) for entry in answer["entries"]]
    return Page(entries, answer["next_token"])
