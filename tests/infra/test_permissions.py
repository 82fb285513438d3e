"""Each function may do what docs/interfaces.md, section 2, says, and nothing else."""

import json
from typing import Any

import pytest

from chalicelib.domain import deadlines
from infra.deploy import render

CHALICE = render.ROOT / ".chalice"
CONFIG: dict[str, Any] = json.loads((CHALICE / "config.json").read_text())
PLACE = render.Place(
    stage="blue",
    region="eu-central-1",
    account="123456789012",
    key_arn="arn:aws:kms:eu-central-1:123456789012:key/k",
)
CHANGES = ("BatchGetItem", "ConditionCheckItem", "DeleteItem", "GetItem", "PutItem", "Query", "UpdateItem")
RECEIVE = ("sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage")
SEND = ("sqs:GetQueueUrl", "sqs:SendMessage")
NETWORK = frozenset(
    f"ec2:{action}"
    for action in (
        "AssignPrivateIpAddresses",
        "CreateNetworkInterface",
        "DeleteNetworkInterface",
        "DescribeNetworkInterfaces",
        "UnassignPrivateIpAddresses",
    )
)
TRACES = frozenset({"xray:PutTelemetryRecords", "xray:PutTraceSegments"})
LOGS = frozenset({"logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"})


def tables(names: str, actions: tuple[str, ...]) -> set[tuple[str, str]]:
    return {(f"dynamodb:{action}", f"table/moorage-blue-{name}") for name in names.split() for action in actions}


def on(resource: str, *actions: str) -> set[tuple[str, str]]:
    return {(action, resource) for action in actions}


MAY: dict[str, set[tuple[str, str]]] = {
    "api_handler": tables("volumes claims operations plugins meta acl", CHANGES)
    | on("moorage-blue-operations", *SEND)
    | on("key/k", "kms:GenerateDataKey")
    | on("function:moorage-blue-ask_plugin", "lambda:InvokeFunction")
    | on("function:moorage-blue-audit_volumes", "lambda:InvokeFunction"),
    "run_operation": tables("volumes claims operations plugins meta", CHANGES)
    | on("key/k", "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey")
    | on("moorage-blue-operations", *RECEIVE),
    "ask_plugin": tables("plugins volumes meta", ("GetItem", "Query")) | on("key/k", "kms:Decrypt", "kms:DescribeKey"),
    "sweep_operations": tables("volumes claims operations plugins meta", CHANGES)
    | on("table/moorage-blue-operations/index/due", "dynamodb:Query")
    | on("moorage-blue-operations", *SEND),
    "audit_volumes": tables("volumes claims operations plugins", ("BatchGetItem", "GetItem", "Query"))
    | tables("meta", ("GetItem", "PutItem"))
    | on("function:moorage-blue-ask_plugin", "lambda:InvokeFunction"),
    "bury_operation": tables("operations meta", ("GetItem", "UpdateItem"))
    | on("moorage-blue-operations-dead", *RECEIVE),
}


def policy_of(function: str) -> dict[str, Any]:
    name = CONFIG["lambda_functions"][function]["iam_policy_file"]
    policy: dict[str, Any] = json.loads((CHALICE / name).read_text())
    return policy


def pairs(policy: dict[str, Any]) -> set[tuple[str, str]]:
    return {(a, r) for s in policy["Statement"] for a in s["Action"] for r in s["Resource"]}


def without_runtime(policy: dict[str, Any]) -> set[tuple[str, str]]:
    """What the function may do beside logs, traces and living in a network: (action, resource after the account)."""
    runtime = LOGS | TRACES | NETWORK
    return {(action, arn.split(":", 5)[5]) for action, arn in pairs(policy) if action not in runtime}


@pytest.mark.parametrize("function", MAY)
def test_a_function_may_do_what_the_table_says_and_nothing_else(function: str) -> None:
    assert without_runtime(render.narrow(policy_of(function), PLACE)) == MAY[function]


@pytest.mark.parametrize("function", MAY)
def test_every_resource_is_of_one_account_region_and_stage(function: str) -> None:
    for action, arn in pairs(render.narrow(policy_of(function), PLACE)):
        if arn == "*":
            assert action in TRACES | NETWORK
        else:
            assert arn.startswith("arn:aws:")
            assert ":eu-central-1:123456789012:" in arn
            assert "*" not in arn.removesuffix(":*")


@pytest.mark.parametrize("function", MAY)
def test_the_committed_policy_allows_the_same_by_names_without_an_account(function: str) -> None:
    committed = policy_of(function)
    assert all(statement["Effect"] == "Allow" for statement in committed["Statement"])
    assert {action for action, _ in pairs(committed)} == {a for a, _ in pairs(render.narrow(committed, PLACE))}
    for statement in committed["Statement"]:
        if any(action.startswith("kms:") for action in statement["Action"]):
            condition = {"ForAnyValue:StringLike": {"kms:ResourceAliases": ["alias/moorage-*"]}}
            assert statement["Condition"] == condition


@pytest.mark.parametrize("function", MAY)
def test_a_function_writes_its_own_log_and_traces(function: str) -> None:
    group = "moorage-blue" if function == "api_handler" else f"moorage-blue-{function}"
    allowed = pairs(render.narrow(policy_of(function), PLACE))
    base = f"arn:aws:logs:eu-central-1:123456789012:log-group:/aws/lambda/{group}"
    assert {(action, arn) for action, arn in allowed if action in LOGS} == {
        (action, arn) for action in LOGS for arn in (base, f"{base}:*")
    }
    assert {action for action, _ in allowed} >= TRACES


@pytest.mark.parametrize("function", MAY)
def test_only_the_functions_that_call_bridges_live_in_the_network(function: str) -> None:
    has = bool({action for action, _ in pairs(policy_of(function))} & NETWORK)
    assert has == (function in render.IN_THE_NETWORK)


def test_the_api_cannot_open_a_sealed_secret() -> None:
    assert not any(a in ("kms:Decrypt", "kms:*") for a, _ in pairs(policy_of("api_handler")))


def test_every_function_of_the_app_is_configured_and_no_other() -> None:
    import app as application

    app = application.app
    declared = {"api_handler"}
    declared |= {source.name for source in app.event_sources} | {f.name for f in app.pure_lambda_functions}
    assert set(CONFIG["lambda_functions"]) == set(MAY) == declared


def test_policies_are_written_by_hand_and_functions_are_traced() -> None:
    assert CONFIG["autogen_policy"] is False
    assert CONFIG["xray"] is True


def test_timeouts_follow_the_deadlines() -> None:
    timeouts = {name: function["lambda_timeout"] for name, function in CONFIG["lambda_functions"].items()}
    assert timeouts["run_operation"] == timeouts["ask_plugin"] == deadlines.FUNCTION_TIMEOUT
    assert timeouts["audit_volumes"] == deadlines.AUDIT_TIMEOUT
    assert timeouts["api_handler"] == deadlines.API_FUNCTION_TIMEOUT


def test_configuration_names_no_account_and_each_stage_names_itself() -> None:
    assert CONFIG["stages"]
    for name, stage in CONFIG["stages"].items():
        assert stage == {"environment_variables": {"MOORAGE_STAGE": name}}
    assert all(p.read_text().count(":*:*:") >= 1 for p in CHALICE.glob("policy-*.json"))
