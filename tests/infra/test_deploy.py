"""`make deploy`: who may call the API is chosen before anything is made, kept by every redeploy, and said at the end.

Everything is real but two ends: AWS is the emulator, and a program stands where `chalice deploy` would be, because the
emulator cannot import an API. It keeps the document that Chalice would import.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from infra.deploy import __main__ as deploying
from infra.deploy import packages, record
from infra.deploy.access import Access
from tests.emulator.conftest import Running

CHALICE = """
import json, pathlib, sys
from tests.infra.chalices_reading import swagger
stage = sys.argv[sys.argv.index("--stage") + 1]
memory = pathlib.Path(".chalice/deployed", f"{stage}.json")
pathlib.Path("imported.json").write_text(json.dumps(swagger(pathlib.Path(), stage)))
pathlib.Path("remembered.json").write_text(memory.read_text() if memory.exists() else "null")
if pathlib.Path("../fails").exists():
    sys.exit("told to fail")
api = {"name": "rest_api", "resource_type": "rest_api", "rest_api_id": "a1", "rest_api_url": "https://a1.example.com/"}
memory.write_text(json.dumps({"resources": [api], "schema_version": "2.0", "backend": "api"}))
"""
NETWORK = "203.0.113.0/24"
CLOSED = f"The API is closed: it serves {NETWORK} alone"
OPEN = "The API is OPEN: anyone on the internet may use it, and it has no ACLs yet; --allow-cidr CIDR closes it"


class Account:
    """An AWS account, and the folder that deploys to it."""

    def __init__(self, build: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.build, self._capsys = build, capsys
        self.session = boto3.Session()
        self.ssm = self.session.client("ssm")

    def deploy(self, *arguments: str, stage: str = "blue") -> tuple[int, str, str]:
        """What `make deploy` answers: the exit code, what it says, and its errors."""
        code = deploying.main(["--stage", stage, "--no-network", *arguments])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def imported(self) -> Any:
        """The policy in the document that API Gateway was given last."""
        document = json.loads((self.build / "blue" / "imported.json").read_text())
        (statement,) = document["x-amazon-apigateway-policy"]["Statement"]
        return statement

    def made(self) -> list[str]:
        """Stacks and parameters that are there."""
        stacks = self.session.client("cloudformation").list_stacks()["StackSummaries"]
        parameters = self.ssm.describe_parameters()["Parameters"]
        there = [stack["StackName"] for stack in stacks if stack["StackStatus"] != "DELETE_COMPLETE"]
        return sorted([*there, *(parameter["Name"] for parameter in parameters)])


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("deploys") / "state")
    yield running
    running.emulator.child.kill()


@pytest.fixture
def account(
    emulator: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Account]:
    program = tmp_path / "deploys.py"
    program.write_text(CHALICE)
    monkeypatch.setenv("PYTHONPATH", str(deploying.ROOT))
    monkeypatch.setattr(deploying, "BUILD", tmp_path / "build")
    monkeypatch.setattr(deploying, "CHALICE", (sys.executable, str(program)))
    monkeypatch.setattr(packages, "for_lambda", lambda folder: folder.mkdir(parents=True, exist_ok=True))
    for name, value in emulator.settings.aws_environment().items():
        monkeypatch.setenv(name, value)
    account = Account(tmp_path / "build", capsys)
    yield account
    for name in account.made():
        if name.startswith("/"):
            account.ssm.delete_parameter(Name=name)
        else:
            account.session.client("cloudformation").delete_stack(StackName=name)
    tables = emulator.client("dynamodb")
    for table in tables.list_tables()["TableNames"]:
        tables.update_table(TableName=table, DeletionProtectionEnabled=False)
        tables.delete_table(TableName=table)


def networks(statement: Any) -> Any:
    return statement["Condition"]["IpAddress"]["aws:SourceIp"]


def test_without_a_choice_nothing_is_made_and_what_to_write_is_said(account: Account) -> None:
    code, _, errors = account.deploy()
    assert code == 1
    assert "say who may call the API" in errors
    assert 'make deploy STAGE=blue ARGS="--allow-cidr 203.0.113.0/24"' in errors
    assert "--open" in errors
    assert account.made() == []
    assert not account.build.exists()


@pytest.mark.parametrize(
    ("stage", "arguments", "words"),
    [
        ("blue", ("--allow-cidr", "203.0.113.7/24"), "has host bits set"),
        ("blue", ("--allow-cidr", "0.0.0.0/0"), "say --open"),
        ("Blue", ("--open",), "STAGE=Blue: A stage is 1 to 20 lower-case letters"),
        ("", ("--open",), "make deploy needs STAGE="),
        ("blue", ("--open", "--subnets", "subnet-1"), "--subnets needs --security-groups"),
    ],
)
def test_bad_input_is_told_in_one_line_before_anything_is_made(
    account: Account, stage: str, arguments: tuple[str, ...], words: str
) -> None:
    code, _, errors = account.deploy(*arguments, stage=stage)
    assert (code, errors.count("\n")) == (1, 1)
    assert words in errors
    assert account.made() == []


def test_open_and_closed_exclude_each_other(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        account.deploy("--open", "--allow-cidr", NETWORK)
    assert ended.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_a_redeploy_keeps_the_networks_until_another_choice_and_says_which_it_is(account: Account) -> None:
    code, said, errors = account.deploy("--allow-cidr", NETWORK)
    assert code == 0, errors
    assert networks(account.imported()) == [NETWORK]
    assert said.splitlines()[-1] == CLOSED
    code, said, _ = account.deploy()
    assert (code, networks(account.imported())) == (0, [NETWORK])
    assert said.splitlines()[-1] == CLOSED
    code, said, _ = account.deploy("--allow-cidr", "198.51.100.1", "--allow-cidr", "2001:db8::/32")
    assert (code, networks(account.imported())) == (0, ["198.51.100.1/32", "2001:db8::/32"])


def test_an_api_that_is_opened_gets_a_policy_for_everyone_and_stays_open(account: Account) -> None:
    account.deploy("--allow-cidr", NETWORK)
    for arguments in (("--open",), ()):
        code, said, errors = account.deploy(*arguments)
        assert code == 0, errors
        assert account.imported()["Effect"] == "Allow"
        assert "Condition" not in account.imported()
        assert said.splitlines()[-1] == OPEN


def test_another_machine_deploys_with_the_same_choice_and_what_chalice_made(account: Account) -> None:
    """The record is in the account: nothing of the first machine's folder is needed."""
    account.deploy("--allow-cidr", NETWORK)
    shutil.rmtree(account.build)
    assert account.deploy()[0] == 0
    assert networks(account.imported()) == [NETWORK]
    remembered = json.loads((account.build / "blue" / "remembered.json").read_text())
    assert remembered["resources"][0]["rest_api_id"] == "a1"


def test_a_record_from_before_there_was_a_choice_is_read_and_asks_for_one(account: Account) -> None:
    chalice = {"resources": [], "schema_version": "2.0", "backend": "api"}
    earlier = json.dumps({"fingerprint": "", "chalice": chalice})
    account.ssm.put_parameter(Name=record.parameter_name("blue"), Value=earlier, Type="String")
    code, _, errors = account.deploy()
    assert (code, "say who may call the API" in errors) == (1, True)
    assert account.made() == [record.parameter_name("blue")]
    assert account.deploy("--allow-cidr", NETWORK)[0] == 0
    assert json.loads((account.build / "blue" / "remembered.json").read_text()) == chalice
    kept = record.load(account.ssm, "blue")
    assert kept is not None
    assert kept.access == Access(networks=(NETWORK,))


def test_a_choice_counts_from_when_it_was_made_also_if_the_deploy_then_fails(account: Account) -> None:
    """Or the repetition, which is asked for, would open again what was to be closed."""
    account.deploy("--open")
    account.build.joinpath("fails").touch()
    code, _, errors = account.deploy("--allow-cidr", NETWORK)
    assert (code, "repeat make deploy" in errors) == (1, True)
    account.build.joinpath("fails").unlink()
    assert account.deploy()[0] == 0
    assert networks(account.imported()) == [NETWORK]
    assert json.loads((account.build / "blue" / "remembered.json").read_text())["resources"][0]["rest_api_id"] == "a1"


def test_a_first_deploy_that_fails_leaves_chalice_no_memory_of_what_it_never_made(account: Account) -> None:
    account.build.mkdir()
    account.build.joinpath("fails").touch()
    assert account.deploy("--allow-cidr", NETWORK)[0] == 1
    account.build.joinpath("fails").unlink()
    assert account.deploy()[0] == 0
    assert json.loads((account.build / "blue" / "remembered.json").read_text()) is None
