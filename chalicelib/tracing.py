"""X-Ray traces of AWS calls and CSI calls.

Outside Lambda there is no trace to belong to, so nothing is loaded. Segments are sent over UDP: a missing daemon
neither delays nor fails a call.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_recorder: Any = None


def start(*, in_lambda: bool) -> None:
    """Patch botocore, once per container. Call this before any client is made."""
    global _recorder  # noqa: PLW0603 - one recorder per process is what the SDK has
    if not in_lambda or _recorder is not None:
        return
    from aws_xray_sdk.core import patch, xray_recorder

    xray_recorder.configure(context_missing="IGNORE_ERROR", sampling=False)
    patch(("botocore",))
    _recorder = xray_recorder


@contextmanager
def subsegment(name: str, **annotations: str) -> Iterator[None]:
    """Record the block as a part of the trace. Annotations can be searched by, so they must not hold a secret."""
    if _recorder is None:
        yield
        return
    with _recorder.in_subsegment(name) as part:
        for key, value in annotations.items():
            if part is not None:
                part.put_annotation(key, value)
        yield
