"""`make conformance`: run the tests against other people's programs, and all of what `make test` tries a sample of.

Go, Java and DynamoDB Local are found or fetched.

SOAK                          fifty blocked readers, alone: each change must reach each of fifty processes in time
tests/conformance             clients and plugins in other languages, csi-sanity
EXHAUSTIVE, --many            more examples of claims in any order; every death of a process under every delivery of its
                              message; every error of every step; every interleaving of writers and readers; a kill of
                              each process of a local system; every step left out of docs/adding-*.md; the large
                              scenarios of who owns a storage
tests/store, CLAIMS, --many,  the store's own tests, and 200 examples of claims, on DynamoDB Local; beside the others,
  --against=local             since both wait for servers
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from infra.local import dynamodb_local, environments, say, toolchains
from infra.local.settings import tool_environment

WITHIN: Final = 45 * 60
"""Seconds that each run may take."""
CLAIMS: Final = "tests/property/test_claim_system.py"
EXHAUSTIVE: Final = (
    "tests/property",
    "tests/operations/test_faults.py",
    "tests/operations/test_steps.py",
    "tests/operations/test_throttling.py",
    "tests/storages",
    "tests/e2e/test_durability.py",
    "tests/blocking/test_explorer.py",
    "tests/blocking/test_lists.py",
    "tests/docs/test_adding.py",
)
SOAK: Final = "tests/conformance/test_soak_blocking.py"
SHOWN: Final = ("--durations=10", "--dist", "loadgroup")


def main(arguments: Sequence[str]) -> int:
    """Run all, and return 0 when each passed and none was empty."""
    try:
        go = toolchains.find(toolchains.GO)
        java = toolchains.find(toolchains.JAVA)
        # With bytecode, even if the shell switches it off: else each process compiles every test again.
        environment = tool_environment(go, java, PYTHONDONTWRITEBYTECODE="")
        soak = [SOAK, "--many", *SHOWN, *arguments]
        codes = [_wait(soak, _start(soak, environment, None))]
        with tempfile.TemporaryDirectory() as folder, dynamodb_local.running(Path(folder)) as url:
            on_dynamodb = {**environment, "DYNAMODB_LOCAL_URL": url}
            stores = ["-n", "2", "tests/store", CLAIMS, "--many", "--against=local", *SHOWN, *arguments]
            others = ["-n", "4", "tests/conformance", f"--ignore={SOAK}", *EXHAUSTIVE, "--many", *SHOWN, *arguments]
            with (Path(folder) / "stores.log").open("w+") as log:
                beside = _start(stores, on_dynamodb, log)
                try:
                    codes.append(_wait(others, _start(others, environment, None)))
                    codes.append(_wait(stores, beside))
                finally:
                    beside.kill()
                log.seek(0)
                say.line(log.read())
    except say.Trouble as exc:
        say.trouble(str(exc))
        return 1
    return max(codes)


def _start(arguments: list[str], environment: dict[str, str], log: IO[str] | None) -> subprocess.Popen[bytes]:
    say.line(f"pytest {' '.join(arguments)}")
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.Popen(command, cwd=environments.ROOT, env=environment, stdout=log, stderr=log)


def _wait(arguments: list[str], process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(WITHIN)
    except subprocess.TimeoutExpired as exc:
        process.kill()
        raise say.Trouble(f"pytest {' '.join(arguments)} took longer than {WITHIN // 60} minutes") from exc


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
