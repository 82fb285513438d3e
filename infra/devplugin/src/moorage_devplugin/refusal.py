"""The one exception that becomes a gRPC status."""

import grpc


class Refused(Exception):
    """The call cannot be done; `code` and `text` are what the caller is told, nothing was changed."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def invalid(text: str) -> Refused:
    """A request that no repetition makes right."""
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, text)


def missing(text: str) -> Refused:
    """Something the request names is not there."""
    return Refused(grpc.StatusCode.NOT_FOUND, text)


def required(value: str, field: str) -> str:
    """`value`, or INVALID_ARGUMENT if it is empty (CSI spec, Required fields)."""
    if not value:
        raise invalid(f"{field} is missing in the request")
    return value
