"""The outcome of a gRPC status for each RPC. The decisions that follow from codes are made by this table alone.

`REJECTED`: the call is over, and has no further effect; `is_answer` has the one exception. `IN_DOUBT`: the call may
have had its effect, or may still have it. `GONE`: what the call should remove is not there, which is success. Whether a
rejection proves anything about the storage is a second question (`PROOF`): INTERNAL after CreateVolume may have left a
volume behind (CSI spec, CreateVolume errors; external-provisioner reads it in the same way).

Some codes are not the plugin's. A bridge answers ABORTED for an older attempt than it has seen, PERMISSION_DENIED for a
caller that it does not trust, and UNAVAILABLE when the plugin does not answer. gRPC itself answers UNAVAILABLE,
DEADLINE_EXCEEDED and CANCELLED, and UNKNOWN for errors of its own.
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
    # external-attacher takes an attach that ran out of resources for one that may still run. external-provisioner
    # takes such a create for one that is over.
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
# NOT_FOUND after a create is about its source (CSI spec, CreateVolume errors: "Source incompatible or not found").
PROOF: Final[Mapping[str, frozenset[str]]] = {
    "CreateVolume": _PROVES_NOTHING_MADE,
    "CreateSnapshot": _PROVES_NOTHING_MADE,
    # A delete that is rejected with one of these left the volume as it was (CSI spec, DeleteVolume errors: 9
    # FAILED_PRECONDITION is "Volume in use").
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
"""The code for an answer that cannot be used: the plugin did answer, and the answer proves nothing."""


def outcome(rpc: str, code: str) -> Outcome:
    """Return the outcome of `code` (gRPC's name, upper case) after `rpc`. An unknown code is in doubt."""
    if code in _GONE_OF.get(rpc, ()):
        return Outcome.GONE
    if code in _IN_DOUBT or code in _IN_DOUBT_OF.get(rpc, ()) or code not in GO_NAMES:
        return Outcome.IN_DOUBT
    return Outcome.REJECTED


def is_answer(code: str) -> bool:
    """Return whether a rejection with this code came from the plugin, so that its call cannot land later.

    UNKNOWN proves neither: plugins answer it for errors without a code of their own, and a transport may make it up.
    """
    return code != "UNKNOWN"


def proves(rpc: str, code: str) -> bool:
    """Return whether the rejection proves that the call changed nothing at the provider."""
    return code in PROOF.get(rpc, ())
