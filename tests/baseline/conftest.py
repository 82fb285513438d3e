"""Each baseline in the tree, and a control plane with its rows."""

from collections.abc import Iterator

import pytest

from tests.baseline import files
from tests.baseline.files import Baseline
from tests.baseline.world import loaded_world
from tests.harness import System


@pytest.fixture(scope="session", params=files.versions())
def baseline(request: pytest.FixtureRequest) -> Baseline:
    return files.read(request.param)


@pytest.fixture
def world(baseline: Baseline) -> Iterator[System]:
    with loaded_world(baseline) as system:
        yield system
