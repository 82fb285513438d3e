"""Bridges as the control plane meets them: real certificates and signatures, and what they say over HTTP."""

import base64
import datetime as dt
import hashlib
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from moorage import certificates, publishing
from tests.harness import REGION, Reply, System

STAGE = "test"
DIRECTORY = {
    "ID": "directory",
    "Healthy": True,
    "Provider": "directory.csi.moorage",
    "ProviderVersion": "1",
    "ControllerCapabilities": ["CREATE_DELETE_VOLUME"],
    "NodeCapabilities": ["STAGE_UNSTAGE_VOLUME"],
    "PluginCapabilities": ["CONTROLLER_SERVICE"],
    "Controller": True,
    "Node": True,
    "NodeInfo": {"ID": "ext", "MaxVolumes": 0, "AccessibleTopology": {"Segments": {"zone": "a"}}},
}
"""A plugin as a bridge describes it."""


def plugin(plugin_id: str, **fields: Any) -> dict[str, Any]:
    return DIRECTORY | {"ID": plugin_id} | fields


@dataclass
class Authority:
    """The CA, and the worker's identity in the meta table."""

    system: System
    folder: Path

    def __post_init__(self) -> None:
        certificates.make_ca(self.ca, days=3650, now=self.now())
        certificates.issue_worker(self.ca, self.worker, days=30, now=self.now())
        self.publish()

    @property
    def ca(self) -> Path:
        return self.folder / "ca"

    @property
    def worker(self) -> Path:
        return self.folder / "worker"

    def now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.system.clock.now(), dt.UTC)

    def publish(self) -> None:
        publishing.publish_worker(self.worker, stage=STAGE, region=REGION)

    def bridge(self, node_id: str, *plugins: dict[str, Any], host: str = "") -> "Bridge":
        """A host with a certificate for `node_id`; another `host` has another key."""
        certs = self.folder / (host or node_id)
        certificates.issue_bridge(self.ca, node_id, certs, days=30, now=self.now())
        return Bridge(self.system, node_id, certs, list(plugins or [plugin("directory")]), f"{host or node_id}:7443")


@dataclass
class Bridge:
    """One bridge; `beat` is its registration and its heartbeat."""

    system: System
    node_id: str
    certs: Path
    plugins: list[dict[str, Any]]
    address: str
    instance_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    sequence: int = 0

    @property
    def path(self) -> str:
        return f"/v1/bridge/{self.node_id}"

    @property
    def serial(self) -> str:
        return certificates.Certificate.read(self.certs / "bridge.pem").serial

    def message(self) -> dict[str, Any]:
        """The next thing to say."""
        self.sequence += 1
        return {
            "Protocol": 1,
            "NodeID": self.node_id,
            "NodeName": f"host of {self.node_id}",
            "InstanceID": self.instance_id,
            "Sequence": self.sequence,
            "Address": self.address,
            "BridgeVersion": "1",
            "CertificatePEM": (self.certs / "bridge.pem").read_text(),
            "Plugins": self.plugins,
        }

    def beat(self, **fields: Any) -> Reply:
        return self.say("PUT", self.message() | fields)

    def leave(self) -> Reply:
        """An orderly stop."""
        self.sequence += 1
        message = {"Protocol": 1, "NodeID": self.node_id, "InstanceID": self.instance_id, "Sequence": self.sequence}
        return self.say("DELETE", message)

    def restart(self) -> None:
        """The bridge ended without a word, and another runs in its place."""
        self.instance_id, self.sequence = str(uuid.uuid4()), 0

    def say(self, method: str, message: dict[str, Any] | None) -> Reply:
        body = b"" if message is None else json.dumps(message).encode()
        signed = f"{method}\n{self.path}\n{hashlib.sha256(body).hexdigest()}".encode()
        key = certificates.read_key(self.certs / "bridge-key.pem")
        signature = base64.b64encode(key.sign(signed, ec.ECDSA(hashes.SHA256()))).decode()
        return self.system.call(method, self.path, body, headers={"X-Moorage-Signature": f"v1 {signature}"})


def counts(system: System, plugin_id: str = "directory") -> dict[str, int]:
    """What the API says of a plugin, after a comparison with the instances themselves; empty if it is unknown."""
    found = system.deps.plugins.get(plugin_id)
    instances = system.deps.plugins.instances(plugin_id)
    stored = counted([]) if found is None else {name: getattr(found, name) for name in counted([])}
    assert stored == counted(instances)
    reply = system.call("GET", f"/v1/plugin/csi/{plugin_id}")
    if reply.status == 404:
        assert instances == []
        return {}
    said = {
        "controllers_expected": reply.json["ControllersExpected"],
        "controllers_healthy": reply.json["ControllersHealthy"],
        "nodes_expected": reply.json["NodesExpected"],
        "nodes_healthy": reply.json["NodesHealthy"],
    }
    assert said == {name: stored[name] for name in said}
    return said


def counted(instances: Iterable[Any]) -> dict[str, int]:
    """The counts that these instances must have."""
    every = list(instances)
    return {
        "instances": len(every),
        "controllers_expected": sum(i.controller for i in every),
        "controllers_healthy": sum(i.controller and i.healthy for i in every),
        "nodes_expected": sum(i.node for i in every),
        "nodes_healthy": sum(i.node and i.healthy for i in every),
    }


def statuses(system: System) -> dict[str, str]:
    """Status of every node, as GET /v1/nodes shows it."""
    return {node["ID"]: node["Status"] for node in system.call("GET", "/v1/nodes").json}
