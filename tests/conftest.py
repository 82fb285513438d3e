"""Fixtures for every test. The network is off in tests/unit. Other tests may use the loopback."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import harness, reporting, scheduling
from tests import shared as shared_by_tests
from tests.emulated import aws
from tests.openapi import contract

HERE = Path(__file__).parent

MANY_TIMEOUT = 1500
"""Seconds. A test that tries everything takes a minute or two, and much longer on a machine that does other things."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--many", action="store_true", help="all of what `make test` only tries a sample of")
    parser.addoption("--soak", default="0", metavar="SECONDS", help="examples in tests/property for about so long")
    parser.addoption(
        "--against",
        choices=("moto", "local"),
        default="moto",
        help="where tests/store and tests/property keep tables: moto, or the DynamoDB Local at DYNAMODB_LOCAL_URL",
    )


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> scheduling.Scheduling | None:
    """Return the scheduler of tests/scheduling.py for `--dist loadgroup`. Other modes keep pytest-xdist's own."""
    return scheduling.Scheduling(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let all but the unit tests use the loopback, and sort the tests: those with local systems come first."""
    for item in items:
        if config.getoption("--many") and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(MANY_TIMEOUT))
        if HERE in item.path.parents and HERE / "unit" not in item.path.parents:
            item.add_marker(pytest.mark.allow_hosts(["127.0.0.1", "localhost"]))
        whole = item.get_closest_marker("e2e") or item.get_closest_marker("conformance")
        if whole and scheduling.group_of(item.nodeid) is None:
            raise pytest.UsageError(f"{item.nodeid} is marked {whole.name}: add its file to tests/scheduling.py")
    items.sort(key=lambda item: scheduling.turn(item.nodeid))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    told = [r for rs in terminalreporter.stats.values() for r in rs if isinstance(r, pytest.TestReport)]
    terminalreporter.write_line(f"{len({report.nodeid for report in told})} cases")
    # The reports of all phases of a test have the same properties, so only one phase is shown.
    for title, lines in reporting.sections(r for r in told if r.when == "call").items():
        terminalreporter.section(title)
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def many(request: pytest.FixtureRequest) -> bool:
    """Whether to try everything, as in `make conformance`, or a sample, as in `make test`."""
    return bool(request.config.getoption("--many"))


@pytest.fixture(autouse=True)
def _made_up_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", harness.REGION)


@pytest.fixture(autouse=True, scope="session")
def _every_answer_is_as_described() -> None:
    """Compare the answers of every test in this process with docs/openapi.yaml."""
    harness.OBSERVERS.append(contract.check)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[harness.System]:
    """The control plane in this process, with one healthy plugin named `directory`."""
    with aws() as place:
        built = harness.make_system(monkeypatch, place)
        built.add_plugin()
        yield built
        harness.forget()


@pytest.fixture(scope="session")
def _shared_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[shared_by_tests.Shared]:
    with shared_by_tests.running(tmp_path_factory.mktemp("shared")) as running:
        yield running


@pytest.fixture
def shared(_shared_system: shared_by_tests.Shared) -> Iterator[shared_by_tests.Shared]:
    """The local system of this test's group, without faults. tests/shared.py says what a test may do to it."""
    yield _shared_system
    _shared_system.strike()
    _shared_system.check_empty()
