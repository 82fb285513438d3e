"""moorage audit: what it asks, what it shows and its exit codes, against a fake control plane."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from click.testing import CliRunner, Result

from moorage.cli import main

pytestmark = pytest.mark.enable_socket

ORPHAN = {
    "What": "volume", "Verdict": "orphan", "ExternalID": "vol-1", "Namespace": "default", "VolumeID": "data",
    "OperationID": "op", "Detail": "create failed",
}  # fmt: skip
UNKNOWN = {
    "What": "volume", "Verdict": "unknown", "ExternalID": "vol-2", "Namespace": "", "VolumeID": "", "OperationID": "",
    "Detail": "",
}  # fmt: skip


def report(*findings: dict[str, str], token: str = "", status: str = "done", error: str = "") -> tuple[int, Any]:
    counts = {f"{f['What']} {f['Verdict']}": 1 for f in findings}
    body = {"ID": "r", "PluginID": "p", "Status": status, "Error": error, "Counts": counts}
    return 200, body | {"Findings": list(findings), "NextToken": token}


class Played:
    """Answers by method and path, one after the other. The last one is repeated."""

    def __init__(self, answers: dict[str, list[tuple[int, Any]]]) -> None:
        self.answers, self.asked = answers, list[tuple[str, Any, dict[str, str]]]()
        played = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = f"{self.command} {self.path}"
                played.asked.append((asked, json.loads(raw) if raw else None, dict(self.headers)))
                queue = played.answers.get(asked, [(404, "not here")])
                status, body = queue.pop(0) if len(queue) > 1 else queue[0]
                text = (body if isinstance(body, str) else json.dumps(body)).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                if status in (429, 503):
                    self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_PUT = answer  # noqa: N815 - names of the base class

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    @property
    def paths(self) -> list[str]:
        return [asked for asked, _, _ in self.asked]


@pytest.fixture
def control_plane() -> Iterator[Played]:
    played = Played({})
    yield played
    played.close()


def audit(control_plane: Played, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["audit", "--api", control_plane.url, *arguments])


def test_nothing_wrong_is_exit_code_0(control_plane: Played) -> None:
    control_plane.answers = {
        "PUT /v1/audit/p": [report(status="running")],
        "GET /v1/audit/p?wait=20s": [report(UNKNOWN)],
    }
    done = audit(control_plane, "--plugin", "p")
    assert done.exit_code == 0, done.output
    assert [line.split() for line in done.output.splitlines()[1:]] == [
        ["p", "volume", "unknown", "vol-2", "-", "-", "-"],
        ["p:", "1", "volume", "unknown"],
    ]


def test_orphans_are_exit_code_2_and_come_first(control_plane: Played) -> None:
    control_plane.answers = {
        "PUT /v1/audit/p": [report(status="running")],
        "GET /v1/audit/p?wait=20s": [report(status="running"), report(UNKNOWN, token="r.1")],
        "GET /v1/audit/p?next_token=r.1": [report(ORPHAN)],
    }
    done = audit(control_plane, "--plugin", "p")
    assert done.exit_code == 2, done.output
    rows = [line.split() for line in done.output.splitlines()]
    assert rows[0] == ["PLUGIN", "WHAT", "VERDICT", "EXTERNAL", "ID", "VOLUME", "OPERATION", "DETAIL"]
    assert rows[1] == ["p", "volume", "orphan", "vol-1", "default/data", "op", "create", "failed"]
    assert control_plane.paths[-1] == "GET /v1/audit/p?next_token=r.1"


def test_json_has_every_finding_of_every_plugin(control_plane: Played) -> None:
    refusal = (500, "plugin q does not list its volumes: it cannot be audited")
    control_plane.answers = {
        "GET /v1/plugins?type=csi": [(200, [{"ID": "p"}, {"ID": "q"}])],
        "PUT /v1/audit/p": [report(ORPHAN, UNKNOWN)],
        "PUT /v1/audit/q": [refusal],
    }
    done = audit(control_plane, "--json")
    assert done.exit_code == 2
    said = json.loads(done.output)
    assert said["Clean"] is False
    assert [f["ExternalID"] for f in said["Reports"][0]["Findings"]] == ["vol-1", "vol-2"]
    assert refusal[1] in said["Reports"][1]["Error"]


@pytest.mark.parametrize(
    "answers",
    [
        {"PUT /v1/audit/p": [report(status="failed", error="rpc error")]},
        {"PUT /v1/audit/p": [(500, "no such plugin")]},
        {"PUT /v1/audit/p": [(200, "<html>")]},
        {"PUT /v1/audit/p": [(429, "busy")]},
    ],
)
def test_what_could_not_be_done_is_exit_code_1(control_plane: Played, answers: dict[str, Any]) -> None:
    control_plane.answers = answers
    done = audit(control_plane, "--plugin", "p")
    assert done.exit_code == 1, done.output
    assert len(done.output.splitlines()) == 1


def test_a_busy_control_plane_is_asked_again(control_plane: Played) -> None:
    control_plane.answers = {"PUT /v1/audit/p": [(503, "busy"), (429, "busy"), report()]}
    done = audit(control_plane, "--plugin", "p")
    assert (done.exit_code, done.output) == (0, "p: nothing there\n")


def test_an_audit_that_does_not_end_is_given_up(control_plane: Played) -> None:
    running = report(status="running")
    control_plane.answers = {"PUT /v1/audit/p": [running], "GET /v1/audit/p?wait=20s": [running]}
    done = audit(control_plane, "--plugin", "p", "--wait", "0.01")
    assert done.exit_code == 1
    assert "log of audit_volumes" in done.output


def test_nobody_there(control_plane: Played) -> None:
    done = CliRunner().invoke(main, ["audit", "--api", "http://127.0.0.1:1", "--plugin", "p"])
    assert done.exit_code == 1
    assert "does not answer" in done.output


def test_an_adoption_registers_and_nothing_else(control_plane: Played) -> None:
    control_plane.answers = {"PUT /v1/volume/csi/data?namespace=prod": [(200, {})]}
    done = audit(control_plane, "--plugin", "p", "--adopt", "vol-1", "--as", "prod/data")
    assert done.exit_code == 0, done.output
    ((asked, body, headers),) = control_plane.asked
    assert asked == "PUT /v1/volume/csi/data?namespace=prod"
    assert headers["If-None-Match"] == "*"
    assert body == {
        "Volumes": [
            {
                "ID": "data", "Name": "data", "Namespace": "prod", "PluginID": "p", "ExternalID": "vol-1",
                "RequestedCapabilities": [{"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}],
            }
        ]
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ("--adopt", "vol-1", "--as", "prod/data"),
        ("--adopt", "vol-1", "--as", "data", "--plugin", "p"),
        ("--adopt", "vol-1", "--plugin", "p"),
        ("--as", "prod/data", "--plugin", "p"),
        ("--adopt", "vol-1", "--as", "prod/data", "--plugin", "p", "--plugin", "q"),
    ],
)
def test_half_an_adoption_is_refused(control_plane: Played, arguments: tuple[str, ...]) -> None:
    done = audit(control_plane, *arguments)
    assert (done.exit_code, control_plane.asked) == (1, [])
    assert "an adoption needs all of" in done.output
