"""AWS for systems that a test builds in this process: the emulator of `make run`, one for each test process.

It starts when it is first asked for and ends with the session. Moto would do, too, and takes three times as long for
each call; the stores' own tests run on moto and on DynamoDB Local (tests/store).
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from chalicelib.settings import Settings as ProductSettings
from infra.local import environments, rootkey
from infra.local.dynamodb_local import free_port
from infra.local.emulator import Emulator
from infra.local.settings import REGION, Settings

STAGE = "test"


@dataclass(frozen=True)
class Place:
    """Where a system can be built: a client of DynamoDB, and the ARN of a key."""

    tables: Any
    key_arn: str

    @classmethod
    def at(cls, endpoint: str | None = None) -> "Place":
        tables = boto3.client("dynamodb", region_name=REGION, endpoint_url=endpoint)
        kms = boto3.client("kms", region_name=REGION, endpoint_url=endpoint)
        key = kms.create_key()["KeyMetadata"]
        kms.create_alias(AliasName=ProductSettings(stage=STAGE).key_alias, TargetKeyId=key["KeyId"])
        return cls(tables, key["Arn"])


class Aws:
    """The emulator of this process."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._emulator: Emulator | None = None
        self._endpoint = ""
        self._place: Place | None = None
        self.key = rootkey.WELL_KNOWN

    @property
    def place(self) -> Place:
        """One for all systems: making a client takes as long as ten calls."""
        if self._place is None:
            self._place = Place.at(self.endpoint())
        return self._place

    def endpoint(self) -> str:
        """Where it answers."""
        if self._emulator is None:
            self._folder = tempfile.TemporaryDirectory(prefix="moorage-tests-")
            settings = Settings(
                state=Path(self._folder.name),
                emulator_port=free_port(),
                function_variables={},
                base_environment=Settings.from_env().base_environment,
            )
            for folder in (settings.run, settings.logs):
                folder.mkdir()
            self._emulator = Emulator(settings, environments.ensure(environments.EMULATOR), durable=False)
            self.key = settings.key()
            self._emulator.start()
            self._endpoint = settings.endpoint
        return self._endpoint

    def stop(self) -> None:
        """End it; nothing of it is kept."""
        if self._emulator is not None and self._folder is not None:
            self._emulator.child.kill()
            self._folder.cleanup()
        self._emulator = self._folder = None


AWS = Aws()


@contextmanager
def aws() -> Iterator[Place]:
    """An AWS without tables in this block, which boto3's clients find by the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", AWS.endpoint())
        for name, value in AWS.key.environment().items():
            patch.setenv(name, value)
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        try:
            yield AWS.place
        finally:
            _empty()


def _empty() -> None:
    for table in AWS.place.tables.list_tables()["TableNames"]:
        AWS.place.tables.delete_table(TableName=table)
