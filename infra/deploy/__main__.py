"""`python -m infra.deploy --stage S`: the stacks and the app onto AWS, with the credentials of the AWS command line.

Safe to repeat after a failure: stacks roll back by themselves, and what Chalice made is remembered in the account.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from infra.deploy import packages, record, render, stack

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).resolve().parents[2]
BUILD: Final = ROOT / "build"
LARGEST_ZIP: Final = 50_000_000
"""What Lambda takes without a bucket in between."""


WAITS: Final = "MOORAGE_MAX_WAITS"


class DeployError(Exception):
    """The deployment cannot go on; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """Where the two functions that call bridges live."""

    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()


def deploy(session: boto3.Session, arguments: argparse.Namespace) -> str:
    """Bring the account to what the tree says; answers the API's address."""
    identity = session.client("sts").get_caller_identity()
    region = session.region_name
    if not region:
        raise DeployError(
            "no region is configured: set AWS_DEFAULT_REGION, or region in the AWS command line's configuration"
        )
    say(f"Deploying stage {arguments.stage} to account {identity['Account']}, {region}, as {identity['Arn']}")
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
    variables = {WAITS: str(half_of_what_may_run(session.client("lambda")))}
    options = render.Options(variables=variables, subnets=network.subnets, security_groups=network.security_groups)
    return _deploy_app(session, place, options)


def half_of_what_may_run(functions: Any) -> int:
    """How many readers may wait: writes and heartbeats have the other half (docs/lists-and-blocking.md)."""
    limit = functions.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    waits = int(limit) // 2
    say(f"{limit} functions may run at once: {waits} readers may wait, unless .chalice/config.json sets {WAITS}")
    return waits


def _network(session: boto3.Session, arguments: argparse.Namespace) -> Network:
    if arguments.no_network:
        return Network()
    if arguments.subnets:
        if not arguments.security_groups:
            raise DeployError("SUBNETS needs SECURITY_GROUPS beside it")
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


def _deploy_app(session: boto3.Session, place: render.Place, options: render.Options) -> str:
    folder = BUILD / place.stage
    say("Installing the functions' packages for Lambda, hashes checked")
    packages.for_lambda(folder / "vendor")
    render.project(folder, place, options)
    ssm = session.client("ssm")
    before = record.load(ssm, place.stage)
    memory = folder / ".chalice" / "deployed" / f"{place.stage}.json"
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.unlink(missing_ok=True)
    if before is not None:
        memory.write_text(json.dumps(before.chalice))
    for old in (folder / ".chalice" / "deployments").glob("*.zip"):
        old.unlink()
    say("chalice deploy")
    chalice = [str(Path(sys.executable).with_name("chalice")), "deploy", "--stage", place.stage]
    done = subprocess.run(chalice, cwd=folder, check=False)
    if done.returncode != 0:
        raise DeployError(
            f"chalice deploy failed (its output is above). The project as it was deployed is in {folder}; repeat "
            "make deploy when the cause is gone. If it stopped after creating the REST API, delete that API first: "
            "it is not remembered"
        )
    for package in (folder / ".chalice" / "deployments").glob("*.zip"):
        say(f"Package: {package.stat().st_size / 1e6:.1f} MB of {LARGEST_ZIP / 1e6:.0f}")
    deployed: dict[str, Any] = json.loads(memory.read_text())
    record.save(ssm, place.stage, record.Record(fingerprint="", chalice=deployed))
    return next(str(r["rest_api_url"]) for r in deployed["resources"] if r["resource_type"] == "rest_api")


def say(text: str) -> None:
    """Tell the person at the terminal."""
    print(text, flush=True)


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make deploy", description=__doc__)
    parser.add_argument("--stage", required=True)
    parser.add_argument("--subnets", default="", help="existing subnets, separated by commas; else a VPC is made")
    parser.add_argument("--security-groups", default="")
    parser.add_argument("--no-network", action="store_true", help="no VPC: bridges are reached over the internet")
    parser.add_argument("--vpc-cidr", default="")
    parser.add_argument("--bridge-cidr", default="")
    parser.add_argument("--bridge-port", default="")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Deploy; 0 when the API serves."""
    if platform.python_implementation() != "CPython":
        print("moorage: deploy with CPython: Lambda runs that", file=sys.stderr)
        return 1
    try:
        url = deploy(boto3.Session(), _parse(arguments))
    except (DeployError, stack.StackError, packages.PackagesError, BotoCoreError, ClientError) as exc:
        print(f"moorage: {exc}", file=sys.stderr)
        return 1
    say(f"The API answers at {url}")
    say("Next: a custom domain name, the CA and the bridges: docs/deploying-to-aws.md")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
