"""Record a deployment where it was made: in a parameter of the stage.

Chalice keeps the IDs of what it made in a file. If that file were lost, or left on another machine, the next deploy
would make a second API and a second mapping of each queue. So its content is stored beside the deployment itself, with
a fingerprint of what went in, and with who may call the API, which later deploys keep unless they say otherwise.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from infra.deploy.access import Access

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient


@dataclass(frozen=True)
class Record:
    """One deployment: what it was made from, what Chalice made, and who may call it."""

    fingerprint: str
    chalice: dict[str, Any]
    """Empty before the first deploy that succeeded."""
    access: Access | None = None
    """None on an emulator, and in records of a version that had no such choice."""


def parameter_name(stage: str) -> str:
    """Return the name of the parameter with the record of `stage`."""
    return f"/moorage/{stage}/deployment"


def load(ssm: SSMClient, stage: str) -> Record | None:
    """Return the last record of `stage`, or None if nothing was deployed there."""
    try:
        value = ssm.get_parameter(Name=parameter_name(stage))["Parameter"].get("Value", "")
    except ClientError as exc:
        if exc.response["Error"]["Code"] == "ParameterNotFound":
            return None
        raise
    read = json.loads(value)
    kept = read.get("access")
    access = Access(networks=tuple(kept["networks"]), everyone=kept["everyone"]) if kept else None
    return Record(fingerprint=read["fingerprint"], chalice=read["chalice"], access=access)


def save(ssm: SSMClient, stage: str, record: Record) -> None:
    """Store `record` as the last of `stage`."""
    value = json.dumps(asdict(record), separators=(",", ":"))
    ssm.put_parameter(
        Name=parameter_name(stage),
        Description="What was deployed last; read by the next deploy",
        Value=value,
        Type="String",
        Tier="Intelligent-Tiering",
        Overwrite=True,
    )
