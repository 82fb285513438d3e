"""`python -m infra.deploy --stage S`: deploy stacks and app to AWS, with the credentials of the AWS command line.

Safe to repeat after a failure: stacks roll back by themselves, and what Chalice made is recorded in the account.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from infra import stacks
from infra.deploy import access, packages, record, render, stack
from infra.deploy.record import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infra.deploy.access import Access

ROOT: Final = Path(__file__).resolve().parents[2]
BUILD: Final = ROOT / "build"
CHALICE: Final = (str(Path(sys.executable).with_name("chalice")),)
LARGEST_ZIP: Final = 50_000_000
"""Bytes. Lambda takes a larger package from a bucket only."""
WAITS: Final = "MOORAGE_MAX_WAITS"


class DeployError(Exception):
    """The deployment cannot go on. The text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """Subnets and security groups of the two functions that call bridges."""

    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()


def deploy(session: boto3.Session, arguments: argparse.Namespace) -> tuple[str, Access]:
    """Deploy this tree, and return the API's address and who may call it. Raises DeployError, and others' errors."""
    _check(arguments)
    chosen = access.parse(arguments.allow_cidr, everyone=arguments.open)
    identity = session.client("sts").get_caller_identity()
    region = session.region_name
    if not region:
        raise DeployError(
            "no region is configured: set AWS_DEFAULT_REGION, or region in the AWS command line's configuration"
        )
    say(f"Deploying stage {arguments.stage} to account {identity['Account']}, {region}, as {identity['Arn']}")
    ssm = session.client("ssm")
    before = record.load(ssm, arguments.stage) or Record(fingerprint="", chalice={})
    serves = choose(chosen, before, arguments.stage)
    say(f"The API will be {serves}")
    if serves != before.access:
        # Recorded before anything changes: a deploy that fails half-way is repeated, and must keep the choice then.
        record.save(ssm, arguments.stage, replace(before, access=serves))
    network = _network(session, arguments)
    say(f"Stack moorage-{arguments.stage}: tables, queues, key")
    outputs = stack.apply(
        session.client("cloudformation"),
        name=f"moorage-{arguments.stage}",
        template="moorage",
        parameters={"Stage": arguments.stage},
    )
    place = render.Place(
        stage=arguments.stage,
        region=region,
        account=identity["Account"],
        key_arn=outputs["KeyArn"],
        partition=identity["Arn"].split(":")[1],
    )
    variables = {WAITS: str(waiting_readers_limit(session.client("lambda")))}
    options = render.Options(
        variables=variables, subnets=network.subnets, security_groups=network.security_groups, access=serves
    )
    chalice = _deploy_app(place, options, before.chalice)
    record.save(ssm, place.stage, Record(fingerprint="", chalice=chalice, access=serves))
    url = next(str(r["rest_api_url"]) for r in chalice["resources"] if r["resource_type"] == "rest_api")
    return url, serves


def choose(chosen: Access | None, before: Record, stage: str) -> Access:
    """Return who may call: as this deploy says, or else as an earlier one did. Raises DeployError if none did."""
    serves = chosen or before.access
    if serves is None:
        raise DeployError(
            "say who may call the API, because it has no ACLs yet and every caller may delete every volume: "
            f'make deploy STAGE={stage} ARGS="--allow-cidr 203.0.113.0/24" serves these addresses alone (those of '
            'clients and of bridges, as the internet sees them; repeatable), ARGS="--open" serves anyone on the '
            "internet. Later deploys keep the choice. Nothing was changed"
        )
    return serves


def waiting_readers_limit(functions: Any) -> int:
    """Return how many readers may wait. Writes and heartbeats have the other half (docs/lists-and-blocking.md)."""
    limit = functions.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    waits = int(limit) // 2
    say(f"{limit} functions may run at once: {waits} readers may wait, unless .chalice/config.json sets {WAITS}")
    return waits


def _check(arguments: argparse.Namespace) -> None:
    """Raise DeployError for options that cannot be deployed, before AWS is called."""
    if not arguments.stage:
        raise DeployError("make deploy needs STAGE=..., for example: make deploy STAGE=prod")
    stage = stacks.load("moorage")["Parameters"]["Stage"]
    if re.fullmatch(stage["AllowedPattern"], arguments.stage) is None:
        raise DeployError(f"STAGE={arguments.stage}: {stage['ConstraintDescription']}")
    if arguments.subnets and not arguments.security_groups:
        raise DeployError("--subnets needs --security-groups beside it")


def _network(session: boto3.Session, arguments: argparse.Namespace) -> Network:
    if arguments.no_network:
        return Network()
    if arguments.subnets:
        return Network(subnets=_list(arguments.subnets), security_groups=_list(arguments.security_groups))
    say(
        f"Stack moorage-{arguments.stage}-network: VPC, endpoints (the KMS endpoint costs about 7 USD a month and zone)"
    )
    given = {"VpcCidr": arguments.vpc_cidr, "BridgeCidr": arguments.bridge_cidr, "BridgePort": arguments.bridge_port}
    outputs = stack.apply(
        session.client("cloudformation"),
        name=f"moorage-{arguments.stage}-network",
        template="network",
        parameters={"Stage": arguments.stage, **{name: value for name, value in given.items() if value}},
    )
    return Network(subnets=_list(outputs["SubnetIds"]), security_groups=(outputs["SecurityGroupId"],))


def _deploy_app(place: render.Place, options: render.Options, before: dict[str, Any]) -> dict[str, Any]:
    """Run Chalice on the rendered project. Takes and returns Chalice's record of what it made."""
    folder = BUILD / place.stage
    say("Installing the functions' packages for Lambda, hashes checked")
    packages.for_lambda(folder / "vendor")
    render.project(folder, place, options)
    memory = folder / ".chalice" / "deployed" / f"{place.stage}.json"
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.unlink(missing_ok=True)
    if before:
        memory.write_text(json.dumps(before))
    for old in (folder / ".chalice" / "deployments").glob("*.zip"):
        old.unlink()
    say("chalice deploy")
    done = subprocess.run([*CHALICE, "deploy", "--stage", place.stage], cwd=folder, check=False)
    if done.returncode != 0:
        raise DeployError(
            f"chalice deploy failed (its output is above). The project as it was deployed is in {folder}; repeat "
            "make deploy when the cause is gone. If it stopped after creating the REST API, delete that API first: "
            "it is not recorded, and the next deploy would make a second one"
        )
    for package in (folder / ".chalice" / "deployments").glob("*.zip"):
        say(f"Package: {package.stat().st_size / 1e6:.1f} MB of {LARGEST_ZIP / 1e6:.0f}")
    deployed: dict[str, Any] = json.loads(memory.read_text())
    return deployed


def say(text: str) -> None:
    """Print a line for the person at the terminal."""
    print(text, flush=True)


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make deploy", description=__doc__)
    parser.add_argument("--stage", default="")
    who = parser.add_mutually_exclusive_group()
    who.add_argument(
        "--allow-cidr",
        action="append",
        default=[],
        metavar="CIDR",
        help="serve these addresses alone: clients' and bridges', as the internet sees them; repeatable, or separated "
        "by commas; kept by later deploys",
    )
    who.add_argument("--open", action="store_true", help="serve anyone on the internet; kept by later deploys")
    parser.add_argument("--subnets", default="", help="existing subnets, separated by commas; else a VPC is made")
    parser.add_argument("--security-groups", default="")
    parser.add_argument("--no-network", action="store_true", help="no VPC: bridges are reached over the internet")
    parser.add_argument("--vpc-cidr", default="")
    parser.add_argument("--bridge-cidr", default="")
    parser.add_argument("--bridge-port", default="")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Deploy, and return 0 when the API serves."""
    if platform.python_implementation() != "CPython":
        print("moorage: run make deploy with CPython, because Lambda runs CPython", file=sys.stderr)
        return 1
    try:
        url, serves = deploy(boto3.Session(), _parse(arguments))
    except (
        DeployError,
        access.AccessError,
        stack.StackError,
        packages.PackagesError,
        BotoCoreError,
        ClientError,
    ) as exc:
        print(f"moorage: {exc}", file=sys.stderr)
        return 1
    say(f"The API answers at {url}")
    say("Next: a custom domain name, the CA and the bridges: docs/deploying-to-aws.md")
    say(f"The API is {serves}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
