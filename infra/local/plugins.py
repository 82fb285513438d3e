"""Which plugins a local system's API knows."""

from __future__ import annotations

import json
import urllib.request
from typing import Any


def registered_plugins(api_url: str) -> set[str]:
    """Return the IDs of the plugins that the API lists, or none while it does not answer."""
    return {str(plugin["ID"]) for plugin in _plugins(api_url)}


def usable_plugins(api_url: str) -> set[str]:
    """Return the IDs of the plugins that have answered.

    A bridge registers a plugin before the plugin has answered, and a create at such a plugin is refused.
    """
    return {
        str(plugin["ID"])
        for plugin in _plugins(api_url)
        if plugin["ControllersHealthy" if plugin["ControllerRequired"] else "NodesHealthy"] > 0
    }


def _plugins(api_url: str) -> list[dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"{api_url}/v1/plugins?type=csi", timeout=10) as response:  # noqa: S310 - our own address
            plugins: list[dict[str, Any]] = json.load(response)
            return plugins
    except (OSError, ValueError):
        return []
