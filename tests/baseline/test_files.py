"""Baselines never change, and each released version has one."""

import json
import re
from pathlib import Path

import pytest

from tests.baseline import files, make
from tests.baseline.files import Baseline

CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"
DIGESTS = {"0.1.0": "f8bb71c27fba4aaaf98e7d5636993d353a5204a2f29887dfdab66e4f349c634a"}


def test_each_released_version_has_a_baseline() -> None:
    released = re.findall(r"^## (\d+\.\d+\.\d+) \(\d{4}-\d\d-\d\d\)$", CHANGELOG.read_text(), re.MULTILINE)
    assert sorted(files.versions()) == sorted(released) == sorted(DIGESTS)


@pytest.mark.parametrize("version", files.versions())
def test_what_a_version_wrote_is_never_changed(version: str) -> None:
    """A later version must read these rows, since the rows in an operator's tables do not change with this tree."""
    assert files.digest(version) == DIGESTS[version]


def test_a_baseline_is_not_written_over(baseline: Baseline, tmp_path: Path) -> None:
    files.write(baseline, tmp_path / "new")
    with pytest.raises(FileExistsError):
        files.write(baseline, tmp_path / "new")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["0.1.0"], "0.1.0 exists: it is never written again"),
        (["--answers", "0.0.1"], "0.0.1 does not exist"),
        ([], "usage: python -m tests.baseline.make [--answers] VERSION"),
        (["../0.1.0"], "usage:"),
    ],
)
def test_what_cannot_be_made_is_said(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert make.main(arguments) == 2
    assert words in capsys.readouterr().err


def test_what_is_written_is_what_is_read(baseline: Baseline, tmp_path: Path) -> None:
    folder = tmp_path / baseline.version
    files.write(baseline, folder)
    kept = files.FOLDER / baseline.version
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in kept.iterdir()
    }


def test_the_messages_are_those_of_the_versions_bridge(baseline: Baseline) -> None:
    said = {json.loads(one.body).get("BridgeVersion") for one in baseline.first if one.method == "PUT"}
    assert said == {baseline.version}
