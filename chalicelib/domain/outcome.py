"""What a gRPC status means for each RPC: the one table of outcomes.

`REJECTED`: the plugin answered and will do nothing more for this call. `IN_DOUBT`: it may have had its effect, or
still have it. `GONE`: what should be removed is not there, which is success. Whether a rejection proves anything
about the storage is a second question (`PROOF`): INTERNAL after CreateVolume may have left a volume behind (CSI spec,
CreateVolume errors; external-provisioner reads it so too).
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final


class Outcome(Enum):
    REJECTED = "rejected"
    IN_DOUBT = "in doubt"
    GONE = "gone"


GO_NAMES: Final[Mapping[str, str]] = {
    "OK": "OK",
    "CANCELLED": "Canceled",
    "UNKNOWN": "Unknown",
    "INVALID_ARGUMENT": "InvalidArgument",
    "DEADLINE_EXCEEDED": "DeadlineExceeded",
    "NOT_FOUND": "NotFound",
    "ALREADY_EXISTS": "AlreadyExists",
    "PERMISSION_DENIED": "PermissionDenied",
    "RESOURCE_EXHAUSTED": "ResourceExhausted",
    "FAILED_PRECONDITION": "FailedPrecondition",
    "ABORTED": "Aborted",
    "OUT_OF_RANGE": "OutOfRange",
    "UNIMPLEMENTED": "Unimplemented",
    "INTERNAL": "Internal",
    "UNAVAILABLE": "Unavailable",
    "DATA_LOSS": "DataLoss",
    "UNAUTHENTICATED": "Unauthenticated",
}

_IN_DOUBT: Final = frozenset({"CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "ABORTED"})
_IN_DOUBT_OF: Final[Mapping[str, frozenset[str]]] = {
    # external-attacher: an attach that ran out of resources may be running; external-provisioner: a create is over.
    "ControllerPublishVolume": frozenset({"RESOURCE_EXHAUSTED"}),
    "ControllerUnpublishVolume": frozenset({"RESOURCE_EXHAUSTED"}),
}
_GONE_OF: Final[Mapping[str, frozenset[str]]] = {
    "DeleteVolume": frozenset({"NOT_FOUND"}),
    "DeleteSnapshot": frozenset({"NOT_FOUND"}),
    "ControllerUnpublishVolume": frozenset({"NOT_FOUND"}),
    "NodeUnpublishVolume": frozenset({"NOT_FOUND"}),
    "NodeUnstageVolume": frozenset({"NOT_FOUND"}),
}
_PROVES_NOTHING_MADE: Final = frozenset({"INVALID_ARGUMENT", "OUT_OF_RANGE", "UNIMPLEMENTED", "NOT_FOUND"})
# NOT_FOUND of a create speaks of its source (CSI spec, CreateVolume errors: "Source incompatible or not found").
PROOF: Final[Mapping[str, frozenset[str]]] = {
    "CreateVolume": _PROVES_NOTHING_MADE,
    "CreateSnapshot": _PROVES_NOTHING_MADE,
    # A delete that is refused for these left the volume as it was (CSI spec, DeleteVolume errors: 9 is "Volume in
    # use").
    "DeleteVolume": frozenset({"INVALID_ARGUMENT", "OUT_OF_RANGE", "UNIMPLEMENTED", "FAILED_PRECONDITION"}),
    "DeleteSnapshot": frozenset({"INVALID_ARGUMENT", "OUT_OF_RANGE", "UNIMPLEMENTED", "FAILED_PRECONDITION"}),
    # FAILED_PRECONDITION is "published to another node" (CSI spec, ControllerPublishVolume errors): not to this one.
    "ControllerPublishVolume": frozenset(
        {"INVALID_ARGUMENT", "OUT_OF_RANGE", "UNIMPLEMENTED", "FAILED_PRECONDITION", "NOT_FOUND"}
    ),
    "ControllerExpandVolume": frozenset(
        {"INVALID_ARGUMENT", "OUT_OF_RANGE", "UNIMPLEMENTED", "FAILED_PRECONDITION", "NOT_FOUND"}
    ),
}


UNUSABLE: Final = "INTERNAL"
"""What an answer counts as that cannot be used: it was given, and proves nothing."""


def outcome(rpc: str, code: str) -> Outcome:
    """What `code` (gRPC's name, upper case) means after `rpc`; a code that nobody knows is in doubt."""
    if code in _GONE_OF.get(rpc, ()):
        return Outcome.GONE
    if code in _IN_DOUBT or code in _IN_DOUBT_OF.get(rpc, ()) or code not in GO_NAMES:
        return Outcome.IN_DOUBT
    return Outcome.REJECTED


def is_answer(code: str) -> bool:
    """Whether a rejection surely came from the plugin, so that its call cannot land later.

    UNKNOWN is what plugins answer for their plainest errors, but also what a transport may make up.
    """
    return code != "UNKNOWN"


def proves(rpc: str, code: str) -> bool:
    """Whether the rejection proves that the call changed nothing at the provider."""
    return code in PROOF.get(rpc, ())
