"""The echo plugin behind a real bridge, and the controller's and node's side of Moorage in front of it."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chalicelib.csi.calls import CsiCalls
from chalicelib.csi.channel import TlsChannels, WorkerTls
from chalicelib.domain.call import Attempt, CallOptions
from chalicelib.domain.plugin import Instance
from infra.bridge.tests import parts
from moorage.bridge.settings import PluginSettings, Settings

HERE = Path(__file__).parent
PLUGIN_ID = "echo"
ATTEMPT = Attempt("operation", 1)


@dataclass
class Peer:
    """What a test needs of the running parts."""

    calls: CsiCalls
    registered: dict[str, Any]
    """What the bridge told the control plane of the plugin."""
    requests: Path
    mounts: Path
    """Where the bridge lets the plugin mount."""

    def decoded(self, rpc: str) -> dict[str, Any]:
        """The last request of `rpc` as Go decoded it: unset fields left out, 64-bit numbers as text."""
        lines = [line.partition("\t") for line in self.requests.read_text("utf-8").splitlines()]
        found: dict[str, Any] = json.loads([text for method, _, text in lines if method.endswith(f"/{rpc}")][-1])
        return found


def build(folder: Path) -> Path:
    """The Go program, from the modules that go.mod pins."""
    program = folder / "echo"
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=HERE, check=True, timeout=500)
    return program


def call(**secrets: str) -> CallOptions:
    """Return the options of a call that has ten seconds."""
    return CallOptions(time.monotonic() + 10, secrets, ATTEMPT)


@contextmanager
def running(program: Path, folder: Path) -> Iterator[Peer]:
    """Plugin and bridge, until the context ends."""
    socket, requests = folder / "echo.sock", folder / "requests"
    with (
        subprocess.Popen([program, "-socket", str(socket), "-requests", str(requests)]) as process,
        parts.control_plane_at() as control_plane,
    ):
        try:
            parts.eventually(socket.exists)
            pki, mounts = parts.make_pki(folder / "pki"), folder / "mounts"
            mounts.mkdir()
            settings = Settings(
                api=control_plane.url,
                state=folder / "state",
                certs=pki.bridge,
                listen="127.0.0.1:0",
                advertise=None,
                plugins=(PluginSettings(PLUGIN_ID, f"unix://{socket}"),),
                mounts_below=(mounts,),
            )
            with parts.running(settings) as bridge:
                parts.eventually(lambda: control_plane.last_plugin(PLUGIN_ID))
                yield _peer(bridge.address, pki, control_plane.last_plugin(PLUGIN_ID), requests, mounts)
        finally:
            process.terminate()
            process.wait(timeout=10)


def _peer(address: str, pki: parts.Pki, registered: dict[str, Any], requests: Path, mounts: Path) -> Peer:
    ca, certificate, key = ((pki.worker / name).read_bytes() for name in ("ca.pem", "worker.pem", "worker-key.pem"))
    channels = TlsChannels(lambda: WorkerTls(ca, certificate, key, "1"), time.monotonic)
    instance = Instance(
        plugin_id=PLUGIN_ID,
        node_id="n1",
        address=address,
        healthy=registered["Healthy"],
        controller=registered["Controller"],
        node=registered["Node"],
        node_capabilities=frozenset(registered["NodeCapabilities"]),
    )
    calls = CsiCalls(lambda _: [instance], lambda *_: instance, channels, lambda: 0.0)
    return Peer(calls, registered, requests, mounts)
