"""The whole local system: started, restarted, crashed, stopped, as a person and as an accident would."""

import contextlib
import json
import shutil
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from infra.local import clock, environments, private
from infra.local.settings import ROOT, Settings

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

TABLES = ("volumes", "claims", "operations", "plugins", "meta", "acl")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[private.System]:
    environments.ensure(environments.EMULATOR)
    with private.running(tmp_path_factory.mktemp("local") / "system") as running:
        yield running


def get(system: private.System, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(system.api_url + path, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read().decode()


def wait_for(what: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = clock.monotonic() + seconds
    while not what():
        assert clock.monotonic() < deadline, "it never came true"
        clock.sleep(0.1)


def run_make(command: str, system: private.System, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **Settings.from_env().base_environment,
        "MOORAGE_STATE": str(system.state),
        "MOORAGE_PORT": str(system.port),
        "MOORAGE_EMULATOR_PORT": str(system.emulator_port),
        "MOORAGE_BRIDGE_PORT": str(system.bridge_port),
        **variables,
    }
    command_line = [sys.executable, "-m", "infra.local", command]
    return subprocess.run(
        command_line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def processes_of(system: private.System) -> list[psutil.Process]:
    """Every live process that names the system's folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or ())
        if f"{system.state}/" in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def test_it_serves_the_api_and_lists_its_plugin(system: private.System) -> None:
    assert get(system, "/v1/volumes?type=csi") == (200, "[]")
    status, body = get(system, "/v1/plugins?type=csi")
    assert status == 200
    assert [plugin["ID"] for plugin in json.loads(body)] == ["directory"]


def test_it_says_what_to_try_next(system: private.System) -> None:
    assert f"curl -X PUT {system.api_url}/v1/volume/csi/data/create" in system.output
    assert str(system.plugin_root()) in system.output


def test_items_expire_in_every_table_though_the_emulators_stacks_leave_it_out(system: private.System) -> None:
    dynamodb = system.client("dynamodb")
    for name in TABLES:
        found = dynamodb.describe_time_to_live(TableName=f"moorage-e2e-{name}")["TimeToLiveDescription"]
        assert (found["TimeToLiveStatus"], found["AttributeName"]) == ("ENABLED", "expires_at")


def test_no_function_has_a_permission_beyond_its_own_policy(system: private.System) -> None:
    iam = system.client("iam")
    roles = [role["RoleName"] for role in iam.list_roles()["Roles"] if role["RoleName"].startswith("moorage-e2e")]
    assert len(roles) == 6
    for role in roles:
        assert len(iam.list_role_policies(RoleName=role)["PolicyNames"]) == 1
        assert iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []


def test_each_queue_has_one_consumer(system: private.System) -> None:
    mappings = system.client("lambda").list_event_source_mappings()["EventSourceMappings"]
    queues = sorted(mapping["EventSourceArn"].rpartition(":")[2] for mapping in mappings)
    assert queues == ["moorage-e2e-operations", "moorage-e2e-operations-dead"]


def test_paths_of_the_emulator_cannot_be_reached_through_the_api(system: private.System) -> None:
    unknown = get(system, "/v1/no-such-path")
    for path in ("/_ministack/health", "/_localstack/health", "/health", "/_aws/sqs/messages", "/logout"):
        assert get(system, path) == unknown


def test_status_says_what_runs_and_where(system: private.System) -> None:
    said = run_make("status", system).stdout
    assert system.api_url in said
    assert f"pid {system.pid_of('emulator')}" in said
    assert "directory: registered" in said


def test_a_second_start_in_the_same_folder_is_refused_in_one_line(system: private.System) -> None:
    done = run_make("run", system)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "runs already" in done.stderr
    assert get(system, "/v1/volumes?type=csi")[0] == 200


@pytest.mark.parametrize("name", ["proxy", "bridge", "plugin-directory"])
def test_a_child_that_dies_is_started_again(system: private.System, name: str) -> None:
    old = system.pid_of(name)
    psutil.Process(old).kill()
    wait_for(lambda: f"{name} ended (exit code -9)" in system.output)
    wait_for(lambda: system.pid_of(name) != old if (system.state / "run" / f"{name}.json").exists() else False)
    wait_for(lambda: "directory" in get_quietly(system))


def get_quietly(system: private.System) -> str:
    try:
        return get(system, "/v1/plugins?type=csi")[1]
    except OSError:
        return ""


def test_a_stop_ends_every_process_and_a_start_goes_on_in_seconds_without_deploying(system: private.System) -> None:
    system.client("ssm").put_parameter(Name="/kept", Value="yes", Type="String")
    get(system, "/v1/volumes?type=csi")
    assert system.stop() == 0
    assert processes_of(system) == []
    said, started = len(system.output), clock.monotonic()
    system.start()
    assert clock.monotonic() - started < 60
    assert "chalice deploy" not in system.output[said:]
    assert system.client("ssm").get_parameter(Name="/kept")["Parameter"]["Value"] == "yes"
    assert get(system, "/v1/volumes?type=csi") == (200, "[]")


def test_what_a_killed_supervisor_left_is_ended_by_the_next_start(system: private.System) -> None:
    old = [system.pid_of(name) for name in ("emulator", "proxy", "bridge", "plugin-directory")]
    system.kill()
    assert all(psutil.pid_exists(pid) for pid in old)
    said = len(system.output)
    system.start()
    assert "Ended what an earlier run left behind" in system.output[said:]
    assert "did not end in order" not in system.output[said:]
    assert get(system, "/v1/volumes?type=csi") == (200, "[]")


def test_after_a_kill_of_the_emulator_the_system_is_up_again_with_all_it_had(system: private.System) -> None:
    said = len(system.output)
    system.client("ssm").put_parameter(Name="/kept", Value="over a kill", Type="String", Overwrite=True)
    clock.sleep(2.0)  # other services than DynamoDB are on disk after that long (docs/local-system.md)
    psutil.Process(system.pid_of("emulator")).send_signal(signal.SIGKILL)
    wait_for(lambda: "The system is up again." in system.output[said:])
    assert "did not end in order" in system.output[said:]
    assert "chalice deploy" not in system.output[said:]
    assert get(system, "/v1/volumes?type=csi") == (200, "[]")
    assert system.client("ssm").get_parameter(Name="/kept")["Parameter"]["Value"] == "over a kill"
    # Its audit is over before the next test kills everything: one that is killed in the middle holds up the next.
    wait_for(lambda: "Nothing is lost or left over." in system.output[said:])


def test_after_a_kill_of_everything_the_next_start_serves_and_audits(system: private.System) -> None:
    emulator = psutil.Process(system.pid_of("emulator"))
    system.kill()
    emulator.kill()
    emulator.wait()
    said = len(system.output)
    system.start()
    assert "did not end in order" in system.output[said:]
    assert get(system, "/v1/volumes?type=csi") == (200, "[]")
    wait_for(lambda: "Nothing is lost or left over." in system.output[said:])


def test_state_is_closed_to_others_whatever_it_was_before(system: private.System) -> None:
    system.stop()
    for path in (system.state, system.state / "logs", system.state / "certs" / "ca" / "ca-key.pem"):
        path.chmod(0o777)
    system.start()
    found = {}
    for path in [system.state, *system.state.rglob("*")]:
        with contextlib.suppress(FileNotFoundError):  # functions are at work, and their files come and go
            found[path] = path.lstat().st_mode
    outside_of_volumes = {p: mode for p, mode in found.items() if "volumes" not in p.parts and not stat.S_ISLNK(mode)}
    assert len(outside_of_volumes) > 100
    assert [str(p) for p, mode in outside_of_volumes.items() if mode & 0o077] == []


def test_a_state_that_was_lost_is_deployed_anew(system: private.System) -> None:
    system.stop()
    shutil.rmtree(system.state / "emulator")
    said = len(system.output)
    system.start()
    assert "Creating tables, queues and the key" in system.output[said:]
    assert get(system, "/v1/volumes?type=csi") == (200, "[]")
    assert len(system.client("lambda").list_event_source_mappings()["EventSourceMappings"]) == 2


def test_a_port_in_use_is_told_in_one_line(system: private.System, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run_make("run", system, MOORAGE_STATE=str(tmp_path / "other"), MOORAGE_PORT=port)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"port {port} (the API) is in use by" in done.stderr
