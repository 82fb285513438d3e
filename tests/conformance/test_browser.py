"""A web page from elsewhere, in a real Chromium, reaches neither the API nor the emulator: by fetch, form or image.

The page is served under a name of its own that resolves to 127.0.0.1, so that it is what a page on the internet is, and
what a page that rebinds its name is. A third server on the loopback, without a guard, shows what the browser does send.
"""

import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from infra.local import private
from infra.local.dynamodb_local import free_port
from tests.harness import definition

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(300)]

FOREIGN = "page.example"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions",
)  # fmt: skip
PAGE = """<!doctype html><title>page</title><body><script>
const targets = %s;
const sent = [];
function form(url, text) {
  // A form's text/plain body is name=value: the = lands inside a string of the JSON.
  const frame = document.createElement("iframe"); frame.name = "f" + sent.length; document.body.append(frame);
  const form = document.createElement("form");
  Object.assign(form, {method: "POST", action: url, enctype: "text/plain", target: frame.name});
  const input = document.createElement("input");
  input.name = text.slice(0, -1) + ', "x": "'; input.value = '"}';
  form.append(input); document.body.append(form);
  return new Promise(done => { frame.onload = done; form.submit(); });
}
function image(url) {
  return new Promise(done => { const i = new Image(); i.onload = i.onerror = done; i.src = url; });
}
async function attack(url, text) {
  await fetch(url + "?by=fetch", {method: "POST", mode: "no-cors", body: text}).catch(() => 0);
  await fetch(url + "?by=read").then(answer => answer.text()).then(read => sent.push("READ " + read), () => 0);
  await Promise.race([form(url + "?by=form", text), new Promise(done => setTimeout(done, 3000))]);
  await image(url + "?by=image");
}
(async () => {
  for (const [url, text] of targets) { await attack(url, text); sent.push("sent " + url); }
  document.body.innerText = sent.join("\\n") + "\\nall sent";
})();
</script>"""


@dataclass
class Server:
    """A server without a guard: it serves the page, and remembers what else it is asked."""

    page: str = ""
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    port: int = 0

    def start(self) -> http.server.ThreadingHTTPServer:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                self.rfile.read(length)
                if self.path == "/page":
                    body = outer.page.encode()
                else:
                    outer.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
                    body = b"ok"
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_OPTIONS = do_GET  # noqa: N815 - names that http.server looks for

            def log_message(self, *_: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[private.System]:
    with private.running(tmp_path_factory.mktemp("browser") / "system") as running:
        yield running


@pytest.fixture
def unguarded() -> Iterator[Server]:
    server = Server()
    running = server.start()
    yield server
    running.shutdown()
    running.server_close()


def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert found, "make conformance needs Chromium on the PATH (Debian: apt-get install chromium)"
    return found


def browse(url: str, profile: Path) -> str:
    """What the page at `url` shows in the end."""
    command = [chromium(), *FLAGS, f"--user-data-dir={profile}", f"--host-resolver-rules=MAP {FOREIGN} 127.0.0.1"]
    command += ["--virtual-time-budget=60000", "--timeout=60000", "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout


def volume(name: str) -> str:
    return json.dumps(definition(name))


def test_a_page_from_elsewhere_changes_nothing_and_reads_nothing(
    system: private.System, unguarded: Server, tmp_path: Path
) -> None:
    create = "/v1/volume/csi/owned/create"
    function = {"FunctionName": "owned", "Runtime": "python3.11", "Role": "r", "Handler": "h", "Code": {"ZipFile": ""}}
    rebound = f"http://{FOREIGN}"
    targets = [
        (f"{system.api_url}{create}", volume("owned")),
        (f"{rebound}:{system.port}{create}", volume("owned")),
        (f"{system.api_url}/v1/namespace", '{"Name": "owned"}'),
        (f"{rebound}:{system.port}/v1/namespace", '{"Name": "owned"}'),
        (f"{system.endpoint}/2015-03-31/functions", json.dumps(function)),
        (f"{rebound}:{system.emulator_port}/2015-03-31/functions", json.dumps(function)),
        (f"{system.endpoint}/_ministack/reset", "{}"),
        (f"{system.endpoint}/", '{"Action": "CreateQueue"}'),
        (f"http://127.0.0.1:{unguarded.port}/control", volume("owned")),
    ]
    unguarded.page = PAGE % json.dumps(targets)
    functions = system.client("lambda").list_functions()["Functions"]
    said_before = (system.state / "logs" / "functions.log").read_text()
    shown = browse(f"http://{FOREIGN}:{unguarded.port}/page", tmp_path / "profile")
    assert "all sent" in shown, shown
    # The control: the browser did send all four, with what the guard goes by.
    control = {
        path.partition("by=")[2]: (method, headers) for method, path, headers in unguarded.asked if "by=" in path
    }
    assert control.keys() == {"fetch", "read", "form", "image"}
    assert control["form"][0] == control["fetch"][0] == "POST"
    assert {headers["sec-fetch-site"] for _, headers in control.values()} == {"cross-site"}
    assert control["form"][1]["origin"] == f"http://{FOREIGN}:{unguarded.port}"
    # Nothing was read, made or removed.
    assert "READ" not in shown
    assert system.client("lambda").list_functions()["Functions"] == functions
    assert len(functions) == 6
    for listed in ("/v1/volumes?type=csi", "/v1/namespaces"):
        assert "owned" not in browse(system.api_url + listed, tmp_path / "own")
    assert not list((system.plugin_root() / "volumes").iterdir())
    said = (system.state / "logs" / "functions.log").read_text().removeprefix(said_before)
    assert "/v1/volume/csi/owned" not in said
    assert '"path": "/v1/namespace"' not in said


def test_what_is_typed_into_the_address_bar_is_answered(system: private.System, tmp_path: Path) -> None:
    assert "[]" in browse(f"{system.api_url}/v1/volumes?type=csi", tmp_path / "profile")


def test_without_a_server_the_browser_shows_so(tmp_path: Path) -> None:
    assert "[]" not in browse(f"http://127.0.0.1:{free_port()}/v1/volumes?type=csi", tmp_path / "profile")
