"""Write what functions print to a file, line by line, with the time and the function's name."""

from __future__ import annotations

import datetime
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from ministack.services import lambda_svc

PLATFORM: Final = ("START RequestId", "END RequestId", "REPORT RequestId")


def patch(path: Path) -> None:
    """Patch MiniStack so that it also writes a function's output to `path`, not to CloudWatch Logs alone."""
    original = lambda_svc._emit_lambda_logs

    def emit(func: Any, request_id: str, log_text: str, *arguments: Any, **more: Any) -> None:
        lines = [line for line in (log_text or "").splitlines() if line.strip() and not line.startswith(PLATFORM)]
        if lines:
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
            name = (func.get("config") or func).get("FunctionName", "?")
            with suppress(OSError), path.open("a") as file:  # a full disk must not make the function fail
                file.write("".join(f"{now} {name} {line}\n" for line in lines))
        original(func, request_id, log_text, *arguments, **more)

    lambda_svc._emit_lambda_logs = emit
