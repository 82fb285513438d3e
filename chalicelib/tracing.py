"""X-Ray around handlers, AWS calls and CSI calls. Outside Lambda nothing is loaded: there is no trace to belong to.

Segments are sent over UDP, so nothing waits for a daemon, and nothing fails when none listens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_recorder: Any = None


def start(*, in_lambda: bool) -> None:
    """Patch botocore once per container, before any client is made."""
    global _recorder  # noqa: PLW0603 - one recorder per process is what the SDK has
    if not in_lambda or _recorder is not None:
        return
    from aws_xray_sdk.core import patch, xray_recorder

    xray_recorder.configure(context_missing="IGNORE_ERROR", sampling=False)
    patch(("botocore",))
    _recorder = xray_recorder


@contextmanager
def subsegment(name: str, **annotations: str | int) -> Iterator[None]:
    """A part of the trace with annotations to search by; never put a secret into one."""
    if _recorder is None:
        yield
        return
    with _recorder.in_subsegment(name) as part:
        for key, value in annotations.items():
            if part is not None:
                part.put_annotation(key, value)
        yield
