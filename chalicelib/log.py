"""Structured logs: one JSON line for an event, fields instead of prose, and never a secret, since only named fields
are written.
"""

import json
import sys
from typing import Any


def line(event: str, **fields: Any) -> None:
    """Write one line; Lambda sends standard output to CloudWatch."""
    body = {"event": event, **{name: value for name, value in fields.items() if value not in (None, "", [])}}
    sys.stdout.write(json.dumps(body, default=str, ensure_ascii=False) + "\n")
    sys.stdout.flush()
