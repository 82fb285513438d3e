"""moorage certs: make the CA, and the certificates of bridges and workers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from moorage.certificates import Certificate

F = TypeVar("F", bound=Callable[..., Any])
CA_DAYS: Final = 3650
LEAF_DAYS: Final = 30
FOLDER = click.Path(path_type=Path, file_okay=False)
DAYS = click.option("--days", type=click.IntRange(min=1), default=LEAF_DAYS, help="Life of the certificate.")


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@contextmanager
def _readable_errors() -> Iterator[None]:
    """Turn errors of certificates and of the disk into one line for a person."""
    from moorage.certificates import CertificateTrouble

    try:
        yield
    except CertificateTrouble as exc:
        raise click.ClickException(str(exc)) from exc
    except OSError as exc:
        raise click.ClickException(f"{exc.filename}: {exc.strerror}") from exc


def _with_readable_errors(command: F) -> F:
    @wraps(command)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        with _readable_errors():
            return command(*arguments, **options)

    return wrapped  # type: ignore[return-value]


def _print_certificate(what: str, issued: Certificate) -> None:
    click.echo(f"{what}: serial {issued.serial}, until {issued.ends:%Y-%m-%d %H:%M} UTC")


@click.group()
def certs() -> None:
    """Make a CA, issue and renew certificates for bridges and the worker, refuse some."""


@certs.command()
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option("--days", type=click.IntRange(min=1), default=CA_DAYS, help="Life of the CA.")
@_with_readable_errors
def init(folder: Path, days: int) -> None:
    """Make a CA: DIR/ca.pem and DIR/ca-key.pem. Keep the key where only you can read it."""
    from moorage import certificates

    _print_certificate(f"CA in {folder}", certificates.make_ca(folder, days=days, now=_now()))


@certs.command("bridge")
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.argument("node_id")
@click.argument("out", type=FOLDER)
@DAYS
@_with_readable_errors
def bridge_(folder: Path, node_id: str, out: Path, days: int) -> None:
    """Issue (or issue again, with the same key) the certificate of the bridge on NODE_ID into OUT."""
    from moorage import certificates

    _print_certificate(
        f"bridge {node_id} in {out}", certificates.issue_bridge(folder, node_id, out, days=days, now=_now())
    )


@certs.command()
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.argument("out", type=FOLDER)
@DAYS
@_with_readable_errors
def worker(folder: Path, out: Path, days: int) -> None:
    """Issue (or issue again, with the same key) the worker's certificate into OUT."""
    from moorage import certificates

    _print_certificate(f"worker in {out}", certificates.issue_worker(folder, out, days=days, now=_now()))


@certs.command()
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.argument("outs", type=FOLDER, nargs=-1, required=True, metavar="OUT...")
@DAYS
@click.option("--force", is_flag=True, help="Renew also what has more than a third of its life left.")
@click.option("--then", "then", default=None, metavar="COMMAND", help="Run after each renewal; {} is the folder.")
@_with_readable_errors
def renew(folder: Path, outs: tuple[Path, ...], days: int, force: bool, then: str | None) -> None:
    """Renew what is due in each OUT, with the same name and key. Meant for a timer.

    A running bridge reads the new files by itself. For the worker, and for bridges on other machines, --then carries
    the new certificate on: --then 'moorage certs publish-worker {} --stage prod', --then 'rsync -a {}/ host:/certs/'.
    """
    import shlex
    import subprocess

    from moorage import certificates

    for out in outs:
        held = certificates.Certificate.read(out / f"{certificates.role_of(out)}.pem")
        if not force and not held.is_due(_now()):
            _print_certificate(f"{out} is not due", held)
            continue
        _print_certificate(f"renewed {out}", certificates.renew(folder, out, days=days, now=_now()))
        if then is not None:
            command = [part.replace("{}", str(out)) for part in shlex.split(then)]
            if subprocess.run(command, check=False).returncode != 0:
                raise certificates.CertificateTrouble(
                    f"{out} was renewed, but this failed afterwards: {shlex.join(command)}"
                )


@certs.command()
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.argument("serial")
@_with_readable_errors
def refuse(folder: Path, serial: str) -> None:
    """Add SERIAL to DIR/refused.txt. A bridge whose --certs is DIR refuses it from the next call on.

    publish-worker publishes the list in the worker's folder: the control plane then refuses bridges that show one of
    these certificates, and tells the list to all bridges with the answer to their next heartbeat.
    """
    from moorage import certificates

    refused = certificates.refuse(folder, serial)
    click.echo(f"{len(refused)} refused in {folder / certificates.REFUSED_FILE}")


@certs.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@_with_readable_errors
def show(path: Path) -> None:
    """Print serial, names and end of a certificate, or of all in a folder."""
    from moorage.certificates import Certificate

    paths = sorted(one for one in path.glob("*.pem") if not one.name.endswith("-key.pem")) if path.is_dir() else [path]
    for one in paths:
        issued = Certificate.read(one)
        roles = ", ".join(sorted(issued.roles)) or "CA or other"
        node = f" of node {issued.node_id}" if issued.node_id else ""
        _print_certificate(f"{one}: {roles}{node}", issued)


@certs.command("publish-worker")
@click.argument("out", type=FOLDER)
@click.option("--stage", required=True, help="Stage of the control plane.")
@click.option("--region", default=None, help="AWS region; default: AWS's own settings.")
@_with_readable_errors
def publish_worker(out: Path, stage: str, region: str | None) -> None:
    """Put the worker's certificate in OUT, and its sealed key, where the control plane's worker reads them.

    OUT/refused.txt, if it is there, is published too: the serials that the control plane and every bridge refuse.
    """
    from moorage import publishing

    serial = publishing.publish_worker(out, stage=stage, region=region)
    click.echo(f"stage {stage} now uses the worker's certificate {serial}")
