"""The pages docs/adding-*.md are right: their steps work in a copy of the tree, and none of them can be left out.

Each step has a test of its own, so that the processes of pytest-xdist share them. Each process has one copy.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from infra.local.settings import tool_environment
from tests.docs import steps
from tests.docs.steps import Edit

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = {path.name: steps.read(path) for path in sorted((ROOT / "docs").glob("adding-*.md"))}
STEPS: Final = [(name, number) for name, page in PAGES.items() for number in range(1, len(page.steps) + 1)]
SAMPLED: Final = 7
"""The step that each run leaves out of each page."""
COPIED: Final = ("app.py", "pyproject.toml", "requirements*", "chalicelib", "docs", "infra", "tests", ".chalice")
# Bytecode comes along: it spares each run the compilation of what no step changes.
LEFT_OUT: Final = shutil.ignore_patterns("corpus", "conformance", ".*cache")
ENVIRONMENTS: Final = (".venv-emulator", ".venv-functions")
ARGUMENTS: Final = ("-q", "-x", "-n0", "-p", "no:cacheprovider", "--assert=plain")
UNSEEN: Final = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


@dataclass
class Lane:
    """A copy of the tree, and the process that runs tests in it."""

    tree: Path
    process: subprocess.Popen[str]

    def run(self, edits: Sequence[tuple[Edit, ...]], checks: Sequence[str]) -> tuple[int, str]:
        """Apply the edits, run the checks, and take the edits back. Return pytest's exit code and what it printed."""
        before = {edit.file: _text(self.tree / edit.file) for step in edits for edit in step}
        try:
            for step in edits:
                steps.apply(step, self.tree)
            return self._pytest([*ARGUMENTS, *checks])
        except (OSError, ValueError) as exc:  # a step has no place: the one before it is missing
            return 1, str(exc)
        finally:
            for file, text in before.items():
                _restore(self.tree / file, text)

    def _pytest(self, arguments: list[str]) -> tuple[int, str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"the process in {self.tree} died"
        return int(answer), (self.tree / "lane.log").read_text()


def _text(file: Path) -> str | None:
    return file.read_text() if file.exists() else None


def _restore(file: Path, text: str | None) -> None:
    if text is None:
        file.unlink(missing_ok=True)
    else:
        file.write_text(text)


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    """Copy the tree, and start its process."""
    tree = tmp_path_factory.mktemp("tree")
    for path in (path for name in COPIED for path in ROOT.glob(name)):
        if path.is_dir():
            shutil.copytree(path, tree / path.name, ignore=LEFT_OUT)
        else:
            shutil.copy2(path, tree / path.name)
    for name in ENVIRONMENTS:
        (tree / name).symlink_to(ROOT / name)
    own = {name: value for name, value in tool_environment().items() if not name.startswith("PYTEST_")}
    command = [sys.executable, str(Path(__file__).with_name("lane.py")), str(tree)]
    with subprocess.Popen(
        command, cwd=tree, env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Lane(tree, process)
        process.communicate()


@pytest.mark.parametrize("name", PAGES)
def test_the_ten_steps_work(lane: Lane, name: str) -> None:
    page = PAGES[name]
    assert len(page.steps) == 10
    code, printed = lane.run(page.steps, page.checks)
    assert code == 0, printed[-3000:]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Leave out each step with --many, and one of each page without."""
    if "number" in metafunc.fixturenames:
        some = STEPS if metafunc.config.getoption("--many") else [(name, SAMPLED) for name in PAGES]
        metafunc.parametrize(("name", "number"), some)


def test_no_step_can_be_left_out(lane: Lane, name: str, number: int) -> None:
    page = PAGES[name]
    others = page.steps[: number - 1] + page.steps[number:]
    code, _ = lane.run(others, page.checks)
    assert code not in UNSEEN, f"no check sees that this is missing: {steps.shown(page.steps[number - 1])}"


def test_a_line_that_is_there_twice_is_no_place() -> None:
    edit = Edit("a.py", "x = 1", "y = 2\n")
    assert edit.applied("x = 1\nz\n") == "x = 1\ny = 2\nz\n"
    with pytest.raises(ValueError, match="2 lines"):
        edit.applied("x = 1\n    x = 1\n")


def test_a_step_that_inserts_nothing_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "adding.md"
    page.write_text("1. Look at `a/b.py`.\n\nCheck: `pytest a`\n")
    with pytest.raises(ValueError, match=r"steps \[1\]"):
        steps.read(page)
