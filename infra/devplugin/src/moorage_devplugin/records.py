"""Records of volumes, snapshots, groups and uses of volumes, one small JSON file each."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal, Self

State = Literal["making", "ready", "dropping"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """What all records share: an ID, which is also the file's name, and a place in the order of creation."""

    id: str
    name: str
    seq: int
    created: float
    state: State = "making"

    def to_json(self) -> str:
        return json.dumps({"format": 1, **dataclasses.asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse what `to_json` wrote. Raises ValueError, KeyError or TypeError for other text."""
        data: dict[str, Any] = json.loads(text)
        if data.pop("format") != 1:
            raise ValueError("the record is of a later version of moorage-devplugin")
        return cls(**cls._decode(data))

    @classmethod
    def _decode(cls, data: dict[str, Any]) -> dict[str, Any]:
        return data


@dataclass(frozen=True)
class Attachment:
    """A volume published to a node by the controller service."""

    readonly: bool
    mode: int
    block: bool


@dataclass(frozen=True, kw_only=True)
class Volume(Record):
    """A volume. Its data is in volumes/<id>, a block volume's in the file volumes/<id>/block."""

    capacity: int
    block: bool
    parameters: dict[str, str] = field(default_factory=dict)
    mutable: dict[str, str] = field(default_factory=dict)
    context: dict[str, str] = field(default_factory=dict)
    source_snapshot: str = ""
    source_volume: str = ""
    attachments: dict[str, Attachment] = field(default_factory=dict)

    @classmethod
    def _decode(cls, data: dict[str, Any]) -> dict[str, Any]:
        return data | {"attachments": {node: Attachment(**one) for node, one in data["attachments"].items()}}


@dataclass(frozen=True, kw_only=True)
class Snapshot(Record):
    """A copy of a volume's data, in snapshots/<id>. It does not need the volume."""

    volume: str
    size: int
    block: bool
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Group(Record):
    """Snapshots taken together."""

    snapshots: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Use(Record):
    """A path of this node at which a volume is staged or published. `name` is the path, `id` its hash."""

    volume: str
    kind: Literal["staged", "published"]
    readonly: bool
    mode: int
    capability: str
    how: Literal["nothing", "bind", "symlink"] = "nothing"
    source: str = ""
    """The folder or file that is visible there. Empty in records of version 0.1.0."""
    mounted: str = ""
    """What the kernel says of the bind mount (moorage_devplugin.mounts.mounted_at). Empty for a link."""
    made: bool = True
    """Whether the plugin made the folder or file at the path."""
