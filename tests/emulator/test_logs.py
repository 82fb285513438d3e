"""What functions print goes to a file. A file that cannot be written does not make a function fail."""

import io
import shutil
import zipfile
from typing import Any

from tests.e2e.api import wait_for
from tests.emulator.conftest import Running

TRUST = '{"Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}'


def make_function(emulator: Running, name: str) -> Any:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("f.py", "def handle(event, context):\n    print('said', event)\n    return event\n")
    role = emulator.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
    client = emulator.client("lambda")
    client.create_function(
        FunctionName=name, Runtime="python3.11", Role=role, Handler="f.handle", Code={"ZipFile": packed.getvalue()}
    )
    return client


def test_what_a_function_prints_is_written_or_left_out(emulator: Running) -> None:
    client = make_function(emulator, "speaks")
    log = emulator.settings.logs / "functions.log"
    for payload in (b"1", b"2"):
        answer = client.invoke(FunctionName="speaks", Payload=payload)
        assert "FunctionError" not in answer
        assert answer["Payload"].read() == payload
        if payload == b"1":
            wait_for(lambda: log.read_text().endswith(" speaks said 1\n"))
            shutil.rmtree(log.parent)  # as on a full disk: it cannot be opened
    assert not log.exists()
