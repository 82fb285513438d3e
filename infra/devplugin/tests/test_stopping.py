"""A plugin that is told to stop ends, at whatever moment the signal comes."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.enable_socket

SOON = 30.0
"""Seconds within which a plugin without calls must end."""
STOPPED_IN_A_WAIT = textwrap.dedent(
    """
    import os, signal, sys, threading

    from moorage_devplugin.cli import main

    def strike(frame, event, argument):
        # The second line of Event.wait runs with the event's lock held.
        if event == "line" and frame.f_lineno > frame.f_code.co_firstlineno + 12:
            os.kill(os.getpid(), signal.SIGTERM)
        return strike

    def trace(frame, event, argument):
        return strike if frame.f_code is threading.Event.wait.__code__ else None

    threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    sys.settrace(trace)
    main(sys.argv[1:])
    """
)


def test_a_signal_that_meets_the_wait_for_it_stops_the_plugin(tmp_path: Path) -> None:
    """A signal handler runs in the main thread, between any two of its steps: a lock that it takes may be held."""
    socket = f"unix://{tmp_path / 'csi.sock'}"
    command = [sys.executable, "-c", STOPPED_IN_A_WAIT, "--endpoint", socket, "--root", str(tmp_path / "root")]
    stopped = subprocess.run(command, timeout=SOON, check=True, capture_output=True, text=True)
    assert '"stopped"' in stopped.stderr
