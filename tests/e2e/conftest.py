"""The whole local system for the tests of this folder."""

import pytest

from infra.local import environments


@pytest.fixture(scope="session", autouse=True)
def _emulator_is_installed() -> None:
    environments.ensure(environments.EMULATOR)
