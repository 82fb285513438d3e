"""Allow one operation at a time on a key, or many readers. Others get ABORTED (CSI spec, Concurrency)."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from moorage_devplugin.refusal import Refused


class Holds:
    """The keys that are in use now. Raises Refused (ABORTED) instead of waiting."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: dict[str, int] = {}
        self._writers: set[str] = set()

    @contextmanager
    def change(self, *keys: str) -> Iterator[None]:
        """Hold `keys` alone in this block."""
        wanted = set(keys)
        with self._lock:
            for key in wanted:
                if key in self._writers or key in self._readers:
                    raise _busy(key)
            self._writers |= wanted
        try:
            yield
        finally:
            with self._lock:
                self._writers -= wanted

    @contextmanager
    def read(self, *keys: str) -> Iterator[None]:
        """Hold `keys` in this block, together with other readers."""
        wanted = set(keys)
        with self._lock:
            for key in wanted:
                if key in self._writers:
                    raise _busy(key)
            for key in wanted:
                self._readers[key] = self._readers.get(key, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                for key in wanted:
                    self._readers[key] -= 1
                    if not self._readers[key]:
                        del self._readers[key]


def _busy(key: str) -> Refused:
    return Refused(grpc.StatusCode.ABORTED, f"an operation on {key} is in progress: repeat the call when it is over")
