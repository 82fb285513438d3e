"""The exception by which the bridge refuses a call."""

import grpc


class Refusal(Exception):
    """The bridge does not forward the call. The caller gets `code` and `text`."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text
