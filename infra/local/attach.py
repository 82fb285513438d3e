"""`make plugin ID=… SOCKET=…`: put any CSI plugin behind a bridge of its own, on the local system that runs.

The plugin is not ours and is neither started nor stopped here. The bridge stays in the foreground, and deregisters when
it ends.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from infra.local import certificates, say
from infra.local.plugins import registered_plugins
from infra.local.settings import LOOPBACK

if TYPE_CHECKING:
    from infra.local.settings import Settings

USAGE: Final = "say which plugin and where it listens: make plugin ID=mine SOCKET=/path/to/csi.sock"


def attach(settings: Settings, arguments: list[str]) -> int:
    """Become the bridge of plugin `arguments[0]` on socket `arguments[1]`. Raises Trouble when that is impossible."""
    if len(arguments) != 2 or not all(arguments):
        raise say.Trouble(USAGE)
    plugin_id, socket = arguments[0], Path(arguments[1].removeprefix("unix://")).absolute()
    node_id = node_of(plugin_id)
    _require(settings, plugin_id, socket)
    certs, state = settings.certs / node_id, settings.state / f"bridge-{node_id}"
    certificates.for_node(settings, node_id, certs)
    state.mkdir(parents=True, exist_ok=True)
    command = [certificates.command("moorage"), "bridge", "--api", settings.api_url, "--state", str(state)]
    command += ["--certs", str(certs), "--listen", f"{LOOPBACK}:0", "--renew-from", str(settings.certs / "ca")]
    command += ["--plugin", f"{plugin_id}=unix://{socket}"]
    say.line(f"Plugin {plugin_id} on node {node_id}; Ctrl-C takes it away again. Ask for it from another terminal:")
    say.line(f"  curl {settings.api_url}/v1/plugin/csi/{plugin_id}")
    os.execve(command[0], command, settings.environment())  # noqa: S606 - a command line that is built here


def node_of(plugin_id: str) -> str:
    """Return the node ID of the plugin's bridge: letters, digits and dashes only (moorage certs bridge)."""
    slug = re.sub(r"[^a-z0-9]+", "-", plugin_id.lower()).strip("-")
    return f"local-{slug}"[:63].rstrip("-")


def _require(settings: Settings, plugin_id: str, socket: Path) -> None:
    if not settings.ready_file.exists():
        raise say.Trouble("the local system does not run, or not yet: start it with make run, in another terminal")
    try:
        is_socket = stat.S_ISSOCK(socket.stat().st_mode)
    except OSError as exc:
        raise say.Trouble(f"SOCKET is {socket}, which cannot be used: {exc.strerror}") from exc
    if not is_socket:
        raise say.Trouble(f"SOCKET is {socket}, which is no socket: start the plugin first")
    ready = json.loads(settings.ready_file.read_text())
    if plugin_id in ready["plugins"]:
        raise say.Trouble(f"ID is {plugin_id}, which is a plugin of the local system's own: choose another")
    if plugin_id in registered_plugins(settings.api_url):
        say.line(f"A plugin {plugin_id} is known already: this is one more instance of it, or the same one back.")
