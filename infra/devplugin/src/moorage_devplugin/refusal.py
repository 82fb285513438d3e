"""The exception that becomes a gRPC status."""

import grpc


class Refused(Exception):
    """The call is refused and changed nothing. The caller gets `code` and `text`."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def invalid(text: str) -> Refused:
    """Return an INVALID_ARGUMENT, for a request that cannot succeed when it is repeated."""
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, text)


def missing(text: str) -> Refused:
    """Return a NOT_FOUND, for something that the request names."""
    return Refused(grpc.StatusCode.NOT_FOUND, text)


def required(value: str, field: str) -> str:
    """Return `value`. Raises Refused (INVALID_ARGUMENT) if it is empty (CSI spec, Required fields)."""
    if not value:
        raise invalid(f"{field} is missing in the request")
    return value
