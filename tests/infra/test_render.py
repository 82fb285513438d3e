"""The Chalice project that a deploy renders, and Chalice's own reading of it."""

import json
from pathlib import Path
from typing import Any

import boto3
from botocore.stub import Stubber

from infra.deploy import render
from infra.deploy.__main__ import waiting_readers_limit
from tests.infra.chalices_reading import resources

PLACE = render.Place(stage="blue", region="eu-central-1", account="1", key_arn="arn:aws:kms:eu-central-1:1:key/k")
NETWORK = render.Options(variables={"MOORAGE_WAIT_SECONDS": "5"}, subnets=("s-1", "s-2"), security_groups=("sg-1",))


def rendered_config(folder: Path) -> dict[str, Any]:
    render.project(folder, PLACE, NETWORK)
    config: dict[str, Any] = json.loads((folder / ".chalice" / "config.json").read_text())
    return config


def test_the_rendered_stage_carries_its_name_and_variables(tmp_path: Path) -> None:
    stages = rendered_config(tmp_path)["stages"]
    assert stages["blue"]["environment_variables"] == {
        "MOORAGE_STAGE": "blue",
        "MOORAGE_KEY_ARN": PLACE.key_arn,
        "MOORAGE_WAIT_SECONDS": "5",
    }
    assert list(stages) == ["blue"]


def test_what_the_tree_sets_for_a_stage_goes_before_what_a_deploy_works_out() -> None:
    committed = {"stages": {"blue": {"environment_variables": {"MOORAGE_MAX_WAITS": "7", "MOORAGE_STAGE": "red"}}}}
    options = render.Options(variables={"MOORAGE_MAX_WAITS": "500", "MOORAGE_WAIT_SECONDS": "5"})
    assert render.config(committed, PLACE, options)["stages"]["blue"]["environment_variables"] == {
        "MOORAGE_MAX_WAITS": "7",
        "MOORAGE_WAIT_SECONDS": "5",
        "MOORAGE_STAGE": "blue",
        "MOORAGE_KEY_ARN": PLACE.key_arn,
    }


def test_half_of_what_an_account_may_run_may_wait() -> None:
    """A new account may run ten functions at once."""
    lambda_ = boto3.client("lambda", region_name="eu-central-1")
    with Stubber(lambda_) as stubber:
        for limit, waits in ((10, 5), (1000, 500), (1, 0)):
            stubber.add_response("get_account_settings", {"AccountLimit": {"UnreservedConcurrentExecutions": limit}})
            assert waiting_readers_limit(lambda_) == waits


def test_only_the_functions_that_call_bridges_go_into_the_subnets(tmp_path: Path) -> None:
    functions = rendered_config(tmp_path)["stages"]["blue"]["lambda_functions"]
    network = {"subnet_ids": ["s-1", "s-2"], "security_group_ids": ["sg-1"]}
    assert functions == {"run_operation": network, "ask_plugin": network}


def test_a_second_rendering_leaves_out_what_the_tree_no_longer_has(tmp_path: Path) -> None:
    render.project(tmp_path, PLACE, NETWORK)
    (tmp_path / "chalicelib" / "gone.py").write_text("")
    render.project(tmp_path, PLACE, NETWORK)
    assert not (tmp_path / "chalicelib" / "gone.py").exists()
    assert (tmp_path / "chalicelib" / "settings.py").exists()


def test_chalice_packages_the_rendered_project_for_aws(tmp_path: Path) -> None:
    render.project(tmp_path, PLACE, NETWORK)
    made = resources(tmp_path, "blue")
    functions = {name: r["Properties"] for name, r in made.items() if r["Type"] == "AWS::Serverless::Function"}
    assert len(functions) == 6
    assert {name for name, properties in functions.items() if "VpcConfig" in properties} == {
        "RunOperation",
        "AskPlugin",
    }
    assert functions["RunOperation"]["Events"]["RunOperationSqsEventSource"]["Properties"]["BatchSize"] == 1
    assert all(properties["Tracing"] == "Active" for properties in functions.values())
