"""Fixtures that every test may take. The network is off in tests/unit; elsewhere there is the loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import harness, reporting
from tests.emulated import aws
from tests.openapi import contract

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--many", action="store_true", help="more examples in tests/property, every death under every delivery"
    )
    parser.addoption("--soak", default="0", metavar="SECONDS", help="examples in tests/property for about so long")
    parser.addoption(
        "--against",
        choices=("moto", "local"),
        default="moto",
        help="where tests/store and tests/property keep tables: moto, or the DynamoDB Local at DYNAMODB_LOCAL_URL",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who is not for the unit tests may ask the emulator on the loopback; tests of a module that starts a whole local
    system stay in one process, so that it is started once.
    """
    for item in items:
        if HERE in item.path.parents and HERE / "unit" not in item.path.parents:
            item.add_marker(pytest.mark.allow_hosts(["127.0.0.1", "localhost"]))
        if item.get_closest_marker("e2e") or item.get_closest_marker("conformance"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    # A report of each phase has the same properties: once is enough.
    reports = [r for rs in terminalreporter.stats.values() for r in rs if getattr(r, "when", "") == "call"]
    for title, lines in reporting.sections(reports).items():
        terminalreporter.section(title)
        for line in lines:
            terminalreporter.write_line(line)


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
    with aws() as place:
        built = harness.make_system(monkeypatch, place)
        built.add_plugin()
        yield built
        harness.forget()
