"""Error texts of CSI calls as Nomad's clients know them."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

from chalicelib.domain.volume import Definition
from chalicelib.errors import PluginError

_NO_HINTS: Final[Mapping[str, str]] = MappingProxyType({})


@contextmanager
def reported_as(head: str, hints: Mapping[str, str] = _NO_HINTS) -> Iterator[None]:
    """Begin the text of a PluginError with `head` and with the hint for its gRPC code, if `hints` has one."""
    try:
        yield
    except PluginError as exc:
        raise type(exc)(head + hints.get(exc.code, "") + exc.text, code=exc.code) from exc


def create_hints(volume_id: str, definition: Definition) -> dict[str, str]:
    """Return the hints for CreateVolume, by gRPC code."""
    source = "&{" + f"{quoted(definition.snapshot_id)} {quoted(definition.clone_id)}" + "}"
    volume = f"volume {quoted(volume_id)}"
    return {
        "OUT_OF_RANGE": f"unsupported capacity_range for {volume}: ",
        "ALREADY_EXISTS": f"{volume} already exists but is incompatible with these parameters: ",
        "INVALID_ARGUMENT": f"{volume} snapshot source {source} is not compatible with these parameters: ",
        "NOT_FOUND": f"{volume} content source {source} does not exist: ",
    }


def expand_hints(external_id: str) -> dict[str, str]:
    """Return the hints for ControllerExpandVolume, by gRPC code."""
    volume = f"volume {quoted(external_id)}"
    return {
        "OUT_OF_RANGE": f"unsupported capacity_range for {volume}: ",
        "NOT_FOUND": f"{volume} could not be found: ",
        "FAILED_PRECONDITION": f"{volume} cannot be expanded while in use: ",
    }


def list_hints(next_token: str) -> dict[str, str]:
    """Return the hints for ListVolumes and ListSnapshots, by gRPC code."""
    return {"ABORTED": f"invalid starting token {quoted(next_token)}: "}


def quoted(text: str) -> str:
    """Return the text as Go's %q shows it."""
    return json.dumps(text, ensure_ascii=False)
