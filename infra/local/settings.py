"""The settings of one local system. Only this module of infra/local reads the environment."""

import hashlib
import os
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.local import rootkey
from infra.local.say import Trouble

ROOT: Final = Path(__file__).resolve().parents[2]
LOOPBACK: Final = "127.0.0.1"
REGION: Final = "us-east-1"
LONGEST_SOCKET_PATH: Final = 100
"""Linux takes 107 bytes in the path of a unix socket, macOS 103."""
PASSED_TO_FUNCTIONS: Final = (
    "MOORAGE_WAIT_SECONDS",
    "MOORAGE_MAX_WAITS",
    "MOORAGE_SILENT_SECONDS",
    "MOORAGE_SILENT_FEW",
    "MOORAGE_SILENT_SHARE",
)
PASSED_TO_CHILDREN: Final = ("PATH", "HOME", "LANG", "LC_ALL", "USER", "LOGNAME")
"""Nothing else of the terminal's environment: the emulator passes its own on to every function, unlike AWS."""


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """One directory plugin that runs behind the bridge."""

    plugin_id: str
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What may differ between two local systems on one machine."""

    state: Path
    stage: str = "dev"
    port: int = 4646
    emulator_port: int = 4566
    bridge_port: int = 7443
    emulator_url: str | None = None
    """Address of an emulator that runs already and that we neither start nor stop."""
    emulator_key: rootkey.Key = rootkey.WELL_KNOWN
    """The access key for that emulator."""
    plugins: tuple[Plugin, ...] = (Plugin(plugin_id="directory"),)
    bridge_arguments: tuple[str, ...] = ()
    function_variables: Mapping[str, str]
    base_environment: Mapping[str, str]

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings from the environment. Raises Trouble that names a variable that cannot be used."""
        env = os.environ if env is None else env
        return cls(
            state=_state(env),
            stage=_stage(env.get("MOORAGE_STAGE", "dev")),
            port=_port(env, "MOORAGE_PORT", 4646),
            emulator_port=_port(env, "MOORAGE_EMULATOR_PORT", 4566),
            bridge_port=_port(env, "MOORAGE_BRIDGE_PORT", 7443),
            emulator_url=(env.get("AWS_ENDPOINT_URL") or "").rstrip("/") or None,
            emulator_key=_key(env),
            plugins=_plugins(env),
            bridge_arguments=_words(env, "BRIDGE_ARGS"),
            function_variables={name: env[name] for name in PASSED_TO_FUNCTIONS if name in env},
            base_environment={name: env[name] for name in PASSED_TO_CHILDREN if name in env},
        )

    @property
    def api_url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def endpoint(self) -> str:
        """Address of AWS's services."""
        return self.emulator_url or f"http://{LOOPBACK}:{self.emulator_port}"

    @property
    def domain(self) -> str:
        """The Host of the calls that the proxy makes at the emulator's API."""
        return f"api.{self.stage}.moorage.internal"

    @property
    def stack(self) -> str:
        return f"moorage-{self.stage}"

    @property
    def emulator_state(self) -> Path:
        return self.state / "emulator"

    @property
    def key_file(self) -> Path:
        """File with the access key of the emulator's root."""
        return self.state / "emulator-key.json"

    def key(self) -> rootkey.Key:
        """Return the access key for the emulator. The first call for an emulator of ours makes it."""
        return self.emulator_key if self.emulator_url else rootkey.load_or_make(self.key_file)

    @property
    def supervisor_file(self) -> Path:
        """File with the process ID of the `make run` that serves this state folder."""
        return self.run / "supervisor.json"

    @property
    def ready_file(self) -> Path:
        """File that is there while the system serves, and says where."""
        return self.run / "ready.json"

    @property
    def certs(self) -> Path:
        return self.state / "certs"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def run(self) -> Path:
        return self.state / "run"

    @property
    def temporary(self) -> Path:
        """TMPDIR of the emulator, by which its worker processes are known."""
        return self.state / "tmp"

    @property
    def project(self) -> Path:
        """Folder of the Chalice project as it is deployed."""
        return self.state / "app"

    @property
    def sockets(self) -> Path:
        """Folder of the plugins' sockets: in the state folder, or in the temporary folder if that path is too long."""
        if len(str(self.run / "some-longer-plugin-name.sock")) <= LONGEST_SOCKET_PATH:
            return self.run
        return Path(tempfile.gettempdir()) / f"moorage-{hashlib.sha256(str(self.state).encode()).hexdigest()[:12]}"

    @property
    def plugin_ids(self) -> tuple[str, ...]:
        return tuple(plugin.plugin_id for plugin in self.plugins)

    def plugin_root(self, plugin_id: str) -> Path:
        """Return the folder in which the directory plugin `plugin_id` keeps its volumes."""
        return self.state / plugin_id

    def environment(self, **more: str) -> dict[str, str]:
        """Return a child process's environment: the terminal's path and home, and `more`.

        Its times are in UTC, so that `make logs` can merge the logs.
        """
        return {**self.base_environment, "PYTHONUNBUFFERED": "1", "TZ": "UTC", **more}

    def aws_environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a child process that calls the emulator as its root."""
        return self.environment(
            AWS_ENDPOINT_URL=self.endpoint,
            AWS_DEFAULT_REGION=REGION,
            AWS_EC2_METADATA_DISABLED="true",
            **self.key().environment(),
            **more,
        )


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Variables on a command's line: `make forget YES=1`, `make logs FOLLOW=1 LINES=50`."""

    yes: bool
    follow: bool
    lines: int

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> "Answers":
        """Read them from the environment, where make puts them. Raises Trouble if LINES is no number."""
        env = os.environ if env is None else env
        lines = env.get("LINES") or "1000"
        if not lines.isdigit() or int(lines) == 0:
            raise Trouble(f"LINES is {lines!r}: give a number of lines, for example make logs LINES=50")
        return cls(yes=env.get("YES", "") == "1", follow=env.get("FOLLOW", "") == "1", lines=int(lines))


def _state(env: Mapping[str, str]) -> Path:
    """Return the state folder. Raises Trouble if it holds more than state.

    Other users lose their rights to it, and `make forget` removes all of it.
    """
    state = Path(env.get("MOORAGE_STATE") or ROOT / ".moorage").resolve()
    if any(Path(more).resolve().is_relative_to(state) for more in (ROOT, env.get("HOME") or ROOT)):
        raise Trouble(f"MOORAGE_STATE is {state}, which holds more than state: name a folder that is for it alone")
    return state


def _stage(name: str) -> str:
    if not (
        name and len(name) <= 20 and name.replace("-", "").isalnum() and name == name.lower() and name[0].isalpha()
    ):
        raise Trouble(f"MOORAGE_STAGE is {name!r}: give 1 to 20 lower-case letters, digits and hyphens, a letter first")
    return name


def _key(env: Mapping[str, str]) -> rootkey.Key:
    """Return the key for an emulator that was started by hand: the environment's, or the emulators' default."""
    well_known = rootkey.WELL_KNOWN
    return rootkey.Key(
        env.get("AWS_ACCESS_KEY_ID") or well_known.access_key_id, env.get("AWS_SECRET_ACCESS_KEY") or well_known.secret
    )


def _port(env: Mapping[str, str], variable: str, default: int) -> int:
    given = env.get(variable, str(default))
    if not (given.isdigit() and 0 < int(given) < 65536):
        raise Trouble(f"{variable} is {given!r}: give a port, 1 to 65535")
    return int(given)


def _plugins(env: Mapping[str, str]) -> tuple[Plugin, ...]:
    """Read `MOORAGE_PLUGINS="directory hostpath"`, with flags from PLUGIN_ARGS (all) and PLUGIN_ARGS_HOSTPATH."""
    names = env.get("MOORAGE_PLUGINS", "directory").split()
    if not names or len(set(names)) != len(names):
        raise Trouble(
            f"MOORAGE_PLUGINS is {env.get('MOORAGE_PLUGINS')!r}: give one or more different plugin IDs, with spaces"
        )
    plugins = []
    for name in names:
        if not name.replace("-", "").replace("_", "").isalnum() or name in RESERVED_NAMES:
            raise Trouble(
                f"MOORAGE_PLUGINS names {name!r}: a plugin ID here is letters, digits, - and _, and no folder of ours"
            )
        own = _words(env, f"PLUGIN_ARGS_{name.upper().replace('-', '_')}")
        like = ("--like", "hostpath") if name == "hostpath" else ()
        plugins.append(Plugin(plugin_id=name, arguments=(*like, *_words(env, "PLUGIN_ARGS"), *own)))
    return tuple(plugins)


RESERVED_NAMES: Final = frozenset({"emulator", "certs", "bridge", "logs", "run", "tmp", "app"})
"""Folders of a state folder that belong to no plugin."""


def _words(env: Mapping[str, str], variable: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(env.get(variable, "")))
    except ValueError as exc:
        raise Trouble(f"{variable} cannot be split into words: {exc}") from exc


def tool_environment(*programs: Path, **more: str) -> dict[str, str]:
    """Return this process's whole environment, with `programs` first on its path. For tools, never for functions."""
    folders = [str(program.parent) for program in programs]
    path = os.pathsep.join([*dict.fromkeys(folders), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, **more}
