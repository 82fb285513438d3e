"""Create or update one CloudFormation stack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from botocore.exceptions import ClientError, WaiterError

from infra import stacks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import ParameterTypeDef, StackTypeDef
    from mypy_boto3_cloudformation.waiter import StackCreateCompleteWaiter, StackUpdateCompleteWaiter

    _Waiter = StackCreateCompleteWaiter | StackUpdateCompleteWaiter

UNUSABLE: Final = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED", "REVIEW_IN_PROGRESS")


class StackError(Exception):
    """A stack cannot be brought to its template. The text says why, as CloudFormation does, and what to do."""


def apply(
    cloudformation: CloudFormationClient, *, name: str, template: str, parameters: Mapping[str, str]
) -> dict[str, str]:
    """Create the stack `name`, or update it to `template`, and return its outputs.

    Safe to repeat. Raises StackError; the stack is then as CloudFormation left it, rolled back as a rule.
    """
    body = stacks.text(template)
    given: list[ParameterTypeDef] = [{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()]
    existing = find(cloudformation, name)
    if existing is None:
        cloudformation.create_stack(StackName=name, TemplateBody=body, Parameters=given, OnFailure="ROLLBACK")
        _wait(cloudformation, name, cloudformation.get_waiter("stack_create_complete"))
    elif existing["StackStatus"] in UNUSABLE:
        raise StackError(
            f"the stack {name} is in {existing['StackStatus']} and cannot be updated: "
            "look at its events, delete it, and deploy again"
        )
    else:
        try:
            cloudformation.update_stack(StackName=name, TemplateBody=body, Parameters=given)
        except ClientError as exc:
            # CloudFormation has no error code of its own for a stack that is up to date.
            if "No updates are to be performed" not in str(exc):
                raise
        else:
            _wait(cloudformation, name, cloudformation.get_waiter("stack_update_complete"))
    return outputs(cloudformation, name)


def outputs(cloudformation: CloudFormationClient, name: str) -> dict[str, str]:
    """Return the outputs of a stack. Raises StackError if there is none."""
    existing = find(cloudformation, name)
    if existing is None:
        raise StackError(f"there is no stack {name}")
    return {o["OutputKey"]: o["OutputValue"] for o in existing.get("Outputs", [])}


def find(cloudformation: CloudFormationClient, name: str) -> StackTypeDef | None:
    """Return the stack `name`, or None."""
    try:
        found = cloudformation.describe_stacks(StackName=name)["Stacks"]
    except ClientError as exc:
        if exc.response["Error"]["Code"] == "ValidationError" and "does not exist" in str(exc):
            return None
        raise
    return next((s for s in found if s["StackStatus"] != "DELETE_COMPLETE"), None)


def _wait(cloudformation: CloudFormationClient, name: str, waiter: _Waiter) -> None:
    try:
        waiter.wait(StackName=name, WaiterConfig={"Delay": 3, "MaxAttempts": 600})
    except WaiterError as exc:
        events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
        failures = [e for e in events if e.get("ResourceStatus", "").endswith("FAILED")]
        first = failures[-1] if failures else None
        reason = f"{first['LogicalResourceId']}: {first.get('ResourceStatusReason', '')}" if first else str(exc)
        raise StackError(f"CloudFormation could not bring {name} to its template: {reason}") from exc
