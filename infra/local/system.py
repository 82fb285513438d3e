"""The whole local system in the foreground: starts everything in order, watches it, stops all of it.

    emulator -> stack and app -> certificates -> proxy -> plugins -> bridge

What runs is a child of this process, in a process group of its own. A child that ends is started again after a pause;
one that cannot stay up ends the system with a line that says why.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from infra.local import certificates, clock, deployment, environments, own, say
from infra.local.emulator import Emulator, answers
from infra.local.processes import Child, ProcessId, end_leftovers, listens, require_free_port
from infra.local.settings import LOOPBACK, ROOT, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

NEEDED_MEGABYTES: Final = 200
STABLE_AFTER: Final = 30.0
LONGEST_PAUSE: Final = 10.0
TRIES: Final = 6
REGISTERED_WITHIN: Final = 20.0
AUDITED_WITHIN: Final = 40.0
AUDIT_PAUSE: Final = 2.0
LONGEST_LOG: Final = 20_000_000
KEPT_AFTER_A_KILL: Final = "What it answered for is on disk."
"""infra/emulator/storage.py writes before a call is answered."""
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Stop(Exception):
    """Somebody asked the system to stop while it was starting."""


@dataclass
class _Watched:
    """A child and how often it ended of late."""

    child: Child
    started: float
    failures: int = 0
    start_again_at: float | None = None


@dataclass
class System:
    """One local system of one state folder."""

    settings: Settings
    _watched: dict[str, _Watched] = field(default_factory=dict)
    _emulator: Emulator | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _api: str = ""
    _unclean: bool = False
    _audit_at: float = 0.0

    def run(self) -> int:
        """Start everything, stay until a signal or a failure, stop everything; the exit code."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._ask_to_stop)
        os.umask(0o077)
        code = 0
        with say.plain_words(str(self.settings.state)):
            own.folder(self.settings.state)
            own.folder(self.settings.run)
            with self._alone():
                try:
                    self._make_folders()
                    self._start()
                    self._watch()
                except _Stop:
                    pass
                except say.Trouble as exc:
                    if not self._stop.is_set():  # Ctrl-C also ends the programs that are waited for
                        say.trouble(str(exc))
                        code = 1
                finally:
                    self._stop_everything()
        return code

    def _ask_to_stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise _Stop

    def _make_folders(self) -> None:
        settings = self.settings
        roots = [*map(settings.plugin_root, settings.plugin_ids)]
        # Of earlier runs as well: what volumes hold keeps its rights.
        own.close(settings.state, but=[*roots, *(volumes.parent for volumes in settings.state.glob("*/volumes"))])
        for folder in (settings.logs, settings.sockets, *roots):
            own.folder(folder)
        for log in settings.logs.glob("*.log"):
            if log.stat().st_size > LONGEST_LOG:
                log.replace(log.with_suffix(".log.1"))
        free = shutil.disk_usage(self.settings.state).free // 1_000_000
        if free < NEEDED_MEGABYTES:
            raise say.Trouble(
                f"the disk of {self.settings.state} has {free} MB left and the local system needs {NEEDED_MEGABYTES}: "
                "free some space"
            )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Only one system in one state folder."""
        handle: IO[str]
        with (self.settings.run / "lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise say.Trouble(
                    f"the local system of {self.settings.state} runs already: make status says where, make stop ends it"
                ) from exc
            ready_file(self.settings).unlink(missing_ok=True)
            mine = self.settings.run / "supervisor.json"
            process_id = ProcessId.of(os.getpid())
            if process_id is not None:
                process_id.write(mine)
            try:
                yield
            finally:
                mine.unlink(missing_ok=True)
                ready_file(self.settings).unlink(missing_ok=True)

    def _start(self) -> None:
        started = clock.monotonic()
        say.line(f"Starting Moorage in {_short(self.settings.state)}")
        left = end_leftovers(self._pid_files())
        if left:
            self._unclean = True
            say.line(f"  Ended what an earlier run left behind: {', '.join(left)}")
            if left.get("emulator"):
                Emulator(self.settings, environments.EMULATOR.python).ended_in_order()
        self._require_ports()
        for plugin in self.settings.plugins:
            self._start_child(self._plugin(plugin.plugin_id, plugin.arguments))
        self._start_emulator()
        self._deploy()
        self._go_on()
        self._start_child(self._proxy())
        self._start_child(self._bridge())
        self._wait_until_usable()
        self._audit_after_a_crash()
        self._write_ready()
        say.line(f"Ready after {clock.monotonic() - started:.1f} s.\n")
        say.line(what_next(self.settings))

    def _require_ports(self) -> None:
        settings = self.settings
        require_free_port(LOOPBACK, settings.port, "the API", "MOORAGE_PORT")
        if settings.emulator_url is None:
            require_free_port(LOOPBACK, settings.emulator_port, "the emulator of AWS", "MOORAGE_EMULATOR_PORT")
        require_free_port(LOOPBACK, settings.bridge_port, "the bridge", "MOORAGE_BRIDGE_PORT")

    def _start_emulator(self) -> None:
        if self.settings.emulator_url is not None:
            if not answers(self.settings.emulator_url):
                raise say.Trouble(f"AWS_ENDPOINT_URL is {self.settings.emulator_url}, and no emulator answers there")
            say.line(f"  Using the emulator at {self.settings.emulator_url}; its state is not ours to keep")
            return
        self._emulator = self._emulator or Emulator(self.settings, environments.EMULATOR.python)
        if self._emulator.was_killed:
            self._unclean = True
            say.line(f"  The emulator did not end in order last time. {KEPT_AFTER_A_KILL}")
        with say.step("Starting the emulator of AWS"):
            self._emulator.start()

    def _deploy(self) -> None:
        """Bring the emulator up to date, and the certificates."""
        self._go_on()
        certificates.ensure(self.settings)
        own.close(self.settings.certs)
        publish = partial(certificates.publish, self.settings)
        try:
            deployed = deployment.bring_up_to_date(self.settings, beside=publish)
        except (BotoCoreError, ClientError) as exc:
            raise say.Trouble(f"the emulator at {self.settings.endpoint} refused a call: {exc}") from exc
        self._go_on()
        self._api = f"{self.settings.endpoint}/restapis/{deployed.api_id}/{deployed.api_stage}/_user_request_"

    def _start_child(self, child: Child) -> None:
        child.start()
        self._watched[child.name] = _Watched(child, clock.monotonic())

    def _proxy(self) -> Child:
        command = [_python(), "-m", "infra.local.proxy", "--host", LOOPBACK, "--port", str(self.settings.port)]
        command += ["--upstream", self._api, "--name", self.settings.domain]
        return self._child("proxy", command, self.settings.environment(PYTHONPATH=str(ROOT)))

    def _plugin(self, plugin_id: str, arguments: tuple[str, ...]) -> Child:
        root = self.settings.plugin_root(plugin_id)
        command = [
            certificates.command("moorage-devplugin"),
            "--endpoint",
            self._socket(plugin_id),
            "--root",
            str(root),
        ]
        command += ["--node-id", certificates.NODE_ID, *arguments]
        return self._child(f"plugin-{plugin_id}", command, self.settings.environment())

    def _bridge(self) -> Child:
        settings = self.settings
        command = [certificates.command("moorage"), "bridge", "--api", settings.api_url]
        command += ["--state", str(settings.state / "bridge"), "--certs", str(settings.certs / "bridge")]
        command += ["--listen", f"{LOOPBACK}:{settings.bridge_port}", "--renew-from", str(settings.certs / "ca")]
        for plugin in settings.plugins:
            command += ["--plugin", f"{plugin.plugin_id}={self._socket(plugin.plugin_id)}"]
        return self._child("bridge", [*command, *settings.bridge_arguments], settings.environment())

    def _socket(self, plugin_id: str) -> str:
        return f"unix://{self.settings.sockets / plugin_id}.sock"

    def _child(self, name: str, command: list[str], environment: dict[str, str]) -> Child:
        return Child(
            name=name,
            command=command,
            environment=environment,
            log=self.settings.logs / f"{name}.log",
            pid_file=self.settings.run / f"{name}.json",
        )

    def _wait_until_usable(self) -> None:
        """Wait until every plugin has answered: before, a create is refused. Without, the system stays up."""
        wanted = {plugin.plugin_id for plugin in self.settings.plugins}
        deadline = clock.monotonic() + REGISTERED_WITHIN
        with say.step("Waiting for the bridge to register its plugins"):
            # A state that was kept still lists the plugins of the last run: the bridge must listen, too.
            while clock.monotonic() < deadline and not (
                listens(LOOPBACK, self.settings.bridge_port) and wanted <= usable_plugins(self.settings.api_url)
            ):
                self._go_on()
                self._look_after_children()
                clock.sleep(0.1)
        missing = wanted - usable_plugins(self.settings.api_url)
        if missing:
            words = self._watched["bridge"].child.last_words()
            say.trouble(
                f"no healthy {', '.join(sorted(missing))} is registered after {REGISTERED_WITHIN:.0f} s, "
                f"so no volume can be created there yet; the bridge says: {words or 'nothing'} "
                f"(logs: {self.settings.logs})"
            )

    def _audit_after_a_crash(self) -> None:
        """After an end that was none in order: say in one line whether plugins and tables still agree.

        Waits until the plugins can be asked, which after a crash of the emulator takes until the next heartbeat.
        """
        if not self._unclean or clock.monotonic() < self._audit_at:
            return
        self._audit_at = clock.monotonic() + AUDIT_PAUSE
        if not {p.plugin_id for p in self.settings.plugins} <= usable_plugins(self.settings.api_url):
            return
        self._unclean = False
        with say.step("Comparing the plugins' volumes with the tables, after the unclean stop"):
            done = subprocess.run(
                [certificates.command("moorage"), "audit", "--api", self.settings.api_url, "--json", "--wait", "20"],
                env=self.settings.environment(),
                capture_output=True,
                text=True,
                timeout=AUDITED_WITHIN,
                check=False,
            )
        say.line("  " + what_was_found(self.settings.api_url, done.stdout, done.stderr))

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            self._look_after_emulator()
            self._look_after_children()
            self._audit_after_a_crash()

    def _look_after_emulator(self) -> None:
        emulator = self._emulator
        if emulator is None or emulator.child.runs:
            return
        words = emulator.child.last_words()
        say.line(f"The emulator ended by itself (exit code {emulator.child.exit_code}): {words}")
        watched = self._watched.setdefault("emulator", _Watched(emulator.child, clock.monotonic()))
        watched.failures += 1
        if watched.failures > TRIES:
            raise say.Trouble(f"the emulator ended {watched.failures} times; its log: {emulator.child.log}")
        emulator.stop()
        upstream = self._api
        self._start_emulator()
        self._deploy()
        if self._api != upstream:
            self._watched["proxy"].child.stop()
            self._start_child(self._proxy())
        say.line("The system is up again.")

    def _look_after_children(self) -> None:
        for watched in [w for name, w in self._watched.items() if name != "emulator"]:
            child = watched.child
            if child.runs:
                if watched.failures and clock.monotonic() - watched.started > STABLE_AFTER:
                    watched.failures = 0
            elif watched.start_again_at is None:
                watched.failures += 1
                if watched.failures > TRIES:
                    raise say.Trouble(f"{child.name} does not stay up: {child.last_words()} (log: {child.log})")
                pause = min(0.25 * 2**watched.failures, LONGEST_PAUSE)
                say.line(
                    f"{child.name} ended (exit code {child.exit_code}); again in {pause:.1f} s. {child.last_words(1)}"
                )
                child.stop()
                watched.start_again_at = clock.monotonic() + pause
            elif clock.monotonic() >= watched.start_again_at:
                child.start()
                watched.started, watched.start_again_at = clock.monotonic(), None

    def _stop_everything(self) -> None:
        if not self._watched and self._emulator is None:
            return
        say.line("Stopping.")
        # First no new requests; then the emulator, whose worker processes may still be calling the bridge; then the
        # bridge, and at last what it calls.
        names = [n for n in self._watched if n != "emulator"]
        first = [n for n in names if n == "proxy"]
        last = [n for n in names if n.startswith("plugin-")]
        for name in first:
            self._watched[name].child.stop()
        if self._emulator is not None and self._emulator.child.process is not None:
            with say.step("Saving the emulator's state"):
                saved = self._emulator.stop()
            if not saved:
                log = self.settings.logs / "emulator.log"
                say.trouble(f"the emulator did not end in order (log: {log}). {KEPT_AFTER_A_KILL}")
        for name in [n for n in names if n not in first + last] + last:
            self._watched[name].child.stop()
        if self.settings.sockets != self.settings.run:
            shutil.rmtree(self.settings.sockets, ignore_errors=True)
        say.line(
            f"Stopped. {_short(self.settings.state)} keeps its state: make run goes on from it, make forget removes it."
        )

    def _pid_files(self) -> list[Path]:
        """Those of an earlier run, in the order in which to stop."""
        files = [p for p in self.settings.run.glob("*.json") if p.name not in ("supervisor.json", "ready.json")]
        order = {"proxy": 0, "emulator": 1, "bridge": 2}
        return sorted(files, key=lambda p: order.get(p.stem, 3))

    def _write_ready(self) -> None:
        children = [w.child for w in self._watched.values()]
        if self._emulator is not None:
            children.append(self._emulator.child)
        data = {
            "api_url": self.settings.api_url,
            "endpoint": self.settings.endpoint,
            "stage": self.settings.stage,
            "bridge": f"{LOOPBACK}:{self.settings.bridge_port}",
            "plugins": {p.plugin_id: str(self.settings.plugin_root(p.plugin_id)) for p in self.settings.plugins},
            "pids": {c.name: c.process.pid for c in children if c.process is not None},
        }
        unfinished = ready_file(self.settings).with_suffix(".unfinished")
        unfinished.write_text(json.dumps(data, indent=2))
        unfinished.replace(ready_file(self.settings))


def ready_file(settings: Settings) -> Path:
    """Exists while the system serves, and says where."""
    return settings.run / "ready.json"


def registered_plugins(api_url: str) -> set[str]:
    """IDs of the plugins that the API lists; none while it cannot be asked."""
    return {str(plugin["ID"]) for plugin in _plugins(api_url)}


def usable_plugins(api_url: str) -> set[str]:
    """IDs of those that have answered. A bridge registers a plugin before it has heard from it."""
    return {
        str(plugin["ID"])
        for plugin in _plugins(api_url)
        if plugin["ControllersHealthy" if plugin["ControllerRequired"] else "NodesHealthy"] > 0
    }


def _plugins(api_url: str) -> list[dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"{api_url}/v1/plugins?type=csi", timeout=10) as response:  # noqa: S310 - our own address
            listed: list[dict[str, Any]] = json.load(response)
            return listed
    except (OSError, ValueError):
        return []


def what_was_found(api_url: str, output: str, trouble: str) -> str:
    """One line about what `moorage audit --json` said."""
    try:
        said = json.loads(output)
    except ValueError:
        return f"Not audited: {' '.join(trouble.split()) or 'moorage audit said nothing'}"
    failed = [f"{r['PluginID']}: {r['Error']}" for r in said["Reports"] if r["Status"] != "done"]
    if failed:
        return f"Not audited: {'; '.join(failed)}"
    if said["Clean"]:
        return "Nothing is lost or left over."
    counts: dict[str, int] = {}
    for report in said["Reports"]:
        for name, number in report["Counts"].items():
            counts[name] = counts.get(name, 0) + number
    orphans, missing = counts.get("volume orphan", 0), counts.get("volume missing", 0)
    return (
        f"Volumes that the plugins have and the tables do not: {orphans}; that the tables have and the plugins do not: "
        f"{missing}. `moorage audit --api {api_url}` shows them and can adopt them."
    )


def what_next(settings: Settings) -> str:
    """What a new user can do with a system that serves."""
    api = settings.api_url
    first = settings.plugins[0].plugin_id
    body = {
        "ID": "data",
        "Name": "data",
        "PluginID": first,
        "RequestedCapabilities": [{"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}],
    }
    lines = [
        f"The API answers at {api}, the CSI plugin keeps its volumes in {_short(settings.plugin_root(first))}.",
        "Try, in another terminal:",
        "",
        f"  curl -X PUT {api}/v1/volume/csi/data/create -d '{json.dumps({'Volumes': [body]}, separators=(',', ':'))}'",
        f"  curl '{api}/v1/volumes?type=csi'",
        f"  curl {api}/v1/volume/csi/data",
        f"  ls {_short(settings.plugin_root(first))}",
        f"  curl -X DELETE {api}/v1/volume/csi/data/delete",
        "",
        f"Ctrl-C stops it and keeps its state; make status says what runs; logs are in {_short(settings.logs)}.",
    ]
    return "\n".join(lines)


def _python() -> str:
    return str(environments.RUN.python)


def _short(path: Path) -> str:
    """Relative to where the person is, when that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
