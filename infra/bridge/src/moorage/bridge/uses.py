"""The journal of node calls: which volume is staged and published at which path, one file per path.

A use is written durably before the plugin's call, and removed after the call that ends it. So what is not written here
was not staged or published by this bridge, but for what was mounted when the journal began: by an older version, or by
a bridge with another state folder (docs/decisions/025).
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from moorage.bridge.settings import BadSetting
from moorage.files import Folder
from moorage.mounts import paths

FOLDER: Final = "uses"
BEGINNING: Final = "beginning"
MOST_REFUSED: Final = 100
Kind = Literal["staged", "published"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


@dataclass(frozen=True)
class Use:
    """A path at which a volume is staged or published, or may be."""

    kind: Kind
    plugin: str
    volume: str
    """Its ID at the provider."""
    path: str
    """As the control plane has it."""
    resolved: str
    """Where it leads, which the plugin was given."""
    boot: str
    """The machine's boot in which it was written."""

    @property
    def file(self) -> str:
        return hashlib.sha256(f"{self.kind}\n{self.resolved}".encode()).hexdigest()[:32] + ".json"

    def overlaps(self, other: "Use") -> bool:
        """Return whether the two are in each other's way: at one path, or one below the other."""
        if (self.plugin, self.volume) == (other.plugin, other.volume) and self.kind != other.kind:
            return False
        here, there = f"{self.resolved}/", f"{other.resolved}/"
        return here.startswith(there) or there.startswith(here)


@dataclass(frozen=True)
class Beginning:
    """What was there when the journal began."""

    boot: str
    mounts: tuple[str, ...]
    """Paths at which anything was mounted."""
    upgraded: bool
    """Whether a bridge without this journal used the state folder before."""
    refused: tuple[tuple[str, str], ...] = ()
    """Operations, each with such a path that was refused to it. Nothing of such an operation is there."""


class UseJournal:
    """The uses of one state folder, which the bridge has locked."""

    def __init__(self, state: Path, *, upgraded: bool) -> None:
        """Read the journal, or begin one. Raises BadSetting."""
        self._state, self.boot = state, _boot()
        try:
            with self._opened() as folder:
                names = folder.names()
                if BEGINNING not in names:
                    self._begin(folder, Beginning(self.boot, tuple(sorted(paths.mount_points())), upgraded))
                self.beginning = _read_beginning(folder)
                uses = [_read_use(folder, name) for name in names if name.endswith(".json")]
        except OSError as exc:
            raise BadSetting(f"{state / FOLDER} cannot be used: {exc.strerror}") from exc
        self._uses = {use.file: use for use in uses}

    def __iter__(self) -> Iterator[Use]:
        return iter(list(self._uses.values()))

    def find(self, kind: Kind, plugin: str, volume: str, path: str) -> Use | None:
        """Return the use of a volume at a path as the control plane has it, or None."""
        wanted = (kind, plugin, volume, path)
        return next((use for use in self if (use.kind, use.plugin, use.volume, use.path) == wanted), None)

    def overlapping(self, use: Use) -> list[Use]:
        """Return the other uses that are in the way of one."""
        same = (use.kind, use.plugin, use.volume, use.path)
        return [one for one in self if one.overlaps(use) and (one.kind, one.plugin, one.volume, one.path) != same]

    def put(self, use: Use) -> None:
        """Write a use durably. Raises OSError."""
        with self._opened() as folder:
            folder.write(use.file, json.dumps(dataclasses.asdict(use), indent=1).encode(), mode=0o600)
        self._uses[use.file] = use

    def forget(self, use: Use) -> None:
        """Remove a use. Raises OSError."""
        with self._opened() as folder:
            folder.remove(use.file)
        self._uses.pop(use.file, None)

    def note_refusal(self, operation: str, path: str) -> None:
        """Remember durably that nothing was published for an operation at a path. Raises OSError."""
        noted = (*self.beginning.refused, (operation, path))[-MOST_REFUSED:]
        self.beginning = dataclasses.replace(self.beginning, refused=noted)
        with self._opened() as folder:
            self._begin(folder, self.beginning)

    def file_of(self, use: Use) -> Path:
        """Return the file of a use, for a text."""
        return self._state / FOLDER / use.file

    @contextmanager
    def _opened(self) -> Iterator[Folder]:
        with Folder.open(self._state) as state, state.folder(FOLDER, make=0o700) as folder:
            yield folder

    @staticmethod
    def _begin(folder: Folder, beginning: Beginning) -> None:
        folder.write(BEGINNING, json.dumps(dataclasses.asdict(beginning), indent=1).encode(), mode=0o600)


def _read_use(folder: Folder, name: str) -> Use:
    stored = _read(folder, name)
    try:
        use = Use(**stored)
    except TypeError as exc:
        raise _unreadable(folder, name, exc) from exc
    if use.kind not in KINDS or use.file != name:
        raise _unreadable(folder, name, "it names another path")
    return use


def _read_beginning(folder: Folder) -> Beginning:
    stored = _read(folder, BEGINNING)
    try:
        refused = tuple((operation, path) for operation, path in stored["refused"])
        return Beginning(stored["boot"], tuple(stored["mounts"]), stored["upgraded"], refused)
    except (KeyError, TypeError, ValueError) as exc:
        raise _unreadable(folder, BEGINNING, exc) from exc


def _read(folder: Folder, name: str) -> dict[str, Any]:
    try:
        stored: dict[str, Any] = json.loads(folder.read(name))
    except ValueError as exc:
        raise _unreadable(folder, name, exc) from exc
    return stored


def _unreadable(folder: Folder, name: str, why: object) -> BadSetting:
    return BadSetting(
        f"{folder.path / name} is not of this version's journal ({why}): use the bridge that wrote it, or release all "
        "claims on this node, unmount what is left, and remove the file"
    )


def _boot() -> str:
    """Return what tells this boot of the machine from others, or "" where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
