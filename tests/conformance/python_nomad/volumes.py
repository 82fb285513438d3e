"""Volumes and plugins for python-nomad, which has no module for them: endpoints in its style, on its base class.

What its users write themselves. The base class sends no `namespace` for these by itself.
"""

from typing import Any
from urllib.parse import quote

from nomad.api.base import Requester


class Volumes(Requester):  # type: ignore[misc]  # python-nomad has no types
    """/v1/volumes and below."""

    ENDPOINT = "volumes"

    def all(self, **params: Any) -> Any:
        return self.request(method="get", params={"type": "csi"} | params).json()

    def external(self, plugin_id: str) -> Any:
        return self.request("external", method="get", params={"plugin_id": plugin_id}).json()

    def snapshot(self, volume_id: str, name: str) -> Any:
        body = {"Snapshots": [{"SourceVolumeID": volume_id, "Name": name}]}
        return self.request("snapshot", method="post", json=body).json()

    def snapshots(self, plugin_id: str) -> Any:
        return self.request("snapshot", method="get", params={"plugin_id": plugin_id}).json()

    def delete_snapshot(self, plugin_id: str, snapshot_id: str) -> Any:
        params = {"plugin_id": plugin_id, "snapshot_id": snapshot_id}
        return self.request("snapshot", method="delete", params=params)


class Volume(Requester):  # type: ignore[misc]
    """/v1/volume/csi/:id and below."""

    ENDPOINT = "volume/csi"

    def read(self, volume_id: str, **params: Any) -> Any:
        return self.request(quote(volume_id), method="get", params=params).json()

    def create(self, volume: dict[str, Any], *, method: str = "put", **params: Any) -> Any:
        path = (quote(volume["ID"]), "create")
        return self.request(*path, method=method, json={"Volumes": [volume]}, params=params).json()

    def register(self, volume: dict[str, Any], *, method: str = "put") -> Any:
        return self.request(quote(volume["ID"]), method=method, json={"Volumes": [volume]}).json()

    def delete(self, volume_id: str, **params: Any) -> Any:
        headers = {"X-Nomad-CSI-Secrets": "key=value"}
        return self.request(quote(volume_id), "delete", method="delete", headers=headers, params=params)

    def deregister(self, volume_id: str) -> Any:
        return self.request(quote(volume_id), method="delete")


class Plugins(Requester):  # type: ignore[misc]
    """/v1/plugins."""

    ENDPOINT = "plugins"

    def all(self) -> Any:
        return self.request(method="get", params={"type": "csi"}).json()


class Plugin(Requester):  # type: ignore[misc]
    """/v1/plugin/csi/:id."""

    ENDPOINT = "plugin/csi"

    def read(self, plugin_id: str) -> Any:
        return self.request(plugin_id, method="get").json()
