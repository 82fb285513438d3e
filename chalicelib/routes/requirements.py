"""The requirements of routes: what the sender of a request must be allowed, in the words of Nomad's ACL policies.

Every row of the route table declares a requirement. Only SIGNED is enforced yet, by routes/bridges.py. The others are
to be checked in `Endpoint._serve`. The values follow recordings of a Nomad with ACLs. `Moorage.SharedWith` of a volume
names volumes of other namespaces: it must be filtered by what the reader may see there.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Literal, TypeAlias

Capability: TypeAlias = Literal[
    "any",  # one that the token has in the namespace, no matter which
    "csi-list-volume",
    "csi-mount-volume",
    "csi-read-volume",
    "csi-write-volume",
    "host-volume-create",
    "host-volume-delete",
    "host-volume-read",
    "host-volume-register",
    "list-jobs",
    "read-job",
    "submit-job",
]
Level: TypeAlias = Literal["", "read", "write"]


class Proof(Enum):
    """The proof of who sent a request."""

    NONE = auto()
    """No proof is read, so a request with a wrong token is served too."""
    TOKEN = auto()
    """A token that is known, or none, which stands for the anonymous policy."""
    MANAGEMENT = auto()
    SIGNATURE = auto()
    """A bridge's signature over the body, which routes/bridges.py checks already."""


class Source(Enum):
    """Where the namespaces are named in which `Requirement.capabilities` must hold."""

    QUERY = auto()
    """The parameter `namespace`. `*` is any one of the token's."""
    BODY = auto()
    """Each definition in the body names its own. One that does not has the query's."""
    PATH = auto()
    RECORD = auto()
    """The record's own, which is known once it is read. A list is filtered by each entry's."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """What must hold, all of it together. Of `capabilities` one is enough, in each of the namespaces."""

    proof: Proof = Proof.TOKEN
    capabilities: frozenset[Capability] = frozenset()
    source: Source = Source.QUERY
    plugin: Literal["", "list", "read"] = ""
    node: Level = ""
    agent: Level = ""
    operator: Level = ""


def _one_of(*capabilities: Capability, plugin: Literal["", "read"] = "", source: Source = Source.QUERY) -> Requirement:
    return Requirement(capabilities=frozenset(capabilities), plugin=plugin, source=source)


PUBLIC: Final = Requirement(proof=Proof.NONE)
ANONYMOUS: Final = Requirement()
"""Any known token, or none. The answer may still depend on it (namespaces, policies, the contexts of a search)."""
MANAGEMENT: Final = Requirement(proof=Proof.MANAGEMENT)
SIGNED: Final = Requirement(proof=Proof.SIGNATURE)

LIST_VOLUMES: Final = _one_of("csi-list-volume", "csi-read-volume", "csi-mount-volume", "list-jobs")
READ_VOLUME: Final = _one_of("csi-read-volume", "csi-mount-volume", "read-job")
WRITE_VOLUMES: Final = _one_of("csi-write-volume", plugin="read", source=Source.BODY)
DEREGISTER_VOLUME: Final = _one_of("csi-write-volume")
DELETE_VOLUME: Final = _one_of("csi-write-volume", plugin="read")
DETACH_VOLUME: Final = _one_of("csi-mount-volume", plugin="read")
MOUNT_VOLUME: Final = _one_of("csi-mount-volume")
"""Take, renew and release a claim."""
LIST_EXTERNAL: Final = LIST_VOLUMES
"""List a provider's volumes or snapshots."""
WRITE_SNAPSHOT: Final = DELETE_VOLUME

READ_OPERATION: Final = _one_of("csi-read-volume", "csi-mount-volume", "read-job", source=Source.RECORD)

READ_HOST_VOLUME: Final = _one_of("host-volume-read")
DELETE_HOST_VOLUME: Final = _one_of("host-volume-delete")
CREATE_HOST_VOLUME: Final = _one_of("host-volume-create", source=Source.BODY)
REGISTER_HOST_VOLUME: Final = _one_of("host-volume-register", source=Source.BODY)

LIST_PLUGINS: Final = Requirement(plugin="list")
READ_PLUGIN: Final = Requirement(plugin="read")
READ_NODE: Final = Requirement(node="read")
WRITE_NODE: Final = Requirement(node="write")
READ_AGENT: Final = Requirement(agent="read")
WRITE_AGENT: Final = Requirement(agent="write")
READ_OPERATOR: Final = Requirement(operator="read")
WRITE_OPERATOR: Final = Requirement(operator="write")
READ_NAMESPACE: Final = _one_of("any", source=Source.PATH)

LIST_JOBS: Final = _one_of("list-jobs")
READ_JOB: Final = _one_of("read-job")
SUBMIT_JOB: Final = _one_of("submit-job")
