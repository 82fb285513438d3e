"""What a cold start of the API loads: measured in a process of its own, as a function's is."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = (
    "grpc",
    "google.protobuf",
    "aws_encryption_sdk",
    "cryptography",
    "lark",
    "re2",
    "chalicelib.csi",
)


def loaded(module: str) -> set[str]:
    program = f"import json, sys; import {module}; print(json.dumps(sorted(sys.modules)))"
    environment = {"MOORAGE_STAGE": "test", "AWS_DEFAULT_REGION": "us-east-1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_the_api_starts_without_grpc_and_without_cryptography() -> None:
    assert loaded("app") & set(HEAVY) == set()


def test_building_the_apis_services_loads_no_grpc_either() -> None:
    found = loaded("app, chalicelib.wiring as wiring; wiring.deps()")
    assert "boto3" in found
    assert found & set(HEAVY) == set()
