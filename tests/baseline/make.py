"""Make the baseline of a version that is about to be released: `python -m tests.baseline.make 0.2.0`.

A baseline is never written again. `--answers 0.1.0` writes only today's answers about its rows. Use it for an answer
that was changed on purpose, and read the diff.
"""

import contextlib
import io
import re
import sys
import tempfile
from pathlib import Path
from typing import Final

from chalicelib.domain.operation import Status
from tests.baseline import files, nodes, reads, steps, volumes
from tests.baseline.files import Baseline
from tests.baseline.parts import Front, StoryClock, exchange
from tests.baseline.story import Story
from tests.baseline.world import described, empty_world, loaded_world, read_rows
from tests.harness import System

WAIT: Final = 1.0
"""Seconds that a request waits for work that is not done."""


def make(version: str) -> Baseline:
    """Return a new baseline: the rows that the story leaves, and the exchanges that follow.

    Later messages, repeated requests and reads each begin from the same rows.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        empty_world(StoryClock(), wait_seconds=WAIT) as system,
        Front(system).serving() as front,
    ):
        story = Story(system, front, Path(folder))
        story.publish_worker()
        trust = read_rows(system)["meta"][0]
        nodes.tell_first(story)
        first = list(front.noted)
        tell(story)
        baseline = Baseline(
            version=version,
            moment=system.clock.moment,
            rows=read_rows(system),
            provider=described(system.provider),
            trust=trust,
            first=first,
        )
        front.noted.clear()
        nodes.tell_later(story)
        baseline.later = list(front.noted)
    with loaded_world(baseline, wait_seconds=WAIT) as system:
        baseline.repeats = [
            exchange(system, **asked) for made, asked in story.requests.items() if _is_open(system, made)
        ]
    with loaded_world(baseline) as system:
        baseline.answers = reads.answers(system)
    return baseline


def tell(story: Story) -> None:
    """Make rows of every kind, in order of time.

    What takes days comes first, and what is under way when the rows are read comes last.
    """
    volumes.tell_namespaces(story)
    volumes.tell_volumes(story)
    nodes.tell_deaths(story)
    steps.tell_given_up(story)
    steps.tell_ends(story)
    volumes.tell_claims(story)
    volumes.tell_storages(story)
    nodes.tell_silence(story)
    steps.tell_every_step(story, Status.PENDING)
    steps.tell_open(story)
    steps.tell_every_step(story, Status.RUNNING)
    steps.tell_half_recorded(story)
    volumes.tell_under_way(story)
    volumes.tell_audits(story)
    nodes.tell_last(story)


def _is_open(system: System, operation_id: str) -> bool:
    found = system.deps.operations.get(operation_id)
    return found is not None and found.open


def answered_anew(version: str) -> Baseline:
    """Return the baseline with today's answers about its rows."""
    baseline = files.read(version)
    with loaded_world(baseline) as system:
        baseline.answers = reads.answers(system)
    return baseline


def main(arguments: list[str]) -> int:
    """Write a new baseline, or the answers about one. Return the exit status, 2 for wrong arguments."""
    anew, version = arguments[:-1] == ["--answers"], arguments[-1] if arguments else ""
    folder = files.FOLDER / version
    if not re.fullmatch(r"\d+\.\d+\.\d+", version) or (len(arguments) > 1 and not anew):
        return _refused(f"usage: python -m tests.baseline.make [--answers] VERSION, and not {' '.join(arguments)}")
    if folder.exists() is not anew:
        return _refused(f"{folder} " + ("does not exist" if anew else "exists: it is never written again"))
    with contextlib.redirect_stdout(io.StringIO()):  # the product's log
        if anew:
            files.write_answers(answered_anew(version), folder)
        else:
            files.write(make(version), folder)
    sys.stdout.write(f"{folder}: its digest for tests/baseline/test_files.py is {files.digest(version)}\n")
    return 0


def _refused(text: str) -> int:
    sys.stderr.write(text + "\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
