"""Failures on purpose that last until the file of rules says otherwise."""

import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moorage_devplugin.faults import Faults, Rule

SOON = 20.0
"""Seconds within which a thread must end that has nothing to wait for."""


MOMENTS = itertools.count(1)


def write(file: Path, *rules: str) -> None:
    """At once, and never with the time that the file had before."""
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text("\n".join(rules))
    os.utime(unfinished, ns=(0, next(MOMENTS)))
    unfinished.replace(file)


@contextmanager
def calling(faults: Faults, rpc: str, *, after: bool = False) -> Iterator[threading.Event]:
    """Call in a thread. The event is set when the call returned."""
    through = threading.Event()

    def call() -> None:
        faults.strike(rpc, after=after)
        through.set()

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield through
    finally:
        faults.stopping.set()
        thread.join(SOON)
        assert not thread.is_alive()


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return Faults(file=tmp_path / "faults")


@pytest.fixture
def file(faults: Faults) -> Path:
    assert faults.file is not None
    return faults.file


def test_a_call_is_held_until_its_rule_is_gone(faults: Faults, file: Path) -> None:
    write(file, "CreateVolume=hold@after*1")
    with calling(faults, "CreateVolume", after=True) as through:
        assert not through.wait(0.3)
        faults.strike("CreateVolume", after=True)  # the second one is not held
        faults.strike("CreateVolume", after=False)
        write(file)
        assert through.wait(SOON)


def test_a_call_is_let_go_when_the_file_changes_or_disappears(faults: Faults, file: Path) -> None:
    write(file, "*=hold")
    with calling(faults, "DeleteVolume") as through:
        assert not through.wait(0.2)
        file.unlink()
        assert through.wait(SOON)


def test_a_call_that_is_held_does_not_keep_the_plugin_from_stopping() -> None:
    faults = Faults(rules=[Rule.parse("DeleteVolume=hold")])
    with calling(faults, "DeleteVolume") as through:
        assert not through.wait(0.2)
        faults.stopping.set()
        assert through.wait(SOON)


def test_what_is_no_rule_is_told_with_what_is_one() -> None:
    with pytest.raises(ValueError, match="RPC=hold, RPC=UNAVAILABLE or RPC=die, then"):
        Rule.parse("CreateVolume=wait")
