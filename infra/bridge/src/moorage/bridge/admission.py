"""Check on every call that the caller is a worker, with a valid certificate whose serial is not refused.

TLS checks the chain only when a connection begins. A connection may outlive its certificate, and a serial may be
refused later.
"""

import datetime as dt
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from cryptography import x509

from moorage.certificates import Certificate, clean_serial

REMEMBERED: Final = 64


class Admission:
    """Check the client's certificate in gRPC's auth context. Each certificate is parsed once."""

    def __init__(self, refused_here: Callable[[], frozenset[str]], now: Callable[[], float] = time.time) -> None:
        self._refused_here, self._now = refused_here, now
        self._refused_there: frozenset[str] = frozenset()
        self._parsed: OrderedDict[bytes, Certificate] = OrderedDict()

    def refuse(self, serials: Iterable[str]) -> None:
        """Replace the list of refused serials that the control plane sent."""
        self._refused_there = frozenset(clean_serial(one) for one in serials)

    def reason_to_refuse(self, auth_context: Mapping[str, Iterable[bytes]]) -> tuple[str, str]:
        """Return the caller's serial, and why it may not call or ""."""
        pem = next(iter(auth_context.get("x509_pem_cert", ())), b"")
        if not pem:
            return "", "the client showed no certificate"
        issued = self._parse(pem)
        if not issued.is_valid(dt.datetime.fromtimestamp(self._now(), dt.UTC)):
            return issued.serial, "the client's certificate has expired"
        if "worker" not in issued.roles:
            return issued.serial, "the client's certificate is not a worker's"
        if issued.serial in self._refused_there or issued.serial in self._refused_here():
            return issued.serial, "the client's certificate is on the list of refused serials"
        return issued.serial, ""

    def _parse(self, pem: bytes) -> Certificate:
        issued = self._parsed.pop(pem, None) or Certificate(x509.load_pem_x509_certificate(pem))
        self._parsed[pem] = issued
        while len(self._parsed) > REMEMBERED:
            self._parsed.popitem(last=False)
        return issued
