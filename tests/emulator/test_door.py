"""Who is let in at the emulator: signed requests of this state folder, calls of the API, no web page."""

import http.client
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.exceptions import ClientError

from infra.local.settings import REGION
from tests.emulator.conftest import Running

CALL = "/restapis/abc123/api/_user_request_"


def ask(emulator: Running, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
    """Send one request as it is. Names of headers have _ for -."""
    connection = http.client.HTTPConnection(urlsplit(emulator.settings.endpoint).netloc, timeout=10)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def as_whom(emulator: Running, key: str, secret: str, **more: Any) -> Any:
    endpoint = emulator.settings.endpoint
    session = boto3.Session(aws_access_key_id=key, aws_secret_access_key=secret, region_name=REGION, **more)
    return session.client("dynamodb", endpoint_url=endpoint)


def test_its_own_key_is_let_in(emulator: Running) -> None:
    assert emulator.client("dynamodb").list_tables()["TableNames"] == []
    assert emulator.client("lambda").list_functions()["Functions"] == []
    assert emulator.client("iam").list_roles()["Roles"] == []
    assert emulator.client("sts").get_caller_identity()["Arn"].endswith(":root")


@pytest.mark.parametrize("key", ["test", "000000000000", "123456789012", "AKIAIOSFODNN7EXAMPLE"])
def test_no_other_key_is_let_in_well_known_ones_neither(emulator: Running, key: str) -> None:
    with pytest.raises(ClientError, match="UnrecognizedClientException"):
        as_whom(emulator, key, "test").list_tables()


def test_the_key_without_its_secret_is_not_let_in(emulator: Running) -> None:
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        as_whom(emulator, emulator.settings.key().access_key_id, "guessed").list_tables()


def test_a_body_that_was_changed_on_the_way_is_refused(emulator: Running) -> None:
    client = emulator.client("dynamodb")

    client.meta.events.register("before-send.dynamodb", lambda request, **_: setattr(request, "body", b'{"Limit": 1}'))
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        client.list_tables()


def test_a_session_of_a_role_is_let_in_and_only_with_its_token(emulator: Running) -> None:
    trust = '{"Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}'
    arn = emulator.client("iam").create_role(RoleName="reader", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    held = emulator.client("sts").assume_role(RoleArn=arn, RoleSessionName="reads")["Credentials"]
    key, secret, token = held["AccessKeyId"], held["SecretAccessKey"], held["SessionToken"]
    with pytest.raises(ClientError, match="AccessDenied"):  # let in; the role may do nothing
        as_whom(emulator, key, secret, aws_session_token=token).list_tables()
    with pytest.raises(ClientError, match="UnrecognizedClientException"):
        as_whom(emulator, key, secret).list_tables()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("POST", "/"),
        ("POST", "/?Action=ListRoles"),
        ("GET", "/bucket/key"),
        ("GET", "/restapis"),
        ("POST", "/2015-03-31/functions"),
        ("POST", "/2015-03-31/functions/f/invocations"),
        ("GET", "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=test/20260101/us-east-1/s3/aws4_request"),
        ("POST", "/restapis/abc123/api/_user_request_/../../../../2015-03-31/functions"),
        ("POST", "/restapis/abc123/api/%5Fuser_request_/x"),
        ("OPTIONS", "/"),
    ],
)
def test_what_is_not_signed_is_refused(emulator: Running, method: str, path: str) -> None:
    status, text = ask(emulator, method, path)
    # Only a path below an API that is deployed goes further, and there is none.
    assert status == 403 or (status == 404 and "_user_request_" in path), (status, text)


@pytest.mark.parametrize(
    "path",
    [
        "/_ministack/reset",
        "/_ministack/config",
        "/_ministack/ready",
        "/_ministack/health/../reset",
        "/_localstack/health",
        "/_aws/sqs/messages",
        "/_aws/execute-api/abc123/api/x",
        "/health",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_its_own_paths_are_closed_but_for_health(emulator: Running, method: str, path: str) -> None:
    assert ask(emulator, method, path)[0] == 403
    assert ask(emulator, "GET", "/_ministack/health")[0] == 200
    assert ask(emulator, "POST", "/_ministack/health")[0] == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:8080"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
    ],
)
@pytest.mark.parametrize("path", ["/_ministack/health", f"{CALL}/v1/volumes"])
def test_a_web_page_is_refused(emulator: Running, path: str, headers: dict[str, str], status: int) -> None:
    assert ask(emulator, "GET", path, b"", **headers)[0] == status


def test_the_apis_own_name_is_served_and_no_other(emulator: Running) -> None:
    assert ask(emulator, "GET", f"{CALL}/x", Host=emulator.settings.domain)[0] == 404
    assert ask(emulator, "GET", f"{CALL}/x", Host="api.other.moorage.internal")[0] == 421


def test_a_body_that_is_too_large_is_refused(emulator: Running) -> None:
    connection = http.client.HTTPConnection(urlsplit(emulator.settings.endpoint).netloc, timeout=60)
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", str(200 * 1024 * 1024))
    connection.endheaders()
    piece = bytes(1024 * 1024)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012 - wherever the server hangs up
        for _ in range(200):
            connection.send(piece)
        assert connection.getresponse().status == 413
        raise BrokenPipeError
    connection.close()
