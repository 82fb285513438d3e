"""What `make run` tells its user to try when the system serves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from infra.local.say import short

if TYPE_CHECKING:
    from infra.local.settings import Settings


def next_steps(settings: Settings) -> str:
    """Return the lines that a new user reads when the system serves."""
    api = settings.api_url
    plugin_id = settings.plugin_ids[0]
    root = short(settings.plugin_root(plugin_id))
    volume = {
        "ID": "data",
        "Name": "data",
        "PluginID": plugin_id,
        "RequestedCapabilities": [{"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}],
    }
    body = json.dumps({"Volumes": [volume]}, separators=(",", ":"))
    lines = [
        f"The API answers at {api}, the CSI plugin keeps its volumes in {root}.",
        "Try, in another terminal:",
        "",
        f"  curl -X PUT {api}/v1/volume/csi/data/create -d '{body}'",
        f"  curl '{api}/v1/volumes?type=csi'",
        f"  curl {api}/v1/volume/csi/data",
        f"  ls {root}",
        f"  curl -X DELETE {api}/v1/volume/csi/data/delete",
        "",
        f"Ctrl-C stops it and keeps its state; make status says what runs; logs are in {short(settings.logs)}.",
    ]
    return "\n".join(lines)
