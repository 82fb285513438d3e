"""Parse and check the options of `moorage bridge`."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from moorage.spec import csi_pb2 as csi

PLUGIN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
SERIALIZE: Final = ("node", "plugin")
LONGEST_DEADLINE: Final = 300
RPCS: Final = frozenset(
    method.name for service in csi.DESCRIPTOR.services_by_name.values() for method in service.methods
)


class BadSetting(Exception):
    """An option is wrong. The text says how to write it."""


@dataclass(frozen=True)
class PluginSettings:
    """One plugin behind the bridge."""

    plugin_id: str
    target: str
    """The socket as a gRPC target."""
    serialize: str = ""
    deadlines: dict[str, int] = field(default_factory=dict)
    grace_seconds: int | None = None


@dataclass(frozen=True)
class Settings:
    """One bridge."""

    api: str
    state: Path
    certs: Path
    listen: str
    advertise: str | None
    plugins: tuple[PluginSettings, ...]
    probe_seconds: float = 10.0
    drain_seconds: float = 30.0
    renew_from: Path | None = None
    mounts_below: tuple[Path, ...] = ()
    """Folders below which volumes may be mounted, besides the state folder."""


def parse_plugins(
    plugins: tuple[str, ...], serialize: tuple[str, ...], deadlines: tuple[str, ...], graces: tuple[str, ...]
) -> tuple[PluginSettings, ...]:
    """Return the plugins that the repeated options describe. Raises BadSetting."""
    targets = _targets(plugins)
    chosen = dict(_pair(one, "--serialize", "ID=node or ID=plugin") for one in serialize)
    waits = {
        plugin_id: _seconds(seconds, f"--grace {plugin_id}")
        for plugin_id, seconds in (_pair(one, "--grace", "ID=SECONDS") for one in graces)
    }
    limits = _deadlines(deadlines)
    for option, ids in (("--serialize", chosen), ("--grace", waits), ("--deadline", limits)):
        unknown = sorted(set(ids) - set(targets))
        if unknown:
            raise BadSetting(f"{option} names {unknown[0]}, and no --plugin has that ID")
    for plugin_id, how in chosen.items():
        if how not in SERIALIZE:
            raise BadSetting(f"--serialize {plugin_id}={how}: write node or plugin")
    return tuple(
        PluginSettings(plugin_id, target, chosen.get(plugin_id, ""), limits.get(plugin_id, {}), waits.get(plugin_id))
        for plugin_id, target in targets.items()
    )


def parse_mounts_below(folders: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the folders. Raises BadSetting for a relative path and for the root directory."""
    for folder in folders:
        if not folder.is_absolute() or folder == folder.parent or ".." in folder.parts:
            raise BadSetting(f"--mounts-below {folder}: write the absolute path of a folder below /, without ..")
    return folders


def parse_api(url: str) -> str:
    """Return the API's address without a slash at its end. Raises BadSetting.

    Plain HTTP is allowed to this machine only.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise BadSetting(f"--api {url}: write https://host or https://host/stage")
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise BadSetting(f"--api {url}: plain HTTP is for this machine only, write https://")
    return url.rstrip("/")


def parse_address(text: str, option: str) -> tuple[str, int]:
    """Return host and port. Raises BadSetting."""
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:
        raise BadSetting(f"{option} {text}: write HOST:PORT, an IPv6 address in brackets")
    return host, int(port)


def _targets(plugins: tuple[str, ...]) -> dict[str, str]:
    targets = dict(_pair(one, "--plugin", "ID=unix:///path/csi.sock") for one in plugins)
    if len(targets) != len(plugins):
        raise BadSetting("--plugin names one ID twice: every plugin needs an ID of its own")
    for plugin_id, target in targets.items():
        if PLUGIN_ID.fullmatch(plugin_id) is None:
            raise BadSetting(f"--plugin {plugin_id}: an ID has 1 to 128 letters, digits, dots, dashes and underscores")
        if not re.fullmatch(r"unix:///.+", target):
            raise BadSetting(f"--plugin {plugin_id}={target}: write {plugin_id}=unix:///absolute/path/csi.sock")
    return targets


def _deadlines(deadlines: tuple[str, ...]) -> dict[str, dict[str, int]]:
    limits: dict[str, dict[str, int]] = {}
    for one in deadlines:
        name, seconds = _pair(one, "--deadline", "ID:RPC=SECONDS")
        plugin_id, _, rpc = name.partition(":")
        if rpc not in RPCS:
            raise BadSetting(f"--deadline {one}: {rpc or 'nothing'} is no RPC of CSI; write ID:CreateVolume=SECONDS")
        limits.setdefault(plugin_id, {})[rpc] = _seconds(seconds, f"--deadline {one}")
    return limits


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    left, separator, right = text.partition("=")
    if not separator or not left or not right:
        raise BadSetting(f"{option} {text}: write {form}")
    return left, right


def _seconds(text: str, what: str) -> int:
    if re.fullmatch("[0-9]{1,6}", text) is None or not 0 < int(text) <= LONGEST_DEADLINE:
        raise BadSetting(f"{what}: seconds are a whole number from 1 to {LONGEST_DEADLINE}")
    return int(text)
