"""A process that runs pytest in one tree again and again: `python lane.py TREE`, a JSON list of arguments on each line.

It imports other people's packages once and forks for each run, so a run costs the imports of the tree alone. It answers
each line with the exit code; what pytest printed is in the file `lane.log` of the tree.
"""

import importlib
import json
import os
import sys
from pathlib import Path

PACKAGES = (
    "boto3", "chalice.app", "hypothesis", "jsonschema", "openapi_spec_validator", "pynamodb.models", "pytest",
    "aws_encryption_sdk", "lark", "yaml", "cryptography.x509", "xdist.plugin", "schemathesis", "grpc",
)  # fmt: skip


def main(tree: Path) -> None:
    os.chdir(tree)
    sys.path[:] = [str(tree), *(path for path in sys.path if "site-packages" in path or "python3" in path)]
    sys.dont_write_bytecode = True  # a file is changed and changed back within a second: no stale bytecode
    for name in PACKAGES:
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            log = os.open(tree / "lane.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(log, 1)
            os.dup2(log, 2)
            pytest = importlib.import_module("pytest")
            os._exit(int(pytest.main(json.loads(line))))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main(Path(sys.argv[1]))
