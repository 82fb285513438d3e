"""The development CA and the certificates of bridge and worker, made by the package `moorage`."""

from __future__ import annotations

import datetime
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from infra.local import clock, say
from infra.local.clients import EmulatorClients
from moorage import certificates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from infra.local.settings import Settings

NODE_ID: Final = "local"
CA_DAYS: Final = 3650
LEAF_DAYS: Final = 30
RENEW_BEFORE: Final = datetime.timedelta(days=7)


def command(name: str) -> str:
    """Return the path of a program of our packages. Raises Trouble if the environment has none."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise say.Trouble(f"the command {name} is missing from {path.parent}: run make venv")
    return str(path)


def ensure(settings: Settings) -> None:
    """Make the CA and the certificates that are missing or end soon. Raises Trouble."""
    ca, worker = settings.certs / "ca", settings.certs / "worker"
    with _readable_errors():
        if not (ca / "ca.pem").is_file():
            _remove_half_a_ca(settings.certs)
            certificates.make_ca(ca, days=CA_DAYS, now=_now())
        for_node(settings, NODE_ID, settings.certs / "bridge")
        if _ends_soon(worker / "worker.pem"):
            certificates.issue_worker(ca, worker, days=LEAF_DAYS, now=_now())


def for_node(settings: Settings, node_id: str, out: Path) -> None:
    """Make a bridge's certificate for a node in the folder `out`, unless there is one that lasts. Raises Trouble."""
    with _readable_errors():
        if _ends_soon(out / "bridge.pem"):
            certificates.issue_bridge(settings.certs / "ca", node_id, out, days=LEAF_DAYS, now=_now())


def _remove_half_a_ca(certs: Path) -> None:
    """Remove a CA's key that has no certificate, because a kill prevented it.

    While it is the only file, it has signed nothing.
    """
    key = certs / "ca" / "ca-key.pem"
    if [*certs.glob("*/*.pem")] == [key]:
        key.unlink()


@contextmanager
def _readable_errors() -> Iterator[None]:
    try:
        yield
    except certificates.CertificateTrouble as exc:
        raise say.Trouble(str(exc)) from exc


def publish(settings: Settings) -> None:
    """Publish the worker's certificate for the functions, unless it is there. Needs the stack's table and key.

    Raises Trouble.
    """
    worker = settings.certs / "worker"
    if _published_certificate(settings) == (worker / "worker.pem").read_text().strip():
        return
    # In a process of its own: AWS's encryption SDK finds the emulator by its environment only.
    done = subprocess.run(
        [command("moorage"), "certs", "publish-worker", str(worker), "--stage", settings.stage],
        env=settings.aws_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        raise say.Trouble(f"moorage certs publish-worker failed: {' '.join(last)}")


def _published_certificate(settings: Settings) -> str | None:
    table = f"moorage-{settings.stage}-meta"
    key = {"pk": {"S": "worker"}, "sk": {"S": "tls"}}
    item = (
        EmulatorClients(settings.endpoint, settings.key())
        .client("dynamodb")
        .get_item(TableName=table, Key=key, ConsistentRead=True)
        .get("Item")
    )
    return None if item is None else str(item["certificate_pem"]["S"]).strip()


def _ends_soon(path: Path) -> bool:
    if not path.is_file():
        return True
    return certificates.Certificate.read(path).ends - RENEW_BEFORE < _now()


def _now() -> datetime.datetime:
    return datetime.datetime.fromtimestamp(clock.now(), datetime.UTC)
