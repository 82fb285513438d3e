"""Settings of a function, read once from its environment; the only place that reads it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from chalicelib.domain.deadlines import HEARTBEAT_SECONDS, WAIT_LIMIT
from chalicelib.domain.plugin import USUAL_PATIENCE, Patience

APP_NAME: Final = "moorage"
MAX_WAITS: Final = 500
"""Half of what an account's functions may run at once by default (AWS: Lambda quotas, concurrent executions)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What one deployment is called and how long it waits; every name follows from the stage (docs/interfaces.md,
    section 1).
    """

    stage: str = "dev"
    wait_seconds: float = WAIT_LIMIT
    region: str = "us-east-1"
    in_lambda: bool = False
    max_waits: int = MAX_WAITS
    """Most blocking queries that wait at once: a share of the function's concurrency (docs/decisions/010)."""
    key_arn: str = ""
    patience: Patience = USUAL_PATIENCE

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> "Settings":
        """Settings from environment variables; raises ValueError that names the variable when one cannot be read."""
        env = os.environ if env is None else env
        wait = env.get("MOORAGE_WAIT_SECONDS", str(WAIT_LIMIT))
        try:
            wait_seconds = float(wait)
        except ValueError as exc:
            raise ValueError(f"MOORAGE_WAIT_SECONDS is {wait!r}: give a number of seconds") from exc
        waits = env.get("MOORAGE_MAX_WAITS", str(MAX_WAITS))
        if not (waits.isascii() and waits.isdigit()):
            raise ValueError(f"MOORAGE_MAX_WAITS is {waits!r}: give a whole number, 0 for no waits at all")
        return cls(
            stage=env.get("MOORAGE_STAGE", "dev"),
            wait_seconds=max(0.0, min(wait_seconds, WAIT_LIMIT)),
            region=env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or "us-east-1",
            max_waits=int(waits),
            in_lambda="LAMBDA_TASK_ROOT" in env,
            key_arn=env.get("MOORAGE_KEY_ARN", ""),
            patience=_patience(env),
        )

    def table(self, name: str) -> str:
        return f"{APP_NAME}-{self.stage}-{name}"

    @property
    def operations_queue(self) -> str:
        return f"{APP_NAME}-{self.stage}-operations"

    @property
    def dead_letter_queue(self) -> str:
        return f"{APP_NAME}-{self.stage}-operations-dead"

    @property
    def key_alias(self) -> str:
        return f"alias/{APP_NAME}-{self.stage}"

    @property
    def key(self) -> str:
        """The key that seals; a deploy names it exactly, since policies are about keys, not aliases."""
        return self.key_arn or self.key_alias

    @property
    def ask_function(self) -> str:
        return f"{APP_NAME}-{self.stage}-ask_plugin"

    @property
    def audit_function(self) -> str:
        return f"{APP_NAME}-{self.stage}-audit_volumes"


def _patience(env: Mapping[str, str]) -> Patience:
    """When silent nodes are marked down; raises ValueError that names the variable."""
    given = {
        "MOORAGE_SILENT_SECONDS": (USUAL_PATIENCE.seconds, 2.0 * HEARTBEAT_SECONDS, 24 * 3600.0),
        "MOORAGE_SILENT_FEW": (USUAL_PATIENCE.few, 0, 1_000_000),
        "MOORAGE_SILENT_SHARE": (USUAL_PATIENCE.share, 0.0, 1.0),
    }
    read = []
    for name, (default, least, most) in given.items():
        text = env.get(name, str(default))
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise ValueError(f"{name} is {text!r}: give a number from {least:g} to {most:g}")
        read.append(value)
    return Patience(seconds=read[0], few=int(read[1]), share=read[2])
