"""csi-sanity 5.6 against the directory plugin: on its socket, and through a bridge with mutual TLS; and against the
fake plugin of the tests.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import grpc
import pytest

from infra.bridge.tests import parts
from moorage.bridge.settings import PluginSettings, Settings
from tests import plugin
from tests.conformance.sanity.forwarder import forwarding
from tests.fakes import csi_server

pytestmark = [pytest.mark.conformance, pytest.mark.enable_socket, pytest.mark.timeout(600)]

HERE = Path(__file__).parent
PROGRAM = "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"
APPLY = 94
"""How many of its 103 cases concern a plugin like this one; the others are in not_run.json, with reasons."""
FAKE_APPLY = 64
"""How many of them concern what the fake plugin announces."""


@dataclass
class Report:
    """What csi-sanity said of each case."""

    passed: set[str] = field(default_factory=set)
    not_run: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Report":
        report = cls()
        for case in ElementTree.parse(path).iter("testcase"):  # noqa: S314 - written by the program we built
            name = case.attrib["name"]
            if not name.startswith("[It] "):  # set-up and reporting of the suite itself
                continue
            name, status = name.removeprefix("[It] "), case.attrib["status"]
            if status == "passed":
                report.passed.add(name)
            elif status in ("skipped", "pending"):
                report.not_run.add(name)
            else:
                report.failed[name] = " ".join(part.get("message", "") for part in case)
        return report


@pytest.fixture(scope="module")
def sanity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built from the module that go.mod pins."""
    built = tmp_path_factory.mktemp("sanity") / "csi-sanity"
    subprocess.run(["go", "build", "-o", str(built), PROGRAM], cwd=HERE, check=True, timeout=500)
    return built


@contextmanager
def bridged(socket: Path, folder: Path) -> Iterator[parts.Worker]:
    """A channel with the worker's certificate to a bridge in front of the plugin on `socket`."""
    pki = parts.make_pki(folder / "pki")
    behind = (PluginSettings("directory", f"unix://{socket}"),)
    with parts.control_plane_at() as control_plane:
        settings = Settings(
            api=control_plane.url,
            state=folder / "state",
            certs=pki.bridge,
            listen="127.0.0.1:0",
            advertise=None,
            plugins=behind,
            mounts_below=(folder,),
        )
        with parts.running(settings) as bridge:
            worker = parts.worker_at(bridge.address, pki.client())
            yield worker
            worker.channel.close()


def run(sanity: Path, endpoint: Path, folder: Path, access_type: str) -> Report:
    """Every case of csi-sanity against the plugin on `endpoint`."""
    report = folder / "report.xml"
    options = {
        "csi.endpoint": f"unix://{endpoint}",
        "csi.mountdir": folder / "target",
        "csi.stagingdir": folder / "staging",
        "csi.secrets": HERE / "secrets.yaml",
        "csi.testvolumemutableparameters": HERE / "mutable_parameters.yaml",
        "csi.testvolumeaccesstype": access_type,
        "ginkgo.junit-report": report,
    }
    command = [str(sanity), *(f"--{name}={value}" for name, value in options.items())]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500, check=False)
    assert report.exists(), done.stdout + done.stderr
    found = Report.read(report)
    assert (done.returncode == 0) == (not found.failed), done.stdout + done.stderr
    return found


def check(report: Report) -> None:
    """All that apply passed, and nothing else was left out than what has a reason."""
    reasons = json.loads((HERE / "not_run.json").read_text("utf-8"))
    assert report.failed == {}
    assert report.not_run == set(reasons)
    assert len(report.passed) == APPLY


@pytest.mark.parametrize("access_type", ["mount", "block"])
def test_directly(sanity: Path, tmp_path: Path, access_type: str) -> None:
    with plugin.running(tmp_path) as socket:
        report = run(sanity, socket, tmp_path, access_type)
    check(report)


def test_the_fake_plugin(sanity: Path, tmp_path: Path) -> None:
    with csi_server.serving(tmp_path) as socket:
        report = run(sanity, socket, tmp_path, "mount")
    assert report.failed == {}
    assert len(report.passed) == FAKE_APPLY


def test_through_the_bridge_with_mutual_tls(sanity: Path, tmp_path: Path) -> None:
    with (
        plugin.running(tmp_path) as socket,
        bridged(socket, tmp_path) as worker,
        forwarding(tmp_path / "forwarded.sock", worker.channel, "directory") as forwarder,
    ):
        report = run(sanity, tmp_path / "forwarded.sock", tmp_path, "mount")
    check(report)
    assert forwarder.calls > 5 * APPLY


def test_the_bridge_is_really_in_between(tmp_path: Path) -> None:
    """Without the plugin's name in the metadata, the same way ends at the bridge."""
    with (
        plugin.running(tmp_path) as socket,
        bridged(socket, tmp_path) as worker,
        forwarding(tmp_path / "forwarded.sock", worker.channel, "another"),
        grpc.insecure_channel(f"unix://{tmp_path / 'forwarded.sock'}") as channel,
        pytest.raises(grpc.RpcError, match='no plugin "another" is behind this bridge'),
    ):
        parts.Worker(channel).call("GetPluginInfo", service="Identity", moorage_plugin="", moorage_protocol="")
