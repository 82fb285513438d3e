"""What the templates promise. The emulator drops some of it silently, so it is read here."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chalicelib.domain import deadlines
from infra import stacks

TABLES = ("volumes", "claims", "operations", "plugins", "meta", "acl")
MOORAGE = stacks.load("moorage")
NETWORK = stacks.load("network")


def of_type(template: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [resource for resource in template["Resources"].values() if resource["Type"] == kind]


def table(name: str) -> dict[str, Any]:
    wanted = {"Fn::Sub": f"moorage-${{Stage}}-{name}"}
    found = [r for r in of_type(MOORAGE, "AWS::DynamoDB::Table") if r["Properties"]["TableName"] == wanted]
    assert len(found) == 1
    return found[0]


def queue(name: str) -> dict[str, Any]:
    wanted = {"Fn::Sub": f"moorage-${{Stage}}-{name}"}
    found = [r for r in of_type(MOORAGE, "AWS::SQS::Queue") if r["Properties"]["QueueName"] == wanted]
    assert len(found) == 1
    properties: dict[str, Any] = found[0]["Properties"]
    return properties


@pytest.mark.parametrize("name", ["moorage", "network"])
def test_cfn_lint_finds_nothing(name: str) -> None:
    command = [str(Path(sys.executable).with_name("cfn-lint")), str(stacks.FOLDER / f"{name}.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_there_are_the_six_tables_and_no_other() -> None:
    assert len(of_type(MOORAGE, "AWS::DynamoDB::Table")) == len(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_survives_mistakes(name: str) -> None:
    found = table(name)
    properties = found["Properties"]
    assert found["DeletionPolicy"] == "Retain"
    assert found["UpdateReplacePolicy"] == "Retain"
    assert properties["DeletionProtectionEnabled"] is True
    assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_encrypted_by_the_projects_key_expires_items_and_is_paid_by_request(name: str) -> None:
    properties = table(name)["Properties"]
    key = {"Fn::GetAtt": ["Key", "Arn"]}
    assert properties["SSESpecification"] == {"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": key}
    assert properties["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    assert properties["BillingMode"] == "PAY_PER_REQUEST"
    assert properties["KeySchema"] == [
        {"AttributeName": "pk", "KeyType": "HASH"},
        {"AttributeName": "sk", "KeyType": "RANGE"},
    ]


def test_only_operations_have_an_index_and_it_finds_what_is_due() -> None:
    assert [name for name in TABLES if "GlobalSecondaryIndexes" in table(name)["Properties"]] == ["operations"]
    properties = table("operations")["Properties"]
    assert properties["GlobalSecondaryIndexes"] == [
        {
            "IndexName": "due",
            "KeySchema": [
                {"AttributeName": "due_bucket", "KeyType": "HASH"},
                {"AttributeName": "due_at", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "ALL"},
        }
    ]
    assert {"AttributeName": "due_at", "AttributeType": "N"} in properties["AttributeDefinitions"]


def test_a_message_stays_hidden_longer_than_its_worker_may_run() -> None:
    operations = queue("operations")
    assert operations["VisibilityTimeout"] == deadlines.QUEUE_VISIBILITY
    assert operations["VisibilityTimeout"] > deadlines.FUNCTION_TIMEOUT


def test_an_overloaded_queue_does_not_bury_what_no_worker_saw() -> None:
    redrive = queue("operations")["RedrivePolicy"]
    assert redrive["deadLetterTargetArn"] == {"Fn::GetAtt": ["DeadOperations", "Arn"]}
    assert redrive["maxReceiveCount"] >= 50


def test_dead_letters_wait_two_weeks_and_come_from_the_operations_only() -> None:
    dead = queue("operations-dead")
    assert dead["MessageRetentionPeriod"] == 14 * 24 * 3600
    assert dead["RedriveAllowPolicy"]["redrivePermission"] == "byQueue"
    assert dead["RedriveAllowPolicy"]["sourceQueueArns"][0]["Fn::Sub"].endswith(":moorage-${Stage}-operations")


@pytest.mark.parametrize("name", ["operations", "operations-dead"])
def test_queues_are_standard_and_encrypted(name: str) -> None:
    assert queue(name)["SqsManagedSseEnabled"] is True
    assert "FifoQueue" not in queue(name)


def test_the_key_rotates_is_kept_and_has_its_alias() -> None:
    (key,) = of_type(MOORAGE, "AWS::KMS::Key")
    (alias,) = of_type(MOORAGE, "AWS::KMS::Alias")
    assert key["DeletionPolicy"] == key["UpdateReplacePolicy"] == "Retain"
    assert key["Properties"]["EnableKeyRotation"] is True
    assert alias["Properties"] == {"AliasName": {"Fn::Sub": "alias/moorage-${Stage}"}, "TargetKeyId": {"Ref": "Key"}}


def test_the_keys_policy_leaves_it_to_the_account_and_opens_it_through_dynamodb_only() -> None:
    (key,) = of_type(MOORAGE, "AWS::KMS::Key")
    account, dynamodb = key["Properties"]["KeyPolicy"]["Statement"]
    assert account["Principal"] == {"AWS": {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"}}
    assert dynamodb["Principal"] == {"AWS": "*"}
    assert dynamodb["Condition"]["StringEquals"] == {
        "kms:CallerAccount": {"Ref": "AWS::AccountId"},
        "kms:ViaService": {"Fn::Sub": "dynamodb.${AWS::Region}.${AWS::URLSuffix}"},
    }


def test_the_network_has_no_way_to_the_internet() -> None:
    kinds = {resource["Type"] for resource in NETWORK["Resources"].values()}
    assert kinds.isdisjoint({"AWS::EC2::InternetGateway", "AWS::EC2::NatGateway", "AWS::EC2::Route"})
    assert all(r["Properties"]["MapPublicIpOnLaunch"] is False for r in of_type(NETWORK, "AWS::EC2::Subnet"))


def test_the_network_reaches_dynamodb_without_charge_and_kms_by_a_priced_endpoint() -> None:
    endpoints = {r["Properties"]["VpcEndpointType"]: r["Properties"] for r in of_type(NETWORK, "AWS::EC2::VPCEndpoint")}
    assert endpoints["Gateway"]["ServiceName"]["Fn::Sub"].endswith(".dynamodb")
    assert endpoints["Interface"]["ServiceName"]["Fn::Sub"].endswith(".kms")
    assert "USD" in NETWORK["Description"]


def test_workers_reach_bridges_and_nothing_reaches_workers() -> None:
    worker = NETWORK["Resources"]["WorkerSecurityGroup"]["Properties"]
    assert "SecurityGroupIngress" not in worker
    to_bridges = worker["SecurityGroupEgress"][0]
    assert to_bridges["CidrIp"] == {"Ref": "BridgeCidr"}
    assert to_bridges["FromPort"] == to_bridges["ToPort"] == {"Ref": "BridgePort"}
