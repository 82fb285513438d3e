"""The systemd unit: what it relies on is what the bridge does."""

import configparser
import os
import signal
import socket
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from click.testing import CliRunner

from infra.bridge.tests.parts import ControlPlane, FakePlugin, Pki, eventually
from moorage.bridge import registration
from moorage.cli import main
from moorage.commands.bridge import bridge
from moorage.commands.units import UNIT_PROGRAM

UNIT = resources.files("moorage").joinpath("systemd/moorage-bridge.service").read_text("utf-8")
RUN = [sys.executable, "-c", "from moorage.cli import main; main()"]


def unit(text: str) -> configparser.ConfigParser:
    """Return sections and settings. systemd's names are case-sensitive."""
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def test_the_printed_unit_names_the_program_that_printed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/a/moorage"])
    printed = CliRunner().invoke(main, ["bridge", "--unit"])
    assert (printed.exit_code, printed.output) == (0, UNIT.replace(UNIT_PROGRAM, "/a/moorage"))
    assert unit(printed.output)["Service"]["ExecStart"] == "/a/moorage bridge"


def test_the_command_line_is_one_that_the_program_takes() -> None:
    program, *arguments = unit(UNIT)["Service"]["ExecStart"].split()
    assert program == UNIT_PROGRAM
    refused = CliRunner().invoke(main, arguments)
    assert (refused.exit_code, "Missing option '--api'" in refused.output) == (2, True)


def test_a_stop_has_time_to_end_in_order() -> None:
    service = unit(UNIT)["Service"]
    drain = next(option for option in bridge.params if option.name == "drain")
    assert float(service["TimeoutStopSec"]) > float(str(drain.default)) + registration.FAREWELL_SECONDS
    assert service["Restart"] == "always"


@pytest.mark.enable_socket
def test_settings_come_from_the_environment_and_the_bridge_says_when_it_is_ready(
    tmp_path: Path, pki: Pki, plugin: FakePlugin, control_plane: ControlPlane
) -> None:
    """As Type=notify and EnvironmentFile= have it: no option on the command line, READY=1 on the socket."""
    assert unit(UNIT)["Service"]["Type"] == "notify"
    plugin.handlers["DeleteVolume"] = lambda *_: b""
    address = tmp_path / "notify"
    environment = {
        "PATH": os.environ["PATH"],
        "NOTIFY_SOCKET": str(address),
        "MOORAGE_BRIDGE_API": control_plane.url,
        "MOORAGE_BRIDGE_STATE": str(tmp_path / "state"),
        "MOORAGE_BRIDGE_CERTS": str(pki.bridge),
        "MOORAGE_BRIDGE_LISTEN": "127.0.0.1:0",
        "MOORAGE_BRIDGE_PLUGINS": f"fake={plugin.target} second={plugin.target}",
        "MOORAGE_BRIDGE_DEADLINES": "fake:CreateVolume=200",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(address))
        notify.settimeout(30)
        with subprocess.Popen([*RUN, "bridge"], env=environment, stderr=subprocess.DEVNULL) as process:
            assert notify.recv(100) == b"READY=1"
            eventually(lambda: control_plane.last_plugin("second"))
            assert control_plane.last_plugin("fake")["DeadlineSeconds"] == {"CreateVolume": 200}
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
