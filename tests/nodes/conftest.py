"""A control plane without nodes, and a CA that it trusts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from moto import mock_aws

from tests import harness
from tests.harness import System
from tests.nodes.bridges import Authority


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    with mock_aws():
        yield harness.make_system(monkeypatch)
        harness.forget()


@pytest.fixture
def authority(empty: System, tmp_path: Path) -> Authority:
    return Authority(empty, tmp_path)
