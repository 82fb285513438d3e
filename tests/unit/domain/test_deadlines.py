"""Deadlines fit into each other, and the two files that repeat them say the same."""

import json
from pathlib import Path

import pytest
import yaml

from chalicelib.domain import deadlines
from chalicelib.domain.deadlines import call_seconds, lease_seconds
from chalicelib.plugin_queries.client import READ_TIMEOUT
from chalicelib.plugin_queries.shapes import DEADLINE

ROOT = Path(__file__).parents[3]


def template() -> dict[str, object]:
    class Loader(yaml.SafeLoader):
        """CloudFormation's short forms, as plain values."""

    Loader.add_multi_constructor("!", lambda loader, _suffix, node: None)
    found: dict[str, object] = yaml.load((ROOT / "infra/stacks/moorage.yaml").read_text(), Loader)  # noqa: S506 - a SafeLoader
    return found


@pytest.mark.parametrize("rpc", ["CreateVolume", "DeleteVolume", "CreateSnapshot", "ControllerPublishVolume"])
@pytest.mark.parametrize("asked", [None, 0.0, 1.5, 60, 299, 300, 301, 10**9])
def test_call_lease_function_and_visibility_fit_into_each_other(rpc: str, asked: float | None) -> None:
    call = call_seconds(rpc, {} if asked is None else {rpc: asked})
    assert 0 < call <= deadlines.LONGEST_CALL
    assert call < lease_seconds(call) < deadlines.FUNCTION_TIMEOUT < deadlines.QUEUE_VISIBILITY


def test_defaults_are_a_minute_and_two_for_what_makes_storage() -> None:
    assert (call_seconds("DeleteVolume", {}), call_seconds("CreateVolume", {})) == (60, 120)
    assert call_seconds("CreateSnapshot", {"CreateSnapshot": 7}) == 7


def test_the_functions_have_these_timeouts() -> None:
    functions = json.loads((ROOT / ".chalice/config.json").read_text())["lambda_functions"]
    assert functions["run_operation"]["lambda_timeout"] == deadlines.FUNCTION_TIMEOUT
    assert functions["api_handler"]["lambda_timeout"] == deadlines.API_FUNCTION_TIMEOUT
    assert functions["ask_plugin"]["lambda_timeout"] > DEADLINE


def test_the_queues_have_this_visibility() -> None:
    resources = template()["Resources"]
    assert isinstance(resources, dict)
    queues = [r["Properties"] for r in resources.values() if r["Type"] == "AWS::SQS::Queue"]
    assert {q["VisibilityTimeout"] for q in queues} == {deadlines.QUEUE_VISIBILITY}


def test_a_waiting_request_is_answered_before_the_gateway_gives_up() -> None:
    assert deadlines.WAIT_LIMIT < deadlines.GATEWAY_TIMEOUT < deadlines.API_FUNCTION_TIMEOUT
    assert DEADLINE < READ_TIMEOUT < deadlines.GATEWAY_TIMEOUT
