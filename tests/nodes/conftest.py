"""A control plane without nodes, and a CA that it trusts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import harness
from tests.emulated import aws
from tests.harness import System
from tests.nodes.bridges import Authority


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    with aws() as place:
        yield harness.make_system(monkeypatch, place)
        harness.forget()


@pytest.fixture
def authority(empty: System, tmp_path: Path) -> Authority:
    return Authority(empty, tmp_path)
