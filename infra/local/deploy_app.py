"""Run Chalice's own deploy against the emulator: `python -m infra.local.deploy_app PROJECT STAGE`.

Two things differ from Chalice's. The emulator has no ImportRestApi and no PutRestApi, so three methods of Chalice's AWS
client bring an API to its swagger by Create and Put calls instead. And Chalice waits for each change of each function,
five seconds at least: here all functions are waited for at the end, together and with short pauses.
"""

import os
import sys
from collections.abc import Mapping
from typing import Any, Final

import botocore.waiter
from chalice.awsclient import TypedAWSClient
from chalice.cli import cli
from chalice.cli.factory import create_botocore_session

from infra.local import clock

Swagger = Mapping[str, Any]

_not_yet_active: Final[set[str]] = set()
METHODS: Final = frozenset({"get", "put", "post", "delete", "head", "patch", "options"})
WAITER_PAUSE: Final = 0.05


class UnsupportedByEmulatorError(Exception):
    """The app uses a feature of API Gateway that this deploy cannot bring to the emulator."""


class _ShortPauses:
    """Replaces `time` in botocore's waiter module."""

    @staticmethod
    def sleep(_seconds: float) -> None:
        clock.sleep(WAITER_PAUSE)


def import_rest_api(self: TypedAWSClient, swagger_document: Swagger, endpoint_type: str) -> str:
    """Create an API that follows `swagger_document`, and return its ID."""
    client = self._client("apigateway")
    api = client.create_rest_api(
        name=swagger_document["info"]["title"],
        endpointConfiguration={"types": [endpoint_type]},
        binaryMediaTypes=swagger_document.get("x-amazon-apigateway-binary-media-types", []),
    )
    _follow(client, api["id"], swagger_document)
    return str(api["id"])


def update_api_from_swagger(self: TypedAWSClient, rest_api_id: str, swagger_document: Swagger) -> None:
    """Make the API `rest_api_id` follow `swagger_document`. What the document does not name is deleted."""
    _follow(self._client("apigateway"), rest_api_id, swagger_document)


def update_rest_api(self: TypedAWSClient, rest_api_id: str, patch_operations: list[dict[str, Any]]) -> None:
    """Update what the emulator can change of an API. It has no types of endpoints."""
    known = [operation for operation in patch_operations if operation["path"] == "/minimumCompressionSize"]
    self._client("apigateway").update_rest_api(restApiId=rest_api_id, patchOperations=known)


def wait_later(self: TypedAWSClient, function_name: str) -> None:
    """Note a changed function instead of waiting for it. All are waited for at the end."""
    del self
    _not_yet_active.add(function_name)


def _wait_now() -> None:
    client = create_botocore_session().create_client("lambda")
    for name in sorted(_not_yet_active):
        client.get_waiter("function_active_v2").wait(FunctionName=name)
        client.get_waiter("function_updated_v2").wait(FunctionName=name)


def _follow(client: Any, api: str, swagger: Swagger) -> None:
    resources = {r["path"]: r for r in client.get_resources(restApiId=api, embed=["methods"], limit=500)["items"]}
    for path in sorted(set(resources) - set(swagger["paths"]) - {"/"}, reverse=True):
        if not any(wanted.startswith(f"{path}/") for wanted in swagger["paths"]):
            client.delete_resource(restApiId=api, resourceId=resources.pop(path)["id"])
    for path, methods in sorted(swagger["paths"].items()):
        resource = _resource(client, api, path, resources)
        existing = resource.get("resourceMethods", {})
        for method in set(existing) - {name.upper() for name in methods}:
            client.delete_method(restApiId=api, resourceId=resource["id"], httpMethod=method)
        for name, description in methods.items():
            _method(client, api, resource, name, description)


def _resource(client: Any, api: str, path: str, resources: dict[str, Any]) -> dict[str, Any]:
    """Return the resource of `path`, after creating it and those above it if there is none."""
    if path not in resources:
        above, _, part = path.rpartition("/")
        parent = _resource(client, api, above or "/", resources)
        resources[path] = client.create_resource(restApiId=api, parentId=parent["id"], pathPart=part)
    found: dict[str, Any] = resources[path]
    return found


def _method(client: Any, api: str, resource: Mapping[str, Any], name: str, description: Swagger) -> None:
    integration = description["x-amazon-apigateway-integration"]
    if name not in METHODS or description.get("security") or integration["type"] != "aws_proxy":
        raise UnsupportedByEmulatorError(
            f"{name} {resource['path']}: only plain methods with a Lambda proxy are deployed here"
        )
    method = name.upper()
    existing = resource.get("resourceMethods", {}).get(method)
    if existing and existing.get("methodIntegration", {}).get("uri") == integration["uri"]:
        return
    place = {"restApiId": api, "resourceId": resource["id"], "httpMethod": method}
    if existing:
        client.delete_method(**place)
    client.put_method(**place, authorizationType="NONE")
    client.put_integration(**place, type="AWS_PROXY", integrationHttpMethod="POST", uri=integration["uri"])


def main(project: str, stage: str) -> None:
    """Deploy the Chalice project in the folder `project` as `stage`."""
    for method in (import_rest_api, update_api_from_swagger, update_rest_api):
        setattr(TypedAWSClient, method.__name__, method)
    setattr(botocore.waiter, "time", _ShortPauses)  # noqa: B010 - a module's attribute, replaced on purpose
    for wait in ("_wait_for_active", "_wait_for_function_update"):
        setattr(TypedAWSClient, wait, wait_later)
    os.chdir(project)
    cli(args=["deploy", "--stage", stage], obj={}, standalone_mode=False)
    _wait_now()


if __name__ == "__main__":
    main(*sys.argv[1:])
