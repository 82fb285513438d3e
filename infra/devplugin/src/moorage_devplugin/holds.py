"""One operation at a time on a key, many readers; who comes too late is told ABORTED (CSI spec, Concurrency)."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from moorage_devplugin.refusal import Refused


class Holds:
    """What is being worked on now. Nobody waits: the caller is told to come again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: dict[str, int] = {}
        self._writers: set[str] = set()

    @contextmanager
    def change(self, *keys: str) -> Iterator[None]:
        """Hold `keys` alone."""
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
        """Hold `keys` together with other readers."""
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
