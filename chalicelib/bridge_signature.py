"""Verify a bridge's signature: a certificate from our CA, the node ID in it, and the key's signature over the body.

The bridge signs the body (docs/interfaces.md, section 4), because mutual TLS does not reach the function. API Gateway
shows a client's certificate only with a custom domain with mutual TLS, and the local system has no TLS in front of it.
"""

import base64
import binascii
import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from chalicelib.errors import PermissionDenied

SCHEME: Final = "v1"


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that was verified."""

    key: str
    """The fingerprint of the key: SHA-256 of its DER form, in hexadecimal."""
    serial: str
    """The serial of the certificate: hexadecimal, lower case, without leading zeros."""


def verify_signature(  # noqa: PLR0913 - each is a part of what is checked, and named
    *,
    ca_pem: str,
    refused: Collection[str],
    certificate_pem: str,
    node_id: str,
    method: str,
    body: bytes,
    signature: str,
    now: float,
) -> Signature:
    """Return the key and the certificate that signed a message. Raises PermissionDenied, which says what is wrong.

    `refused` has serials as in `Signature`, and `now` is in seconds since the epoch. The signed text is
    `<method>\n/v1/bridge/<node_id>\n<SHA-256 of the body, hex>`.
    """
    # Imported here: only this route needs it, and it is most of a cold start.
    import datetime as dt

    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        ca = x509.load_pem_x509_certificate(ca_pem.encode())
        leaf = x509.load_pem_x509_certificate(certificate_pem.encode())
    except ValueError as exc:
        raise PermissionDenied("bridge certificate cannot be read: send the PEM of the leaf certificate") from exc
    try:
        leaf.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature) as exc:
        raise PermissionDenied(
            "bridge certificate is not from this control plane's CA: issue one with `moorage certs bridge`"
        ) from exc
    moment = dt.datetime.fromtimestamp(now, dt.UTC)
    if not leaf.not_valid_before_utc <= moment <= leaf.not_valid_after_utc:
        raise PermissionDenied(
            "bridge certificate is expired or not yet valid: renew it with `moorage certs renew`, and check the clock"
        )
    serial = format(leaf.serial_number, "x")
    if serial in refused:
        raise PermissionDenied(
            "bridge certificate is on the list of refused serials: issue another with `moorage certs bridge`"
        )
    wanted = f"{node_id}.bridge.moorage"
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
            x509.DNSName
        )
    except x509.ExtensionNotFound:
        names = []
    if wanted not in names:
        raise PermissionDenied(f"bridge certificate is not for node {node_id}: it names {', '.join(names) or 'nobody'}")
    key = leaf.public_key()
    scheme, _, encoded = signature.partition(" ")
    if scheme != SCHEME or not isinstance(key, ec.EllipticCurvePublicKey):
        raise PermissionDenied("bridge signature is missing or of an unknown scheme: update the bridge")
    signed = f"{method}\n/v1/bridge/{node_id}\n{hashlib.sha256(body).hexdigest()}".encode()
    try:
        key.verify(base64.b64decode(encoded, validate=True), signed, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, binascii.Error, ValueError) as exc:
        raise PermissionDenied("bridge signature does not fit the body and the certificate") from exc
    public = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Signature(hashlib.sha256(public).hexdigest(), serial)
