"""What Chalice makes of a project, by its own command line and without AWS."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def resources(project: Path, stage: str) -> dict[str, Any]:
    """What `chalice package` would make: it reads config, policies and app as `chalice deploy` does."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("chalice")), "package", "--stage", stage, folder]
        environment = {"PATH": os.defpath, "HOME": folder, "AWS_DEFAULT_REGION": "eu-central-1"}
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(Path(folder, "sam.json").read_text())["Resources"]
    return found


def swagger(project: Path, stage: str) -> dict[str, Any]:
    """The document that API Gateway imports."""
    (api,) = (r for r in resources(project, stage).values() if r["Type"] == "AWS::Serverless::Api")
    document: dict[str, Any] = api["Properties"]["DefinitionBody"]
    return document
