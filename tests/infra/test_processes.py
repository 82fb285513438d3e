"""Processes are known by pid and start time, and end with everything they started."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from infra.local import clock, processes
from infra.local.processes import Child, ProcessId
from infra.local.say import Trouble

SLEEPS = "import time; time.sleep(60)"
HAS_A_CHILD = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPS!r}]); {SLEEPS}"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); {SLEEPS}"


def child(folder: Path, code: str, grace: float = 5.0) -> Child:
    return Child(
        name="sample",
        command=[sys.executable, "-c", code],
        environment={"PATH": os.defpath},
        log=folder / "sample.log",
        pid_file=folder / "sample.json",
        grace=grace,
    )


def wait_for(what: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = clock.monotonic() + seconds
    while not what():
        assert clock.monotonic() < deadline, "it never came true"
        clock.sleep(0.02)


def test_a_stopped_child_leaves_no_process_and_no_pid_file(tmp_path: Path) -> None:
    sample = child(tmp_path, HAS_A_CHILD)
    sample.start()
    assert sample.process is not None
    group = sample.process.pid
    wait_for(lambda: len(processes.members(group)) == 2)
    assert sample.stop() is True
    assert processes.members(group) == []
    assert not sample.pid_file.exists()


def test_a_child_that_does_not_listen_is_killed_and_that_is_told(tmp_path: Path) -> None:
    sample = child(tmp_path, DEAF, grace=0.3)
    sample.start()
    assert sample.process is not None
    group = sample.process.pid
    wait_for(lambda: "deaf" in sample.last_words())
    assert sample.stop() is False
    assert processes.members(group) == []


def test_a_pid_that_now_belongs_to_another_process_is_not_ours(tmp_path: Path) -> None:
    mine = ProcessId.of(os.getpid())
    assert mine is not None
    assert mine.process() is not None
    assert ProcessId(mine.pid, mine.started - 3600).process() is None


def test_leftovers_end_by_their_pid_files_and_strangers_stay(tmp_path: Path) -> None:
    left, stranger = child(tmp_path, SLEEPS), child(tmp_path / "other", SLEEPS)
    stranger.log.parent.mkdir()
    left.start()
    stranger.start()
    assert left.process is not None
    assert stranger.process is not None
    process_id = ProcessId.read(stranger.pid_file)
    assert process_id is not None
    ProcessId(process_id.pid, process_id.started - 3600).write(tmp_path / "reused.json")
    assert processes.end_leftovers([left.pid_file, tmp_path / "reused.json"]) == {"sample": True}
    assert not left.runs
    assert stranger.runs
    stranger.stop()


@pytest.mark.parametrize("content", ["", "{", '{"pid": 1}', "null", "[]"])
def test_a_pid_file_that_cannot_be_read_counts_for_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    assert ProcessId.read(tmp_path / "x.json") is None
    assert processes.end_leftovers([tmp_path / "x.json"]) == {}


def test_only_processes_that_name_the_folder_are_ended(tmp_path: Path) -> None:
    script = tmp_path / "tmp" / "ministack-lambda-x" / "_worker.py"
    script.parent.mkdir(parents=True)
    script.write_text(SLEEPS)
    worker = subprocess.Popen([sys.executable, str(script)])
    other = subprocess.Popen([sys.executable, "-c", SLEEPS])
    wait_for(lambda: str(script) in psutil.Process(worker.pid).cmdline())
    assert processes.kill_processes_under(tmp_path / "tmp") == 1
    wait_for(lambda: worker.poll() is not None)
    assert other.poll() is None
    other.kill()
    other.wait()


def test_a_port_in_use_is_told_with_its_owner_and_a_way_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Trouble) as refused:
            processes.require_free_port("127.0.0.1", port, "the API", "MOORAGE_PORT")
    text = str(refused.value)
    assert f"port {port} (the API) is in use by " in text
    assert f"(pid {os.getpid()})" in text
    assert "MOORAGE_PORT=" in text
    assert "\n" not in text


def test_a_free_port_is_free() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes.require_free_port("127.0.0.1", port, "the API", "MOORAGE_PORT")


def test_last_words_are_the_end_of_the_log_and_not_too_many(tmp_path: Path) -> None:
    sample = child(tmp_path, SLEEPS)
    assert sample.last_words() == ""
    sample.log.write_text("one\n\ntwo\nthree\nfour\n")
    assert sample.last_words() == "two | three | four"
    sample.log.write_text("x" * 5000)
    assert len(sample.last_words()) < 500
