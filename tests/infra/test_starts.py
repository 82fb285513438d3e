"""Starts of a local system that end before it serves: what they say, and what they leave as it was."""

import fcntl
import http.server
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

from infra.local.dynamodb_local import free_port
from infra.local.settings import ROOT, Settings
from infra.local.system import LONGEST_LOG


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def begin(state: Path, endpoint: str = "") -> subprocess.Popen[str]:
    """`make run` of a system that cannot come up: of what it needs of an emulator, there is nothing at `endpoint`."""
    environment = {
        **Settings.from_env().base_environment,
        "MOORAGE_STATE": str(state),
        "MOORAGE_PORT": str(free_port()),
        "MOORAGE_BRIDGE_PORT": str(free_port()),
        "AWS_ENDPOINT_URL": endpoint or f"http://127.0.0.1:{free_port()}",
    }
    command = [sys.executable, "-m", "infra.local", "run"]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def troubles(state: Path, endpoint: str = "") -> str:
    """What such a start says that is wrong."""
    return begin(state, endpoint).communicate(timeout=60)[1]


def test_an_interrupt_of_a_start_is_no_failure(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = begin(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
        with silent.accept()[0]:
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=60)[1] == ""
            assert process.returncode == 0


class Refusing(http.server.BaseHTTPRequestHandler):
    """An emulator that is there and takes another key than ours."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        self.send_response(403)
        self.end_headers()
        self.wfile.write(b'{"__type": "UnrecognizedClientException", "message": "The security token is invalid."}')

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_an_emulator_that_refuses_is_told_in_one_line(tmp_path: Path) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        said = troubles(tmp_path, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert "refused a call" in said
    assert "The security token is invalid." in said
    assert said.count("\n") == 1


def test_a_second_start_touches_nothing_of_the_first(tmp_path: Path) -> None:
    for folder in ("run", "logs"):
        (tmp_path / folder).mkdir()
    log = tmp_path / "logs" / "bridge.log"
    log.write_text("")
    os.truncate(log, LONGEST_LOG + 1)
    with (tmp_path / "run" / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert "runs already" in troubles(tmp_path)
        assert log.exists()
    assert "no emulator answers there" in troubles(tmp_path)
    assert not log.exists()


def test_what_volumes_hold_keeps_its_rights_also_of_plugins_that_are_not_started_now(tmp_path: Path) -> None:
    for plugin in ("directory", "hostpath"):
        content = tmp_path / plugin / "volumes" / "a" / "content"
        content.parent.mkdir(parents=True, mode=0o755)
        content.write_text("")
        content.chmod(0o644)
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "ca-key.pem").write_text("")
    (tmp_path / "certs" / "ca-key.pem").chmod(0o644)
    troubles(tmp_path)
    assert mode(tmp_path / "certs" / "ca-key.pem") == 0o600
    assert [mode(tmp_path / plugin / "volumes/a/content") for plugin in ("directory", "hostpath")] == [0o644, 0o644]
