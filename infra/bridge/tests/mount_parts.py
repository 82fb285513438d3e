"""A fake control plane, for the commands about mounts and for the bridge's part in them.

It mounts as the worker would have a plugin do it: by a symbolic link at the target.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from click.testing import CliRunner, Result

from moorage.cli import main
from moorage.mounts.journal import Entry, Journal, Stage

PENDING = 504, "operation o (publish volume data) is still running: repeat the request to go on waiting"
BUSY = 503, "busy"


@dataclass
class Played:
    """Claims in memory. `next` holds answers to give instead, by method and the path's last word."""

    data: Path
    claims: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[float, str, Any, dict[str, str]]] = field(default_factory=list)
    next: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    always: tuple[int, str] | None = None
    delay: float = 0.0
    publishes: bool = True
    capacity: int = 1 << 20
    url: str = ""

    def requests(self, name: str) -> list[Any]:
        """Bodies of all requests of that name so far, e.g. `PUT claim`."""
        return [body for _, asked, body, _ in self.asked if asked == name]

    def times(self, name: str) -> list[float]:
        return [moment for moment, asked, _, _ in self.asked if asked == name]

    def answer(self, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
        # VOLUME[/claims|/claim[/ALLOCATION[/renew]]]
        parts = [unquote(word) for word in urlsplit(path).path.split("/")][4:]
        name = f"{method} {_name(parts)}"
        if "bridge" not in path:
            assert parse_qs(urlsplit(path).query)["namespace"] == ["default"]
            self.asked.append((time.monotonic(), name, body, headers))
        if self.always is not None:
            return self.always
        if self.next.get(name):
            return self.next[name].pop(0)
        if "bridge" in path:
            return 200, {"Protocol": 1, "HeartbeatSeconds": 30, "Refused": [], "Index": 5}
        if parts[0] == "missing":
            return 404, "volume not found"
        known: dict[str, Callable[[], tuple[int, Any]]] = {
            "GET volume": lambda: (
                200,
                {"PluginID": "fake", "ExternalID": f"ext-{parts[0]}", "Capacity": self.capacity},
            ),
            "GET claims": lambda: (200, [c for c in self.claims.values() if c["VolumeID"] == parts[0]]),
            "PUT claim": lambda: self.take(parts[0], body),
            "PUT renew": lambda: (200, self.claims[parts[2]]) if parts[2] in self.claims else (404, "no claim"),
            "DELETE claim": lambda: self.release(parts[2]),
        }
        return known[name]()

    def take(self, volume: str, body: dict[str, Any]) -> tuple[int, Any]:
        held = self.claims.get(body["AllocationID"])
        if held is not None and held["TargetPath"] != body["TargetPath"]:
            return 409, "the allocation claims it already: release that claim first"
        if held is None:
            modes = {"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}
            held = body | modes | {"VolumeID": volume, "State": "taken", "Published": True}
            self.claims[body["AllocationID"]] = held
            if self.publishes:
                target = Path(body["TargetPath"])
                if target.is_dir():
                    target.rmdir()
                (self.data / volume).mkdir(exist_ok=True)
                target.symlink_to(self.data / volume)
        return 200, held

    def release(self, allocation: str) -> tuple[int, Any]:
        held = self.claims.pop(allocation, None)
        if held is None:
            return 404, "no claim"
        Path(held["TargetPath"]).unlink(missing_ok=True)
        return 200, ""


def _name(parts: list[str]) -> str:
    """Return the name of a request about a volume: the last word of its path, or `volume`."""
    return "renew" if parts[-1:] == ["renew"] else parts[1] if len(parts) > 1 else "volume"


@contextmanager
def played(data: Path, port: int = 0) -> Iterator[Played]:
    data.mkdir(exist_ok=True)
    plane = Played(data)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            time.sleep(plane.delay)
            body = json.loads(raw) if raw else None
            status, said = plane.answer(self.command, self.path, body, dict(self.headers))
            text = (said if isinstance(said, str) else json.dumps(said)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            if status == 503:
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = do_DELETE = _answer  # noqa: N815 - names of the base class

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    plane.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield plane
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Machine:
    """A machine with a bridge's state folder, and the commands run on it."""

    state: Path
    root: Path
    plane: Played

    @classmethod
    def make(cls, folder: Path, plane: Played) -> "Machine":
        machine = cls(folder / "state", folder.resolve() / "mnt", plane)
        machine.root.mkdir()
        machine.state.mkdir(exist_ok=True)
        (machine.state / "api").write_text(plane.url)
        (machine.state / "node-id").write_text("n1\n")
        machine.journal.open()
        return machine

    @property
    def journal(self) -> Journal:
        return Journal(self.state)

    @property
    def target(self) -> Path:
        return self.root / "data"

    def run(self, *arguments: object) -> Result:
        words = [str(one) for one in arguments]
        return CliRunner().invoke(main, [words[0], "--state", str(self.state), *words[1:]])

    def mount(self, *arguments: object) -> Result:
        return self.run("mount", "data", self.target, *arguments)

    def stages(self) -> dict[str, Stage]:
        return {Path(entry.target).name: entry.stage for entry in self.journal.entries()}

    def entry(self) -> Entry:
        (entry,) = self.journal.entries()
        return entry

    def reboot(self) -> None:
        """What was mounted is not any more."""
        for path in self.root.iterdir():
            if path.is_symlink():
                path.unlink()

    def is_clean(self) -> bool:
        """Nothing is mounted, claimed, staged or written down."""
        left = [*self.root.iterdir(), *(self.state / "mounts").iterdir(), *(self.state / "staging").glob("*")]
        return not left and not self.plane.claims
