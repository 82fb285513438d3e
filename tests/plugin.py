"""The directory plugin in a process of its own, and a client that calls it over its socket, without a bridge."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from chalicelib.clock import Clock
from chalicelib.csi.calls import CsiCalls
from chalicelib.domain.plugin import Instance
from chalicelib.plugin_queries import server
from chalicelib.plugin_queries.client import PluginQueries
from chalicelib.sealing import Sealer
from chalicelib.store.plugins import PluginStore

START_SECONDS = 60.0
"""Long enough for a start on a busy machine. A process that ends is noticed at once."""
AT_ONCE = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200))
"""A socket that is not there yet is tried again soon. By default gRPC waits a second."""
RUN = "from moorage_devplugin.cli import main; main()"


class SocketChannels:
    """Channels straight to the plugin's socket. The tests of the bridge cover the rest of its work."""

    def __init__(self, path: Path, monotonic: Callable[[], float]) -> None:
        self.monotonic = monotonic
        self._channel = grpc.insecure_channel(f"unix://{path}")

    def of(self, instance: Instance) -> grpc.Channel:
        return self._channel

    def forget(self) -> None:
        """Do nothing: there is no certificate to read again."""

    def close(self) -> None:
        self._channel.close()


class DirectQueries(PluginQueries):
    """Queries that are answered in this process, through JSON as by the worker's function."""

    def __init__(self, calls: CsiCalls, sealer: Sealer) -> None:
        self._calls, self._sealer = calls, sealer
        self.audits: list[tuple[str, str]] = []

    def start_audit(self, plugin_id: str, run: str) -> None:
        self.audits.append((plugin_id, run))

    def send(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        body: Mapping[str, Any] = json.loads(
            json.dumps(server.answer(self._calls, self._sealer, json.loads(json.dumps(event))))
        )
        return body


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Path]:
    """Run the plugin, with the root `folder`/root, and yield its socket."""
    socket = folder / "csi.sock"
    command = [
        sys.executable,
        "-c",
        RUN,
        "--endpoint",
        f"unix://{socket}",
        "--root",
        str(folder / "root"),
    ]
    with (
        (folder / "plugin.log").open("wb") as log,
        subprocess.Popen([*command, *arguments], stderr=log, stdout=log) as process,
    ):
        try:
            with grpc.insecure_channel(f"unix://{socket}", options=AT_ONCE) as channel:
                _wait_ready(process, channel, folder)
            yield socket
        finally:
            process.terminate()
            process.wait(timeout=START_SECONDS)


def _wait_ready(process: subprocess.Popen[bytes], channel: grpc.Channel, folder: Path) -> None:
    ready = grpc.channel_ready_future(channel)
    for _ in range(int(START_SECONDS * 10)):
        if process.poll() is not None:
            break
        with contextlib.suppress(grpc.FutureTimeoutError):
            ready.result(timeout=0.1)
            return
    ready.cancel()
    raise AssertionError(f"the plugin did not start: {(folder / 'plugin.log').read_text()}")


def calls(plugins: PluginStore, channels: SocketChannels, clock: Clock) -> CsiCalls:
    """Return a client of the plugins that are registered."""
    return CsiCalls(plugins.instances, plugins.instance, channels, clock.jitter)
