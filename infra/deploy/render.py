"""Render the Chalice project of one deployment: exact names in its policies, its stage, its packages.

The committed `.chalice/` uses names and wildcards, so that it fits any account. What is deployed is more exact:
`narrow` puts the stage, the region, the account and the key into every policy.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from infra.deploy.access import Access, resource_policy

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).resolve().parents[2]
IN_THE_NETWORK: Final = ("run_operation", "ask_plugin")
POLICY_OF_THE_API: Final = "api_gateway_policy_file"
ACCESS_FILE: Final = "api-access.json"
"""File of the REST API's resource policy. The committed one serves 127.0.0.1, that is, no address of the internet."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a deployment goes, as names and policies need it."""

    stage: str
    region: str
    account: str
    key_arn: str
    partition: str = "aws"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What one deployment adds to the committed configuration."""

    variables: Mapping[str, str] = field(default_factory=dict)
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    access: Access | None = None
    """Who may call the API. None stands for no policy, for an emulator that has none."""


def project(folder: Path, place: Place, options: Options) -> None:
    """Write the Chalice project for `place` into `folder`. Its `vendor/` and Chalice's own records stay."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(ROOT / "app.py", folder / "app.py")
    _mirror(ROOT / "chalicelib", folder / "chalicelib")
    # Empty, so that Chalice installs nothing: the packages come from the lock, with hashes checked.
    (folder / "requirements.txt").write_text("")
    chalice = folder / ".chalice"
    chalice.mkdir(exist_ok=True)
    committed = ROOT / ".chalice"
    (chalice / "config.json").write_text(json.dumps(config(_read(committed / "config.json"), place, options), indent=2))
    if options.access is not None:
        (chalice / ACCESS_FILE).write_text(json.dumps(resource_policy(options.access), indent=2))
    for policy in sorted(committed.glob("policy-*.json")):
        (chalice / policy.name).write_text(json.dumps(narrow(_read(policy), place), indent=2))


def config(committed: Mapping[str, Any], place: Place, options: Options) -> dict[str, Any]:
    """Return the committed configuration with the one stage of `place`."""
    ours = {"MOORAGE_STAGE": place.stage, "MOORAGE_KEY_ARN": place.key_arn}
    stage: dict[str, Any] = {
        "environment_variables": {**options.variables, **settings_of(committed, place.stage), **ours}
    }
    if options.subnets:
        network = {"subnet_ids": list(options.subnets), "security_group_ids": list(options.security_groups)}
        stage["lambda_functions"] = {name: dict(network) for name in IN_THE_NETWORK}
    rendered = {**committed, "stages": {place.stage: stage}}
    if options.access is None:
        rendered.pop(POLICY_OF_THE_API, None)
    else:
        rendered[POLICY_OF_THE_API] = ACCESS_FILE
    return rendered


def settings_of(committed: Mapping[str, Any], stage: str) -> dict[str, str]:
    """Return the variables that the committed configuration sets for the stage (docs/interfaces.md, section 1)."""
    return dict(committed.get("stages", {}).get(stage, {}).get("environment_variables", {}))


def narrow(policy: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Return `policy` with its wildcards for stage, region and account replaced, and the key named by its ARN."""
    statements = []
    for statement in policy["Statement"]:
        resources = [narrow_arn(resource, place) for resource in statement["Resource"]]
        narrowed = {**statement, "Resource": resources}
        if resources == [place.key_arn]:
            narrowed.pop("Condition", None)
        statements.append(narrowed)
    return {**policy, "Statement": statements}


def narrow_arn(arn: str, place: Place) -> str:
    """Return one resource of a policy, named exactly."""
    if arn == "*":
        return arn
    _, _, service, _, _, resource = arn.split(":", 5)
    if service == "kms":
        return place.key_arn
    resource = resource.replace("moorage-*", f"moorage-{place.stage}", 1)
    return f"arn:{place.partition}:{service}:{place.region}:{place.account}:{resource}"


def _mirror(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "*.pyi"))


def _read(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded
