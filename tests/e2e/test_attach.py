"""`make plugin`: somebody's own plugin behind a bridge of its own, on a local system that runs."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local import private
from infra.local.settings import ROOT, Settings
from tests import plugin
from tests.e2e.api import create, request, wait_for
from tests.shared import Shared

pytestmark = [pytest.mark.e2e, pytest.mark.enable_socket, pytest.mark.timeout(600)]


@pytest.fixture
def system(shared: Shared) -> private.System:
    return shared.system


def make_plugin(system: private.System, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        **Settings.from_env().base_environment,
        "MOORAGE_STATE": str(system.state),
        "MOORAGE_STAGE": system.stage,
        "MOORAGE_PORT": str(system.port),
        "MOORAGE_EMULATOR_PORT": str(system.emulator_port),
    }
    command = [sys.executable, "-m", "infra.local", "plugin", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def test_a_plugin_of_ones_own_with_one_command(system: private.System, tmp_path: Path) -> None:
    with plugin.running(tmp_path, "--name", "disks.acme.example") as socket:
        with make_plugin(system, "Acme.Disks", str(socket)) as bridge:
            wait_for(lambda: '"ControllersHealthy":1' in request(system, "GET", "/v1/plugin/csi/Acme.Disks").text)
            made = create(system, "mine", PluginID="Acme.Disks")
            assert made.status == 200, made.text
            names = [path.name for path in (tmp_path / "root" / "volumes").iterdir()]
            assert names == [made.json["Volumes"][0]["ExternalID"]]
            assert request(system, "GET", "/v1/node/local-acme-disks").json["Status"] == "ready"
            assert request(system, "DELETE", "/v1/volume/csi/mine/delete").status == 200
            assert list((tmp_path / "root" / "volumes").iterdir()) == []
            bridge.send_signal(signal.SIGINT)
            assert bridge.wait(30) == 0
        assert request(system, "GET", "/v1/plugin/csi/Acme.Disks").status == 404
        assert request(system, "GET", "/v1/node/local-acme-disks").status == 404


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "make plugin ID=mine SOCKET=/path/to/csi.sock"),
        (("mine", ""), "make plugin ID=mine SOCKET=/path/to/csi.sock"),
        (("mine", "/nowhere/csi.sock"), "which cannot be used: No such file or directory"),
        (("mine", str(ROOT / "Makefile")), "which is no socket: start the plugin first"),
        (("directory", "{socket}"), "a plugin of the local system's own: choose another"),
    ],
)
def test_what_is_missing_is_said(system: private.System, tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
    with plugin.running(tmp_path) as socket:
        given = [one.replace("{socket}", str(socket)) for one in arguments]
        with make_plugin(system, *given) as command:
            said, _ = command.communicate(timeout=60)
    assert (command.returncode, text in said) == (1, True), said


def test_without_a_running_system_it_is_said(tmp_path: Path) -> None:
    absent = private.prepare(tmp_path / "absent")
    with make_plugin(absent, "mine", "/some.sock") as command:
        said, _ = command.communicate(timeout=60)
    assert (command.returncode, "the local system does not run, or not yet: start it with make run" in said) == (
        1,
        True,
    )
