"""`make logs` merges logs of every form by time. Lines without a time stay with the line before."""

import subprocess
import sys
from pathlib import Path

import pytest

from infra.local import logs
from infra.local.say import Trouble
from infra.local.settings import ROOT, Answers, Settings


def shown(tmp_path: Path, **files: str) -> list[str]:
    for name, text in files.items():
        (tmp_path / f"{name.replace('_', '-')}.log").write_text(text)
    return [f"{line.source}: {line.text}" for line in logs.merge(sorted(tmp_path.glob("*.log")))]


def test_lines_are_merged_by_time(tmp_path: Path) -> None:
    said = shown(
        tmp_path,
        functions=(
            '2026-11-25T10:00:00.002+00:00 moorage-dev {"event": "request", "status": 200}\n'
            "2026-11-25T10:00:00.004+00:00 moorage-dev-run_operation Traceback\n"
        ),
        bridge='{"time": "2026-11-25T10:00:00.003Z", "level": "info", "message": "forwarded", "rpc": "CreateVolume"}\n',
        plugin_directory='{"time": "2026-11-25T10:00:00.001Z", "level": "info", "message": "ready"}\n',
    )
    assert said == [
        "plugin-directory: info ready",
        "api: request status=200",
        "bridge: info forwarded rpc=CreateVolume",
        "run_operation: Traceback",
    ]


def test_a_line_without_a_time_follows_the_one_before_it(tmp_path: Path) -> None:
    said = shown(
        tmp_path,
        emulator="2026-11-25 10:00:01,000 ERROR [x] failed\n  at line 1\n",
        bridge='{"time": "2026-11-25T10:00:02.000Z", "message": "later"}\n{"time": "2026-11-25T10:00:01.500Z"\n',
        deploy="before anything\n",
    )
    assert said == [
        "deploy: before anything",
        "emulator: 2026-11-25 10:00:01,000 ERROR [x] failed",
        "emulator:   at line 1",
        "bridge: later",
        'bridge: {"time": "2026-11-25T10:00:01.500Z"',
    ]


def test_answers_are_read_from_makes_variables() -> None:
    assert Answers.from_env({}) == Answers(yes=False, follow=False, lines=1000)
    assert Answers.from_env({"YES": "1", "FOLLOW": "1", "LINES": "5"}) == Answers(yes=True, follow=True, lines=5)
    assert not Answers.from_env({"YES": "no"}).yes
    with pytest.raises(Trouble, match="LINES is 'x'"):
        Answers.from_env({"LINES": "x"})


def test_a_reader_that_has_enough_is_no_failure(tmp_path: Path) -> None:
    """`make logs | head`."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "bridge.log").write_text("a line\n" * 100_000)
    environment = {**Settings.from_env().base_environment, "MOORAGE_STATE": str(tmp_path), "LINES": "100000"}
    command = f"{sys.executable} -m infra.local logs; echo code $? >&2"
    done = subprocess.run(
        ["sh", "-c", f"({command}) | head -1"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout.endswith("a line\n")
    assert done.stderr == "code 0\n"


def test_logs_of_children_are_in_one_time_zone(tmp_path: Path) -> None:
    """Some name no zone, and are merged with those that do."""
    assert Settings.from_env({"MOORAGE_STATE": str(tmp_path), "TZ": "Asia/Tokyo"}).environment()["TZ"] == "UTC"
