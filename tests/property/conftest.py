"""How many examples: a few in `make test`, more in `make conformance` (--many), for so long in `make soak` (--soak)."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from infra.local.settings import tool_environment

HERE = Path(__file__).parent
FEW = settings(
    max_examples=8, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
MANY = settings(FEW, max_examples=50, stateful_step_count=40)
MANY_ON_DYNAMODB_LOCAL = settings(FEW, max_examples=200)
EXAMPLE_SECONDS = 2.5
"""About what one of MANY takes on two cores."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    from tests.property.test_claim_system import Claims
    from tests.property.test_silent_nodes import SilentNodes
    from tests.property.test_storages import Storages

    local, soak = config.getoption("--against") == "local", float(config.getoption("--soak"))
    if local:
        Claims.tables_at = tool_environment().get("DYNAMODB_LOCAL_URL", "")
        assert Claims.tables_at, "--against=local needs DYNAMODB_LOCAL_URL: `make conformance` sets it"
    chosen = MANY_ON_DYNAMODB_LOCAL if local else MANY
    if soak:
        chosen = settings(MANY, max_examples=max(MANY.max_examples, round(soak / EXAMPLE_SECONDS)))
    for machine in (Claims, SilentNodes, Storages):
        machine.TestCase.settings = chosen if soak or config.getoption("--many") else FEW
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(3600 + 3 * soak))
