"""Prints the fault table at the end of a run."""

import pytest

from tests.operations.report import TABLE


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = list(TABLE.lines())
    if lines:
        terminalreporter.section("fault table")
        for line in lines:
            terminalreporter.write_line(line)
