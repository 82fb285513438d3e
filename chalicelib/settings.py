"""The settings of a function, read once from its environment. No other module reads environment variables."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from chalicelib.domain.deadlines import HEARTBEAT_SECONDS, WAIT_LIMIT
from chalicelib.domain.plugin import DEFAULT_LIVENESS, LivenessPolicy

APP_NAME: Final = "moorage"
MAX_WAITS: Final = 500
"""Half of the default limit of concurrent executions of an account (AWS: Lambda quotas)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The names and limits of one deployment. Every name follows from the stage (docs/interfaces.md, section 1)."""

    stage: str = "dev"
    wait_seconds: float = WAIT_LIMIT
    region: str = "us-east-1"
    in_lambda: bool = False
    max_waits: int = MAX_WAITS
    """How many blocking queries may wait at once: a share of the function's concurrency (docs/decisions/010)."""
    key_arn: str = ""
    liveness: LivenessPolicy = DEFAULT_LIVENESS

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings from environment variables. Raises ValueError, which names the variable that is wrong."""
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
            liveness=_liveness(env),
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
        """The KMS key that encrypts. A deployment names its ARN, since IAM policies name keys, not aliases."""
        return self.key_arn or self.key_alias

    @property
    def ask_function(self) -> str:
        return f"{APP_NAME}-{self.stage}-ask_plugin"

    @property
    def audit_function(self) -> str:
        return f"{APP_NAME}-{self.stage}-audit_volumes"


def _liveness(env: Mapping[str, str]) -> LivenessPolicy:
    """Read the liveness policy. Raises ValueError, which names the variable that is wrong."""
    usual = DEFAULT_LIVENESS
    limits = {
        # Below two heartbeats one lost message would mark a node down.
        "MOORAGE_SILENT_SECONDS": (usual.silent_after, 2.0 * HEARTBEAT_SECONDS, 24 * 3600.0),
        "MOORAGE_SILENT_FEW": (usual.outage_count, 0, 1_000_000),
        "MOORAGE_SILENT_SHARE": (usual.outage_share, 0.0, 1.0),
    }
    values = []
    for name, (default, least, most) in limits.items():
        text = env.get(name, str(default))
        try:
            value = float(text)
        except ValueError:
            value = float("nan")  # fails the comparison below
        if not least <= value <= most:
            raise ValueError(f"{name} is {text!r}: give a number from {least:g} to {most:g}")
        values.append(value)
    return LivenessPolicy(silent_after=values[0], outage_count=int(values[1]), outage_share=values[2])
