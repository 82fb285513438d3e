"""The bridge's own certificate, read again when its files change and used by every new connection."""

import datetime as dt
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import grpc
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from moorage import certificates
from moorage.certificates import Certificate, CertificateTrouble

log: Final = logging.getLogger(__name__)
FILES: Final = ("ca.pem", "bridge.pem", "bridge-key.pem")


@dataclass(frozen=True)
class BridgeTls:
    """A CA, certificate and key that belong together, as the bridge uses them for TLS."""

    ca: bytes
    certificate: bytes
    key: bytes
    issued: Certificate

    def sign(self, data: bytes) -> bytes:
        """Return a signature of `data`: ECDSA with SHA-256, in ASN.1."""
        key = certificates.read_key_bytes(self.key)
        return key.sign(data, ec.ECDSA(hashes.SHA256()))


class OwnCertificate:
    """The certificate in a folder. A new one that cannot be used is logged once, and the one before stays in use."""

    def __init__(self, folder: Path) -> None:
        """Read the folder. Raises CertificateTrouble if there is no usable certificate."""
        self._folder = folder
        self._lock = threading.Lock()
        self._stamp = self._look()
        self._tls = self._load()
        self._refused_stamp: tuple[int, int] | None = None
        self._refused: frozenset[str] = frozenset()

    def current(self) -> BridgeTls:
        """Return the newest certificate that can be used."""
        with self._lock:
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._tls = self._load()
                    issued = self._tls.issued
                    log.info("certificate read again", extra={"serial": issued.serial, "until": issued.ends})
                except CertificateTrouble as exc:
                    log.error("new certificate not used, the old one stays", extra={"reason": str(exc)})  # noqa: TRY400
            return self._tls

    def refused(self) -> frozenset[str]:
        """Return the refused serials in the folder, read again when the list changes."""
        stamp = _stamp_of(self._folder / certificates.REFUSED_FILE)
        if stamp != self._refused_stamp:
            self._refused, self._refused_stamp = certificates.read_refused(self._folder), stamp
        return self._refused

    def server_credentials(self) -> grpc.ServerCredentials:
        """Return credentials that ask for the current certificate at each handshake."""
        served = self.current()

        def configuration(tls: BridgeTls) -> grpc.ServerCertificateConfiguration:
            return grpc.ssl_server_certificate_configuration([(tls.key, tls.certificate)], tls.ca)

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal served
            newest = self.current()
            if newest is served:
                return None
            served = newest
            return configuration(newest)

        # gRPC takes None for "no change", which its type stubs do not know.
        fetcher = cast("Callable[[], grpc.ServerCertificateConfiguration]", fetch)
        return grpc.dynamic_ssl_server_credentials(configuration(served), fetcher, require_client_authentication=True)

    def _look(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(_stamp_of(self._folder / name) for name in FILES)

    def _load(self) -> BridgeTls:
        try:
            ca, certificate, key = ((self._folder / name).read_bytes() for name in FILES)
        except OSError as exc:
            raise CertificateTrouble(
                f"{exc.filename} cannot be read ({exc.strerror}): moorage certs bridge makes it"
            ) from exc
        issued = certificates.check_pair(ca, certificate, key)
        if issued.node_id is None or "bridge" not in issued.roles:
            raise CertificateTrouble(f"{self._folder / 'bridge.pem'} is no bridge's certificate: issue one")
        if issued.ends < dt.datetime.now(dt.UTC):
            raise CertificateTrouble(f"{self._folder / 'bridge.pem'} ended on {issued.ends:%Y-%m-%d}: renew it")
        return BridgeTls(ca, certificate, key, issued)


def _stamp_of(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino
