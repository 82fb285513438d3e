"""Fixtures that every test may take; the network is off but for those marked otherwise."""

from collections.abc import Iterator

import pytest
from moto import mock_aws

from tests import harness
from tests.openapi import contract


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--many", action="store_true", help="more examples in tests/property")
    parser.addoption(
        "--against",
        choices=("moto", "local"),
        default="moto",
        help="where tests/store keeps its tables: moto in this process, or the DynamoDB Local at DYNAMODB_LOCAL_URL",
    )


@pytest.fixture(autouse=True)
def _made_up_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", harness.REGION)


@pytest.fixture(autouse=True, scope="session")
def _every_answer_is_as_described() -> None:
    """Whatever a test is about, its answers in this process are those of docs/openapi.yaml."""
    harness.OBSERVERS.append(contract.check)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[harness.System]:
    """The control plane in this process, with one healthy plugin named `directory`."""
    with mock_aws():
        built = harness.make_system(monkeypatch)
        built.add_plugin()
        yield built
        harness.forget()
