"""The committed tables are what the Go programs beside this file write: run them again and compare."""

import json
import subprocess
from pathlib import Path

import pytest

from infra.local.settings import tool_environment

HERE = Path(__file__).parent
DATA = HERE.parent / "data"


@pytest.mark.conformance
@pytest.mark.parametrize(("program", "table"), [("gojson", "gojson_cases.json"), ("bexpr", "bexpr_cases.json")])
def test_the_table_is_what_go_says(program: str, table: str) -> None:
    # Go 1.27 has another encoding/json under the same name, with texts of its own; Nomad is built with the one before.
    environment = tool_environment(GOEXPERIMENT="nojsonv2")
    written = subprocess.run(
        ["go", "run", "."], cwd=HERE / program, env=environment, check=True, capture_output=True, timeout=280
    ).stdout
    fresh, committed = json.loads(written), json.loads((DATA / table).read_text("utf-8"))
    for each in (fresh, committed):
        each.pop("go", None)  # any release of Go will do as long as it behaves the same
    assert fresh == committed
