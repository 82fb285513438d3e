"""The command lines of a local system's proxy, plugins and bridge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.local import certificates, environments
from infra.local.processes import Child
from infra.local.settings import LOOPBACK, ROOT

if TYPE_CHECKING:
    from infra.local.settings import Plugin, Settings


def proxy(settings: Settings, api: str) -> Child:
    """Return the proxy that serves the API, which answers at the emulator's address `api`."""
    command = [str(environments.RUN.python), "-m", "infra.local.proxy", "--host", LOOPBACK]
    command += ["--port", str(settings.port), "--upstream", api, "--name", settings.domain]
    return _child(settings, "proxy", command, PYTHONPATH=str(ROOT))


def plugin(settings: Settings, given: Plugin) -> Child:
    """Return a directory plugin."""
    command = [certificates.command("moorage-devplugin"), "--endpoint", _socket(settings, given.plugin_id)]
    command += ["--root", str(settings.plugin_root(given.plugin_id)), "--node-id", certificates.NODE_ID]
    return _child(settings, f"plugin-{given.plugin_id}", [*command, *given.arguments])


def bridge(settings: Settings) -> Child:
    """Return the bridge, with all plugins behind it."""
    command = [certificates.command("moorage"), "bridge", "--api", settings.api_url]
    command += ["--state", str(settings.state / "bridge"), "--certs", str(settings.certs / "bridge")]
    command += ["--listen", f"{LOOPBACK}:{settings.bridge_port}", "--renew-from", str(settings.certs / "ca")]
    for plugin_id in settings.plugin_ids:
        command += ["--plugin", f"{plugin_id}={_socket(settings, plugin_id)}"]
    return _child(settings, "bridge", [*command, *settings.bridge_arguments])


def _child(settings: Settings, name: str, command: list[str], **more: str) -> Child:
    return Child(
        name=name,
        command=command,
        environment=settings.environment(**more),
        log=settings.logs / f"{name}.log",
        pid_file=settings.run / f"{name}.json",
    )


def _socket(settings: Settings, plugin_id: str) -> str:
    return f"unix://{settings.sockets / plugin_id}.sock"
