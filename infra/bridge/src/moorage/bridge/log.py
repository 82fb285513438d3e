"""Structured log lines on standard error, including those of gRPC's C library.

They never hold the bytes of a request or secrets.
"""

import json
import logging
import os
import sys
import threading
import time
from typing import Final, TextIO

FIELDS: Final = (
    "plugin",
    "rpc",
    "code",
    "milliseconds",
    "operation",
    "attempt",
    "peer",
    "serial",
    "text",
    "reason",
    "node",
    "address",
    "status",
    "seconds",
    "healthy",
    "until",
    "source",
    "volume",
    "target",
    "allocation",
)
_HANDSHAKE: Final = (
    ("certificate has expired", "the client's certificate has expired"),
    ("unsupported certificate purpose", "the client's certificate is not made for calling: is it a bridge's?"),
    ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "the client showed no certificate"),
    ("CERTIFICATE_VERIFY_FAILED", "the client's certificate is not from our CA"),
    ("WRONG_VERSION_NUMBER", "the client does not speak TLS"),
    ("HTTP_REQUEST", "the client does not speak TLS"),
    ("UNKNOWN_CA", "the client does not trust our certificate"),
)
"""What the TLS library says about a failed handshake, and what a person should read instead."""


class JsonLines(logging.Formatter):
    """Format a record as one line of JSON with the fields in FIELDS only."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def start(level: str) -> None:
    """Write log lines to standard error from now on, and turn what gRPC's C library prints there into such lines.

    The C library reports failed handshakes nowhere else. It writes to descriptor 2, so that becomes a pipe, which a
    thread reads. Our own lines go to a copy of the real standard error.
    """
    real: TextIO = os.fdopen(os.dup(2), "w", buffering=1)
    handler = logging.StreamHandler(real)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    sys.stderr = real
    threading.Thread(target=_relay_lines, args=(reading,), name="grpc-log", daemon=True).start()


def explain(line: str) -> tuple[int, str, str]:
    """Return level, message and text for a line of gRPC's C library."""
    if "andshake" in line or "SSL_ERROR" in line:
        for sign, reason in _HANDSHAKE:
            if sign in line:
                return logging.WARNING, "connection refused", reason
    return (logging.WARNING if line.startswith(("E", "F")) else logging.DEBUG), "grpc", line


def _relay_lines(reading: int) -> None:
    log = logging.getLogger("moorage.grpc")
    with os.fdopen(reading, errors="replace") as lines:
        for line in lines:
            stripped = line.strip()
            if stripped:
                level, message, text = explain(stripped)
                log.log(level, message, extra={"reason" if message != "grpc" else "text": text, "source": "grpc"})
