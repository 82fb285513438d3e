"""The emulator of AWS (infra/emulator): how it is started and stopped, and what of AWS it lacks.

The rest of infra/local knows an emulator only by what this module defines. Another emulator replaces this module,
the API Gateway calls in deploy_app.py, requirements-emulator.in, and the wrapper that is started (infra/emulator).
"""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Final

from infra import stacks
from infra.local import clock, environments
from infra.local.processes import Child, end_group, kill_processes_under
from infra.local.say import Trouble
from infra.local.settings import LOOPBACK, REGION, ROOT

if TYPE_CHECKING:
    from infra.local.settings import Settings

HEALTH: Final = ("/_ministack/health", "/_localstack/health")
"""Paths at which MiniStack, and LocalStack started by hand, say that they serve."""
START_WITHIN: Final = 30.0
KEPT_AFTER_A_KILL: Final = "What it answered for is on disk."
"""True because infra/emulator/storage.py writes before a call is answered."""


class Emulator:
    """The emulator of one local system, in its own environment, bound to the loopback."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running = settings.emulator_state / "running"
        """A file that is there while the emulator runs, and that stays when it is killed."""
        settings.key()  # makes the key's file
        command = [str(environments.EMULATOR.python), "-m", "infra.emulator"]
        command += ["--host", LOOPBACK, "--port", str(settings.emulator_port)]
        command += ["--key", str(settings.key_file), "--name", settings.domain]
        command += ["--state", str(settings.emulator_state), "--log", str(settings.logs / "functions.log")]
        self.child = Child(
            name="emulator",
            command=command,
            environment=settings.environment(
                GATEWAY_PORT=str(settings.emulator_port),
                TMPDIR=str(settings.temporary),
                AUTH="true",
                IOT_MTLS_ENABLED="0",
                SFTP_ENABLED="0",
                MINISTACK_REGION=REGION,
                LOG_LEVEL="WARNING",
            ),
            log=settings.logs / "emulator.log",
            pid_file=settings.run / "emulator.json",
            grace=30.0,
            folder=ROOT,
        )

    @property
    def was_killed(self) -> bool:
        """Whether it did not end in order the last time. Ask before `start`."""
        return self._running.exists()

    def mark_clean(self) -> None:
        """Record that it ended in order, and so wrote all its state."""
        self._running.unlink(missing_ok=True)

    def start(self) -> None:
        """Start it and wait until it answers. Raises Trouble when it does not."""
        kill_workers(self._settings)
        shutil.rmtree(self._settings.temporary, ignore_errors=True)
        for folder in (self._settings.temporary, self._settings.emulator_state):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._running.touch(mode=0o600)
        self.child.start()
        deadline = clock.monotonic() + START_WITHIN
        while not answers(self._settings.endpoint):
            if not self.child.runs:
                raise Trouble(
                    f"the emulator ended at its start: {self.child.last_words()} (log: {self.child.log}); "
                    "if its state cannot be read, make forget removes it"
                )
            if clock.monotonic() > deadline:
                raise Trouble(f"the emulator did not answer within {START_WITHIN:.0f} s; its log: {self.child.log}")
            clock.sleep(0.05)

    def stop(self) -> bool:
        """Let it write its state and end, with its worker processes. Return whether it ended in order."""
        process, ended_before = self.child.process, self.child.exit_code is not None
        in_time = self.child.stop()
        if process is not None:
            end_group(process.pid)
        kill_workers(self._settings)
        clean = in_time and not ended_before and (process is None or process.returncode == 0)
        if clean:
            self.mark_clean()
        return clean


def kill_workers(settings: Settings) -> int:
    """Kill the processes that run functions, also those of an earlier emulator, and return how many there were.

    They may be in process groups of their own, but their code is in the emulator's temporary folder.
    """
    return kill_processes_under(settings.temporary)


def answers(endpoint: str) -> bool:
    """Return whether an emulator answers at `endpoint`."""
    for path in HEALTH:
        try:
            with urllib.request.urlopen(endpoint + path, timeout=2) as response:  # noqa: S310 - an http address of ours
                if response.status == 200:
                    return True
        except urllib.error.HTTPError:
            continue
        except (OSError, ValueError):
            return False
    return False


def api_address(endpoint: str, api_id: str, api_stage: str) -> str:
    """Return the address at which the emulator serves a deployed REST API."""
    return f"{endpoint}/restapis/{api_id}/{api_stage}/_user_request_"


def function_variables(settings: Settings) -> dict[str, str]:
    """Return the functions' environment variables.

    Functions of our emulator run on this machine and import their packages from .venv-functions: it unpacks a
    function's zip for each worker process, so packages in the zip would be unpacked every time. An emulator that was
    started by hand may run them in a container.
    """
    if settings.emulator_url:
        return dict(settings.function_variables)
    return {"PYTHONPATH": str(environments.FUNCTIONS.packages), **settings.function_variables}


def complete_tables(dynamodb: Any, template: str, stage: str) -> None:
    """Switch on the time to live of the template's tables, which the emulator's CloudFormation leaves out."""
    for resource in stacks.load(template)["Resources"].values():
        if resource["Type"] != "AWS::DynamoDB::Table":
            continue
        properties = resource["Properties"]
        name = properties["TableName"]["Fn::Sub"].replace("${Stage}", stage)
        current = dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        if current.get("TimeToLiveStatus") not in ("ENABLED", "ENABLING"):
            dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification=properties["TimeToLiveSpecification"])
