"""Structured logs: one JSON line for each event. Only named fields are written, so that no secret gets into a line."""

import json
import sys
from typing import Any


def line(event: str, **fields: Any) -> None:
    """Write one line without its empty fields. Lambda sends standard output to CloudWatch."""
    body = {"event": event, **{name: value for name, value in fields.items() if value not in (None, "", [])}}
    sys.stdout.write(json.dumps(body, default=str, ensure_ascii=False) + "\n")
    sys.stdout.flush()
