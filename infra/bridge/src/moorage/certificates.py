"""Make and read the CA and the certificates of bridges and workers (ECDSA P-256). A renewal keeps the key.

A folder holds `ca.pem` and `ca-key.pem` (the CA's), or `<role>.pem`, `<role>-key.pem` and a copy of `ca.pem`. The
subject alternative names say what a certificate is for: `<node id>.bridge.moorage` and `moorage://bridge`, or
`moorage://worker`. A bridge's key also signs the bridge's messages to the control plane.
"""

import contextlib
import datetime as dt
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from moorage.files import write_whole

Role = Literal["bridge", "worker"]
ROLES: Final[tuple[Role, ...]] = ("bridge", "worker")
NODE_SUFFIX: Final = ".bridge.moorage"
NODE_ID: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
REFUSED_FILE: Final = "refused.txt"
SKEW: Final = dt.timedelta(minutes=5)
"""A certificate is valid from this long before it was issued, because clocks differ."""
RENEW_SHARE: Final = 3
"""A certificate is renewed when less than a third of its life is left."""


class CertificateTrouble(Exception):
    """Something is wrong with certificates or their files. The text says what to do."""


@dataclass(frozen=True)
class Certificate:
    """A certificate that is in a file."""

    certificate: x509.Certificate

    @classmethod
    def read(cls, path: Path) -> "Certificate":
        """Read a PEM file. Raises CertificateTrouble."""
        try:
            return cls(x509.load_pem_x509_certificate(path.read_bytes()))
        except FileNotFoundError as exc:
            raise CertificateTrouble(f"{path} does not exist: make it with moorage certs") from exc
        except (OSError, ValueError) as exc:
            raise CertificateTrouble(f"{path} cannot be read as a certificate: {exc}") from exc

    @property
    def serial(self) -> str:
        """The serial number as lists of refused serials have it: hexadecimal, lower case."""
        return format(self.certificate.serial_number, "x")

    @property
    def ends(self) -> dt.datetime:
        return self.certificate.not_valid_after_utc

    @property
    def roles(self) -> frozenset[str]:
        """The roles that it proves, of ROLES."""
        uris = _names(self.certificate, x509.UniformResourceIdentifier)
        return frozenset(role for role in ROLES if f"moorage://{role}" in uris)

    @property
    def node_id(self) -> str | None:
        """The node that a bridge's certificate is for, or None."""
        names = [name for name in _names(self.certificate, x509.DNSName) if name.endswith(NODE_SUFFIX)]
        return names[0].removesuffix(NODE_SUFFIX) if names else None

    def is_valid(self, now: dt.datetime) -> bool:
        return self.certificate.not_valid_before_utc <= now <= self.ends

    def is_due(self, now: dt.datetime) -> bool:
        """Return whether it is time to renew it."""
        return self.ends - now < (self.ends - self.certificate.not_valid_before_utc) / RENEW_SHARE


def make_ca(folder: Path, *, days: int, now: dt.datetime) -> Certificate:
    """Make a CA in `folder`.

    Raises CertificateTrouble if there is one: what it issued would not be trusted any more.
    """
    if (folder / "ca.pem").exists() or (folder / "ca-key.pem").exists():
        raise CertificateTrouble(f"{folder} holds a CA already: choose another folder, or remove it and issue all anew")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"moorage CA {now:%Y-%m-%d}")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    certificate = builder.sign(key, hashes.SHA256())
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write_key(folder / "ca-key.pem", key)
    write_whole(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM))
    return Certificate(certificate)


def issue_bridge(ca: Path, node_id: str, out: Path, *, days: int, now: dt.datetime) -> Certificate:
    """Issue a bridge's certificate for `node_id`, for the key in `out` or a new one. Raises CertificateTrouble."""
    if NODE_ID.fullmatch(node_id) is None:
        raise CertificateTrouble(f"{node_id!r} is no node ID: 1 to 63 of a-z, 0-9 and -, not at the ends")
    held = out / "bridge.pem"
    if held.exists() and Certificate.read(held).node_id != node_id:
        raise CertificateTrouble(
            f"{held} is for node {Certificate.read(held).node_id}: choose another folder for {node_id}"
        )
    names: list[x509.GeneralName] = [
        x509.DNSName(f"{node_id}{NODE_SUFFIX}"),
        x509.UniformResourceIdentifier("moorage://bridge"),
    ]
    return _issue(ca, "bridge", node_id, names, out, days=days, now=now)


def issue_worker(ca: Path, out: Path, *, days: int, now: dt.datetime) -> Certificate:
    """Issue the worker's certificate, for the key in `out` or a new one. Raises CertificateTrouble."""
    return _issue(ca, "worker", "worker", [x509.UniformResourceIdentifier("moorage://worker")], out, days=days, now=now)


def role_of(out: Path) -> Role:
    """Return the role of the certificate in `out`. Raises CertificateTrouble if there is none."""
    for role in ROLES:
        if (out / f"{role}.pem").exists():
            return role
    raise CertificateTrouble(f"{out} holds neither bridge.pem nor worker.pem: issue one first")


def renew(ca: Path, out: Path, *, days: int, now: dt.datetime) -> Certificate:
    """Issue the certificate in `out` again, with the same name and key. Raises CertificateTrouble."""
    role = role_of(out)
    if role == "worker":
        return issue_worker(ca, out, days=days, now=now)
    node_id = Certificate.read(out / "bridge.pem").node_id
    if node_id is None:
        raise CertificateTrouble(f"{out / 'bridge.pem'} names no node: issue it anew with moorage certs bridge")
    return issue_bridge(ca, node_id, out, days=days, now=now)


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a private key. Raises CertificateTrouble if it is missing or no EC key."""
    try:
        return read_key_bytes(path.read_bytes())
    except FileNotFoundError as exc:
        raise CertificateTrouble(f"{path} does not exist: make it with moorage certs") from exc
    except OSError as exc:
        raise CertificateTrouble(f"{path} cannot be read: {exc.strerror}") from exc


def read_key_bytes(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Read a private key in PEM. Raises CertificateTrouble if it is no EC key."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as exc:
        raise CertificateTrouble(
            "the private key cannot be read without a password: issue it with moorage certs"
        ) from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateTrouble("the private key is no elliptic-curve key: issue it with moorage certs")
    return key


def check_pair(ca_pem: bytes, certificate_pem: bytes, key_pem: bytes) -> Certificate:
    """Return the certificate if it is the CA's and the key's.

    Raises CertificateTrouble if they do not belong together, and for half-written files.
    """
    try:
        ca = x509.load_pem_x509_certificate(ca_pem)
        leaf = x509.load_pem_x509_certificate(certificate_pem)
        key = serialization.load_pem_private_key(key_pem, password=None)
        leaf.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature) as exc:
        raise CertificateTrouble(
            f"certificate, key and ca.pem do not belong together ({type(exc).__name__} {exc})"
        ) from exc
    if key.public_key() != leaf.public_key():
        raise CertificateTrouble("the key is not that of the certificate: issue it anew with moorage certs")
    return Certificate(leaf)


def read_refused(folder: Path) -> frozenset[str]:
    """Return the refused serials in `folder`, or none if there is no list."""
    try:
        lines = (folder / REFUSED_FILE).read_text().splitlines()
    except FileNotFoundError:
        return frozenset()
    return frozenset(filter(None, (clean_serial(line.partition("#")[0]) for line in lines)))


def refuse(folder: Path, serial: str) -> frozenset[str]:
    """Add a serial to the list in `folder`, and return the whole list. Raises CertificateTrouble if it is no serial."""
    cleaned = clean_serial(serial)
    if re.fullmatch(r"[0-9a-f]{1,40}", cleaned) is None:
        raise CertificateTrouble(f"{serial!r} is no serial number: moorage certs show prints it")
    refused = read_refused(folder) | {cleaned}
    write_whole(folder / REFUSED_FILE, "".join(f"{one}\n" for one in sorted(refused)).encode())
    return refused


def clean_serial(text: str) -> str:
    """Return a serial as it is compared: hexadecimal, lower case, without colons and leading zeros."""
    return text.strip().lower().replace(":", "").removeprefix("0x").lstrip("0")


def _issue(
    ca: Path, role: Role, subject: str, names: list[x509.GeneralName], out: Path, *, days: int, now: dt.datetime
) -> Certificate:
    issuer, issuer_key = Certificate.read(ca / "ca.pem"), read_key(ca / "ca-key.pem")
    ends = now + dt.timedelta(days=days)
    if ends > issuer.ends:
        raise CertificateTrouble(
            f"the CA in {ca} ends on {issuer.ends:%Y-%m-%d}: make a new one, or choose fewer --days"
        )
    key_path = out / f"{role}-key.pem"
    key = read_key(key_path) if key_path.exists() else ec.generate_private_key(ec.SECP256R1())
    usage = ExtendedKeyUsageOID.SERVER_AUTH if role == "bridge" else ExtendedKeyUsageOID.CLIENT_AUTH
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"moorage {role} {subject}"[:64])]))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not key_path.exists():
        _write_key(key_path, key)
    write_whole(out / "ca.pem", (ca / "ca.pem").read_bytes())
    write_whole(out / f"{role}.pem", certificate.public_bytes(serialization.Encoding.PEM))
    return Certificate(certificate)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_whole(path, pem, mode=0o600)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _names(certificate: x509.Certificate, kind: type[x509.DNSName] | type[x509.UniformResourceIdentifier]) -> list[str]:
    with contextlib.suppress(x509.ExtensionNotFound):
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return [str(name.value) for name in found if isinstance(name, kind)]
    return []
