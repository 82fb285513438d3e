"""Deploy stack, app and API of this tree on the emulator, unless they are there already."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from infra.deploy import packages, record, render, stack
from infra.local import emulator, environments, say
from infra.local.clients import EmulatorClients
from infra.local.settings import REGION, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from infra.local.settings import Settings

TEMPLATE: Final = "moorage"
DEPLOYED_FROM: Final = (
    "app.py", "chalicelib/**/*.py", "chalicelib/**/*.lark", "requirements.txt", "requirements-emulator.txt",
    ".chalice/*.json", "infra/stacks/*", "infra/deploy/*.py", "infra/local/deploy_app.py", "infra/local/deployment.py",
    "infra/local/emulator.py",
)  # fmt: skip


@dataclass(frozen=True)
class Deployment:
    """The API that serves now."""

    api_id: str
    api_stage: str


def fingerprint(settings: Settings) -> str:
    """Return a digest of all that a deployment is made from."""
    digest = hashlib.sha256()
    for path in _sources():
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    digest.update(
        json.dumps([settings.stage, dict(settings.function_variables), str(environments.FUNCTIONS.packages)]).encode()
    )
    return digest.hexdigest()


def bring_up_to_date(settings: Settings, beside: Callable[[], None]) -> Deployment:
    """Deploy what changed since the deployment that the emulator's state records, and return what serves.

    `beside` is called once the tables and the key are there, while the app is deployed. What it raises is raised here.
    Safe to repeat after a failure at any point: what was made is found again by its name, and the deployment is
    recorded in the emulator only at its end. Raises Trouble, and botocore's errors.
    """
    aws = EmulatorClients(settings.endpoint, settings.key())
    ssm = aws.client("ssm")
    wanted = fingerprint(settings)
    before = record.load(ssm, settings.stage)
    if before is not None and before.fingerprint == wanted:
        beside()
        return _deployment(before.chalice)
    with say.step("Creating tables, queues and the key" if before is None else "Updating tables, queues and the key"):
        outputs = stack.apply(
            aws.client("cloudformation"), name=settings.stack, template=TEMPLATE, parameters={"Stage": settings.stage}
        )
        emulator.complete_tables(aws.client("dynamodb"), TEMPLATE, settings.stage)
    with say.step("Deploying the app with chalice deploy"):
        account = aws.client("sts").get_caller_identity()["Account"]
        place = render.Place(stage=settings.stage, region=REGION, account=account, key_arn=outputs["KeyArn"])
        render.project(settings.project, place, render.Options(variables=emulator.function_variables(settings)))
        if settings.emulator_url:
            try:
                packages.for_lambda(settings.project / "vendor")
            except packages.PackagesError as exc:
                raise say.Trouble(str(exc)) from exc
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(beside)
            chalice = _chalice_deploy(settings, before.chalice if before else None)
            done.result()
    record.save(ssm, settings.stage, record.Record(fingerprint=wanted, chalice=chalice))
    return _deployment(chalice)


def _chalice_deploy(settings: Settings, deployed: dict[str, Any] | None) -> dict[str, Any]:
    memory = settings.project / ".chalice" / "deployed" / f"{settings.stage}.json"
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.unlink(missing_ok=True)
    if deployed is not None:
        memory.write_text(json.dumps(deployed))
    for old in (settings.project / ".chalice" / "deployments").glob("*.zip"):
        old.unlink()
    environment = settings.aws_environment(
        AWS_CONFIG_FILE="/dev/null", AWS_SHARED_CREDENTIALS_FILE="/dev/null", PYTHONDONTWRITEBYTECODE="1"
    )
    command = [sys.executable, "-m", "infra.local.deploy_app", str(settings.project), settings.stage]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    log = settings.logs / "deploy.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        raise say.Trouble(f"chalice deploy failed: {' '.join(last)} (all of it: {log})")
    read: dict[str, Any] = json.loads(memory.read_text())
    return read


def _deployment(chalice: dict[str, Any]) -> Deployment:
    api = next(r for r in chalice["resources"] if r["resource_type"] == "rest_api")
    config = json.loads((ROOT / ".chalice" / "config.json").read_text())
    return Deployment(api_id=api["rest_api_id"], api_stage=config["api_gateway_stage"])


def _sources() -> Iterator[Path]:
    for pattern in DEPLOYED_FROM:
        yield from sorted(path for path in ROOT.glob(pattern) if path.is_file())
