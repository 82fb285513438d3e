"""Where this bridge may have volumes mounted: below some folders, and where `moorage mount` was asked to."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from moorage.bridge.refusal import Refusal
from moorage.bridge.resolving import UnsafePath, resolve
from moorage.bridge.uses import FOLDER as USES
from moorage.mounts import paths
from moorage.mounts.api import TOKEN_FILE
from moorage.mounts.journal import FOLDER as MOUNTS
from moorage.mounts.journal import Entry, Journal

OWN_FILES: Final = frozenset({MOUNTS, USES, TOKEN_FILE, "api", "lock", "node-id"})
"""What the bridge keeps in its state folder. Nothing is mounted over it."""


@dataclass(frozen=True)
class Place:
    """A path that a call names for a volume."""

    plugin: str
    volume: str
    """Its ID at the provider."""
    name: str
    """What the path is, for a text: target path or staging path."""
    path: str


@dataclass(frozen=True)
class Bounds:
    """The folders of one bridge, and its journal of `moorage mount`."""

    state: Path
    mounts_below: tuple[Path, ...]
    mounts: Journal

    def allow(self, path: str) -> bool:
        """Return whether a path without links is below one of the folders, and none of the bridge's own files."""
        state = os.path.realpath(self.state)
        if path.startswith(f"{state}/"):
            own = path.removeprefix(f"{state}/").partition("/")[0]
            return own not in OWN_FILES and not own.startswith(".")
        folders = (os.path.realpath(folder) for folder in self.mounts_below)
        return any(path.startswith(f"{folder}/") for folder in folders)

    def entry_of(self, place: Place) -> Entry | None:
        """Return the entry of `moorage mount` that names the place for its volume, or None. Raises JournalTrouble."""
        for entry in self.mounts.entries():
            same = (entry.plugin, entry.external_id) == (place.plugin, place.volume)
            if same and place.path in (entry.target, entry.staging):
                return entry
        return None

    def resolve(self, place: Place, *, free: bool) -> str:
        """Return where the place is. `free` says that nothing may be there yet.

        Raises Refusal if it is out of bounds, if others can redirect it, or if it is not free. Raises JournalTrouble.
        """
        entry = self.entry_of(place)
        try:
            found = resolve(place.path).path
        except UnsafePath as exc:
            if entry is None and not self.allow(place.path):
                raise self._out_of_bounds(place) from exc
            raise _not_now(f"{place.name} {place.path} is not safe: {exc}") from exc
        if entry is None and not self.allow(found):
            raise self._out_of_bounds(place)
        if free:
            obstacle = paths.obstacle(found, ours=entry is not None and entry.settled)
            if obstacle:
                raise _not_now(f"{place.name} {place.path} is not free: {obstacle}")
        return found

    def _out_of_bounds(self, place: Place) -> Refusal:
        folders = " ".join(f"--mounts-below {folder}" for folder in self.mounts_below)
        return Refusal(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"{place.name} {place.path} is not below a folder that this bridge may mount in ({folders or self.state}): "
            "use a path below one, or start the bridge with one more --mounts-below FOLDER",
        )


def _not_now(text: str) -> Refusal:
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, text)
