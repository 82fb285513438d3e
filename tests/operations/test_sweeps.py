"""The table of sweeps, and the log line of each."""

import json
from dataclasses import replace
from typing import Any

import pytest

from chalicelib import functions
from chalicelib.errors import StoreUnavailable
from chalicelib.sweeps import jobs
from chalicelib.sweeps.jobs import JOBS
from tests.baseline.test_sweep import CALLED
from tests.harness import System


def test_a_job_comes_after_the_one_that_it_needs() -> None:
    names = [job.name for job in JOBS]
    assert len(set(names)) == len(names)
    for position, job in enumerate(JOBS):
        assert not job.needs or job.needs in names[:position]


def test_each_sweep_logs_its_report(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    functions.sweep_operations(CALLED, None)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    reports = {line.pop("job"): line for line in lines if line.pop("event") == "sweep"}
    assert list(reports) == [job.name for job in JOBS]
    assert reports["operations"] == {"sent": 0, "failed": 0}
    assert reports["index"] == {"published": 0}
    assert reports["liveness"].pop("leases_since") == system.clock.now()
    assert reports["liveness"] == {"down": [], "marked": [], "claims_kept": [], "forgotten": []}
    assert reports["claims"] == {"run_out": 0, "from_down_nodes": 0, "lost": 0, "failed": 0}
    assert reports["counters"] == {"repaired": 0}


def test_a_sweep_that_fails_stops_only_what_needs_its_report(
    system: System, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Any:
        raise StoreUnavailable("a row that cannot be read")

    failing = [replace(job, sweep=fail) if job.name in ("operations", "liveness") else job for job in JOBS]
    monkeypatch.setattr(jobs, "JOBS", failing)
    with pytest.raises(StoreUnavailable):
        functions.sweep_operations(CALLED, None)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["job"] for line in lines if line["event"] == "sweep"] == ["index", "storages", "counters"]
