"""`make conformance`: the tests against other people's programs, with Go, Java and DynamoDB Local at hand.

tests/conformance                            clients and plugins in other languages, csi-sanity
tests/property, the fault table, --many      more examples of what `make test` tries a few of; every death of a process
                                             under every delivery of its message
tests/store, tests/property --against=local  the store's own tests, and 200 examples of claims, on DynamoDB Local
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from infra.local import dynamodb_local, environments, say, toolchains
from infra.local.settings import tool_environment

WITHIN: Final = 45 * 60
"""Seconds for each of the runs."""
FAULTS: Final = "tests/operations/test_faults.py"
CLAIMS: Final = "tests/property/test_claim_system.py"
SIDE_BY_SIDE: Final = ("-n", "2", "--dist", "worksteal")


def main(arguments: Sequence[str]) -> int:
    """Run all; 0 when each passed and none was empty."""
    try:
        go = toolchains.find(toolchains.GO)
        java = toolchains.find(toolchains.JAVA)
        environment = tool_environment(go, java)
        codes = [
            _pytest([*where, *arguments], environment)
            for where in (["tests/conformance"], [*SIDE_BY_SIDE, "tests/property", FAULTS, "--many"])
        ]
        with tempfile.TemporaryDirectory() as folder, dynamodb_local.running(Path(folder)) as url:
            where = [*SIDE_BY_SIDE, "tests/store", CLAIMS, "--many", "--against=local"]
            codes.append(_pytest([*where, *arguments], {**environment, "DYNAMODB_LOCAL_URL": url}))
    except say.Trouble as exc:
        say.trouble(str(exc))
        return 1
    return max(codes)


def _pytest(arguments: list[str], environment: dict[str, str]) -> int:
    say.line(f"pytest {' '.join(arguments)}")
    command = [sys.executable, "-m", "pytest", *arguments]
    try:
        return subprocess.run(command, cwd=environments.ROOT, env=environment, timeout=WITHIN, check=False).returncode
    except subprocess.TimeoutExpired as exc:
        raise say.Trouble(f"pytest {arguments[0]} took longer than {WITHIN // 60} minutes") from exc


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
