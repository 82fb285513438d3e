"""The errors of the control plane, and what a client is told.

    VolumesError                     never raised itself; .status and .text are the answer (text/plain)
      RequestError            4xx    the request itself: 400 malformed, 405 method, 412 precondition, 413 too large
      PermissionDenied        403
      NotFound                404    a known path, an unknown thing
      Refused                 500    a rule said no (500 is what Nomad answers, and clients expect it)
      OperationInProgress     409    another request is changing the same volume
      StorageOutdated         409    a removal of the storage is under way, or has just ended
      StageUpgrading          503    the records of an older version are being converted
      OperationPending        504    accepted, still running: repeat the request to go on waiting
      StoreError
        WriteConflict         503    another writer was first too often: it is retried, and seen only past the limit
        StoreUnavailable      503    DynamoDB, SQS or KMS does not answer; Throttled 429
      PluginError             500    what a CSI call ended in
        PluginRejected               the plugin's answer is final
        PluginInDoubt                the call may have had its effect: only the same call may be repeated
        PluginUnreachable            no call was made
      LeaseLost                      another worker owns the operation: stop, and undo nothing

Status and text belong to one route, so the code that raises an error chooses both. No text may hold anything that a
client could take for a status code: no AWS request ID, no ARN, and operation IDs are letters only
(tests/http/test_error_texts.py).
"""

from collections.abc import Sequence
from typing import ClassVar


class VolumesError(Exception):
    """Base of all errors with an answer: `status` is the HTTP status, `text` the body."""

    status: ClassVar[int] = 500
    retry_after: int | None = None

    def __init__(self, text: str, *, status: int | None = None) -> None:
        super().__init__(text)
        self.text = text
        if status is not None:
            self.status = status  # type: ignore[misc]  # an instance may narrow what its class says


class RequestError(VolumesError):
    """The caller must change the request."""

    status = 400


class PermissionDenied(VolumesError):
    status = 403


class NotFound(VolumesError):
    status = 404


class Refused(VolumesError):
    """A rule of the domain forbids it. Nothing was changed."""


class OperationInProgress(VolumesError):
    """Another operation holds the volume."""

    status = 409


class StorageOutdated(VolumesError):
    """What a provider said of a storage may be older than a removal of it: ask again."""

    status = 409

    def __init__(self, text: str, *, retry_after: int) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class StageUpgrading(VolumesError):
    """The records of an older version are not in the storages' items yet, so none may come or go."""

    status = 503
    retry_after = 60


class OperationPending(VolumesError):
    """The operations go on after the answer. `GET /v1/operation/:id` shows them."""

    status = 504

    def __init__(self, text: str, operation_ids: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.operation_ids = tuple(operation_ids)


class StoreError(VolumesError):
    status = 503
    retry_after = 1


class WriteConflict(StoreError):
    """A conditional write lost against other writers, more often than it may be repeated."""


class StoreUnavailable(StoreError):
    """An AWS service did not answer or failed. Only a read can tell whether the write was made."""


class Throttled(StoreUnavailable):
    status = 429


class PluginError(VolumesError):
    """A CSI call failed. `code` is the name of its gRPC status, and `text` is what clients are shown."""

    def __init__(self, text: str, *, code: str = "UNKNOWN") -> None:
        super().__init__(text)
        self.code = code


class PluginRejected(PluginError):
    """The plugin answered, with a final error."""


class PluginInDoubt(PluginError):
    """The call may have had its effect."""


class PluginUnreachable(PluginError):
    """No call was made: there is no healthy instance, or no request left this side."""


class LeaseLost(Exception):
    """The operation's record belongs to a later attempt."""


def joined(texts: Sequence[str]) -> str:
    """Return several errors in one text, in the form that Nomad's clients parse."""
    count = len(texts)
    head = "1 error occurred:" if count == 1 else f"{count} errors occurred:"
    return head + "".join(f"\n\t* {text}" for text in texts) + "\n\n"
