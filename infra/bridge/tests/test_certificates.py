"""moorage certs, and what a bridge does with certificates: each wrong one is tried against a running bridge."""

import datetime as dt
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from infra.bridge.tests.parts import NOW, ControlPlane, FakePlugin, Pki, eventually, make_pki, worker_at
from moorage import certificates
from moorage.certificates import Certificate, CertificateTrouble
from moorage.cli import main

DAY = dt.timedelta(days=1)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["certs", *map(str, arguments)])


def public(path: Path) -> bytes:
    return (
        Certificate.read(path)
        .certificate.public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def test_cli_makes_what_bridge_and_worker_need(tmp_path: Path) -> None:
    ca, bridge, worker = tmp_path / "ca", tmp_path / "bridge", tmp_path / "worker"
    assert run("init", ca).exit_code == 0
    assert run("bridge", ca, "n1", bridge).exit_code == 0
    assert run("worker", ca, worker).exit_code == 0
    assert sorted(path.name for path in bridge.iterdir()) == ["bridge-key.pem", "bridge.pem", "ca.pem"]
    assert sorted(path.name for path in worker.iterdir()) == ["ca.pem", "worker-key.pem", "worker.pem"]
    for key in (ca / "ca-key.pem", bridge / "bridge-key.pem", worker / "worker-key.pem"):
        assert key.stat().st_mode & 0o777 == 0o600
    issued = Certificate.read(bridge / "bridge.pem")
    assert (issued.node_id, issued.roles) == ("n1", frozenset({"bridge"}))
    assert Certificate.read(worker / "worker.pem").roles == {"worker"}
    assert issued.ends - NOW < 31 * DAY


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("init", "{ca}"), "holds a CA already"),
        (("bridge", "{ca}", "Not_A_Node", "{out}"), "is no node ID"),
        (("bridge", "{out}", "n1", "{out}"), "does not exist"),
        (("bridge", "{ca}", "n1", "{out}", "--days", "99999"), "choose fewer --days"),
        (("bridge", "{ca}", "n2", "{bridge}"), "is for node n1"),
        (("renew", "{ca}", "{out}"), "issue one first"),
        (("refuse", "{out}", "xyz"), "is no serial number"),
        (("publish-worker", "{bridge}", "--stage", "s"), "worker.pem cannot be read"),
    ],
)
def test_cli_says_what_to_do_about_bad_input(tmp_path: Path, pki: Pki, arguments: tuple[str, ...], words: str) -> None:
    names = {"ca": pki.ca, "bridge": pki.bridge, "out": tmp_path / "out"}
    result = run(*(one.format(**names) for one in arguments))
    assert result.exit_code == 1
    assert words in result.output
    assert "Traceback" not in result.output


def test_publishing_without_the_aws_packages_names_this_package_of_the_checkout(
    pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name alone would be looked up on PyPI, where it is not ours."""
    monkeypatch.setitem(sys.modules, "aws_encryption_sdk", None)
    result = run("publish-worker", pki.worker, "--stage", "s")
    assert result.exit_code == 1
    assert result.output == (
        "Error: publishing needs the AWS packages: in Moorage's checkout, pip install './infra/bridge[aws]'\n"
    )


def test_renewal_keeps_name_and_key_and_happens_only_when_due(tmp_path: Path, pki: Pki) -> None:
    before, serial = public(pki.bridge / "bridge.pem"), Certificate.read(pki.bridge / "bridge.pem").serial
    assert "is not due" in run("renew", pki.ca, pki.bridge).output
    assert Certificate.read(pki.bridge / "bridge.pem").serial == serial
    certificates.issue_bridge(pki.ca, "n1", pki.bridge, days=10, now=NOW - 7 * DAY)
    then = tmp_path / "then"
    result = run("renew", pki.ca, pki.bridge, pki.worker, "--then", f"touch {then}-{{}}".replace("{}", "done"))
    assert result.exit_code == 0, result.output
    renewed = Certificate.read(pki.bridge / "bridge.pem")
    assert renewed.serial != serial
    assert (renewed.node_id, public(pki.bridge / "bridge.pem")) == ("n1", before)
    assert Path(f"{then}-done").exists()


def test_command_after_a_renewal_that_fails_is_told(pki: Pki) -> None:
    result = run("renew", pki.ca, pki.worker, "--force", "--then", "false {}")
    assert result.exit_code == 1
    assert "was renewed, but this failed afterwards: false" in result.output


def test_refused_serials_are_kept_in_one_spelling(pki: Pki) -> None:
    assert run("refuse", pki.bridge, "0x00AB:CD").exit_code == 0
    assert run("refuse", pki.bridge, "ff").exit_code == 0
    assert certificates.read_refused(pki.bridge) == {"abcd", "ff"}


def test_pair_that_does_not_belong_together_is_told(tmp_path: Path, pki: Pki) -> None:
    other = make_pki(tmp_path / "other")
    ca, leaf, key = ((pki.bridge / name).read_bytes() for name in ("ca.pem", "bridge.pem", "bridge-key.pem"))
    assert certificates.check_pair(ca, leaf, key).node_id == "n1"
    for wrong in (
        ((other.ca / "ca.pem").read_bytes(), leaf, key),
        (ca, leaf, (other.bridge / "bridge-key.pem").read_bytes()),
        (ca, leaf[: len(leaf) // 2], key),
    ):
        with pytest.raises(CertificateTrouble):
            certificates.check_pair(*wrong)


@dataclass
class Process:
    """A bridge as its own process, with its log."""

    process: subprocess.Popen[str]
    lines: list[dict[str, Any]] = field(default_factory=list)

    def read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(json.loads(line))

    @property
    def address(self) -> str:
        return next((str(line["address"]) for line in self.lines if line["message"] == "listening"), "")

    def reasons(self, message: str) -> list[str]:
        return [line["reason"] for line in self.lines if line["message"] == message]


@pytest.fixture
def process(tmp_path: Path, pki: Pki, plugin: FakePlugin, control_plane: ControlPlane) -> Iterator[Process]:
    plugin.handlers["DeleteVolume"] = lambda *_: b""
    command = [sys.executable, "-c", "from moorage.cli import main; main()", "bridge", "--api", control_plane.url]
    command += ["--state", str(tmp_path / "state"), "--certs", str(pki.bridge), "--listen", "127.0.0.1:0"]
    command += ["--plugin", f"fake={plugin.target}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        found = Process(child)
        reader = threading.Thread(target=found.read, daemon=True)
        reader.start()
        eventually(lambda: found.address)
        yield found
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0
        reader.join(5)
    assert found.lines[-1]["message"] == "stopped"


def refusal(address: str, credentials: grpc.ChannelCredentials | None) -> Any:
    """The error of a call with these credentials."""
    worker = worker_at(address, credentials or grpc.local_channel_credentials())
    if credentials is None:
        worker.channel.close()
        worker.channel = grpc.insecure_channel(address)
    try:
        return worker.refused("DeleteVolume")
    finally:
        worker.channel.close()


@pytest.mark.enable_socket
def test_every_wrong_certificate_is_refused_with_a_clear_log_line(
    tmp_path: Path, pki: Pki, process: Process, plugin: FakePlugin
) -> None:
    other = make_pki(tmp_path / "other")
    certificates.issue_worker(pki.ca, tmp_path / "expired", days=1, now=NOW - 3 * DAY)
    cases = {
        "the client's certificate is not from our CA": pki.client(other.worker),
        "the client's certificate has expired": pki.client(tmp_path / "expired"),
        "the client's certificate is not made for calling: is it a bridge's?": pki.client(pki.bridge, role="bridge"),
        "the client showed no certificate": grpc.ssl_channel_credentials((pki.ca / "ca.pem").read_bytes()),
        "the client does not speak TLS": None,
    }
    for reason, credentials in cases.items():
        assert refusal(process.address, credentials).code() is grpc.StatusCode.UNAVAILABLE, reason
        eventually(lambda reason=reason: reason in process.reasons("connection refused"))  # type: ignore[misc]
    assert plugin.called("DeleteVolume") == []


@pytest.mark.enable_socket
def test_certificate_of_our_ca_without_the_role_is_refused(tmp_path: Path, pki: Pki, process: Process) -> None:
    out = tmp_path / "client"
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier("moorage://stranger")]
    certificates._issue(pki.ca, "worker", "stranger", names, out, days=1, now=NOW)
    error = refusal(process.address, pki.client(out))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert dict(error.trailing_metadata())["moorage-refused"] == "1"
    serial = Certificate.read(out / "worker.pem").serial
    eventually(
        lambda: [line for line in process.lines if line.get("serial") == serial and "not a worker's" in line["reason"]]
    )


@pytest.mark.enable_socket
def test_refused_serial_is_refused_from_the_next_call_on_also_on_an_open_connection(pki: Pki, process: Process) -> None:
    worker = worker_at(process.address, pki.client())
    worker.call("DeleteVolume")
    serial = Certificate.read(pki.worker / "worker.pem").serial
    certificates.refuse(pki.bridge, serial)
    error = worker.refused("DeleteVolume")
    worker.channel.close()
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    eventually(lambda: any("refused serials" in one for one in process.reasons("refused")))
    certificates.issue_worker(pki.ca, pki.worker, days=1, now=NOW)
    again = worker_at(process.address, pki.client())
    again.call("DeleteVolume")
    again.channel.close()


@pytest.mark.enable_socket
def test_worker_does_not_trust_a_bridge_of_another_node_or_ca(tmp_path: Path, pki: Pki, process: Process) -> None:
    wrong_name = worker_at(process.address, pki.client(), node_id="n2")
    assert "Hostname Verification Check failed" in wrong_name.refused("DeleteVolume").details()
    wrong_name.channel.close()
    other = make_pki(tmp_path / "other")
    assert "CERTIFICATE_VERIFY_FAILED" in refusal(process.address, pki.client(ca=other.ca)).details()


@pytest.mark.enable_socket
def test_renewed_certificate_and_new_ca_serve_without_a_restart(tmp_path: Path, pki: Pki, process: Process) -> None:
    def served() -> str:
        return _served_serial(process.address, pki)

    first = served()
    renewed = certificates.renew(pki.ca, pki.bridge, days=10, now=NOW).serial
    assert first != renewed
    assert served() == renewed
    worker = worker_at(process.address, pki.client())
    worker.call("DeleteVolume")
    worker.channel.close()
    other = make_pki(tmp_path / "other")
    for name in ("ca.pem", "bridge-key.pem", "bridge.pem"):  # half of it must not be used
        os.replace(other.bridge / name, pki.bridge / name)  # noqa: PTH105 - as a tool that copies files would
    new = worker_at(process.address, other.client())
    new.call("DeleteVolume")
    new.channel.close()
    assert refusal(process.address, pki.client(ca=other.ca)).code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.enable_socket
def test_broken_new_files_leave_the_old_certificate_in_use(pki: Pki, process: Process) -> None:
    (pki.bridge / "bridge.pem").write_text("-----BEGIN CERTIFICATE-----\nbroken\n")
    worker = worker_at(process.address, pki.client())
    worker.call("DeleteVolume")
    worker.channel.close()
    eventually(lambda: process.reasons("new certificate not used, the old one stays"))


@pytest.mark.enable_socket
def test_log_holds_no_bytes_of_requests(pki: Pki, process: Process, plugin: FakePlugin) -> None:
    plugin.handlers["CreateVolume"] = lambda *_: b"answer-secret"
    worker = worker_at(process.address, pki.client())
    worker.call("CreateVolume", b"request-secret", x_header="header-secret")
    worker.channel.close()
    eventually(lambda: [line for line in process.lines if line.get("rpc") == "CreateVolume"])
    assert "secret" not in json.dumps(process.lines)


def _served_serial(address: str, pki: Pki) -> str:
    """Serial of the certificate that a new connection is shown."""
    context = ssl.create_default_context(cafile=str(pki.ca / "ca.pem"))
    context.load_cert_chain(pki.worker / "worker.pem", pki.worker / "worker-key.pem")
    context.set_alpn_protocols(["h2"])
    host, port = address.rsplit(":", 1)
    with (
        socket.create_connection((host, int(port)), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="n1.bridge.moorage") as secure,
    ):
        der = secure.getpeercert(binary_form=True)
    assert der is not None
    return Certificate(x509.load_der_x509_certificate(der)).serial
