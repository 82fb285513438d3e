"""The development CA and the certificates of bridge and worker, made by the `moorage` command."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509

from infra.local import clock, say
from infra.local.deployment import Emulated

if TYPE_CHECKING:
    from infra.local.settings import Settings

NODE_ID: Final = "local"
RENEW_BEFORE: Final = datetime.timedelta(days=7)


def command(name: str) -> str:
    """Path of a program that came into the environment with our packages."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise say.Trouble(f"the command {name} is missing from {path.parent}: run make venv")
    return str(path)


def ensure(settings: Settings) -> bool:
    """Make what is missing or ends soon, and put the worker's identity where the functions read it; whether it did."""
    ca = settings.certs / "ca"
    bridge = settings.certs / "bridge"
    worker = settings.certs / "worker"
    if not (ca / "ca.pem").is_file():
        _moorage(settings, "Making a development CA", "certs", "init", str(ca))
    if _ends_soon(bridge / "bridge.pem"):
        _moorage(settings, "Making the bridge's certificate", "certs", "bridge", str(ca), NODE_ID, str(bridge))
    if _ends_soon(worker / "worker.pem"):
        _moorage(settings, "Making the worker's certificate", "certs", "worker", str(ca), str(worker))
    if _published(settings) == (worker / "worker.pem").read_text().strip():
        return False
    what = "Sealing the worker's key and publishing its identity"
    _moorage(settings, what, "certs", "publish-worker", str(worker), "--stage", settings.stage)
    return True


def for_node(settings: Settings, node_id: str) -> None:
    """A bridge's certificate for one more node, in a folder of its own, unless there is one that lasts."""
    out = settings.certs / node_id
    if _ends_soon(out / "bridge.pem"):
        ca = str(settings.certs / "ca")
        _moorage(settings, f"Making a certificate for node {node_id}", "certs", "bridge", ca, node_id, str(out))


def _published(settings: Settings) -> str | None:
    table = f"moorage-{settings.stage}-meta"
    key = {"pk": {"S": "worker"}, "sk": {"S": "tls"}}
    item = (
        Emulated(settings.endpoint)
        .client("dynamodb")
        .get_item(TableName=table, Key=key, ConsistentRead=True)
        .get("Item")
    )
    return None if item is None else str(item["certificate_pem"]["S"]).strip()


def _ends_soon(path: Path) -> bool:
    if not path.is_file():
        return True
    end = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    return end - RENEW_BEFORE < datetime.datetime.fromtimestamp(clock.now(), datetime.UTC)


def _moorage(settings: Settings, what: str, *arguments: str) -> None:
    with say.step(what):
        done = subprocess.run(
            [command("moorage"), *arguments],
            env=settings.aws_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        raise say.Trouble(f"moorage {' '.join(arguments[:2])} failed: {' '.join(last)}")
