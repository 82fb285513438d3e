"""The sweeps, in the order in which one call of the sweeper runs them."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from chalicelib.service.deps import Deps
from chalicelib.sweeps import claims, counters, index, liveness, operations, storages

log = logging.getLogger(__name__)

Report = operations.Report | index.Report | liveness.Report | claims.Report | counters.Report | storages.Report


@dataclass(frozen=True, slots=True)
class Job:
    """One sweep. `needs` is the name of the job whose report it is given."""

    name: str
    sweep: Callable[..., Report]
    needs: str = ""


JOBS: Final = (
    Job("operations", operations.sweep),
    Job("index", index.sweep),
    Job("liveness", liveness.sweep),
    Job("claims", claims.sweep, needs="liveness"),
    Job("storages", storages.sweep),
    Job("counters", counters.sweep),
)


def run(deps: Deps) -> Iterator[tuple[str, Report]]:
    """Run every job, and yield its name and its report when it is done.

    A job that fails is logged, and stops only the job that needs its report. At the end, the first error is raised.
    """
    reports: dict[str, Report] = {}
    errors: list[Exception] = []
    for job in JOBS:
        if job.needs and job.needs not in reports:
            continue
        given = [reports[job.needs]] if job.needs else []
        try:
            reports[job.name] = job.sweep(deps, *given)
        except Exception as exc:
            log.exception("the sweep of %s failed", job.name)
            errors.append(exc)
            continue
        yield job.name, reports[job.name]
    if errors:
        raise errors[0]
