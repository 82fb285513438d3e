"""How many examples: a few in `make test`, more in `make conformance` (--many)."""

import pytest
from hypothesis import HealthCheck, settings

FEW = settings(
    max_examples=8, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
MANY = settings(FEW, max_examples=50, stateful_step_count=40)


def pytest_collection_modifyitems(config: pytest.Config) -> None:
    from tests.property.test_claim_system import Claims

    Claims.TestCase.settings = MANY if config.getoption("--many") else FEW
