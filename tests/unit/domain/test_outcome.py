"""The table of outcomes: every RPC with every gRPC code, and that there is only one."""

import ast
from pathlib import Path
from typing import Final

import grpc
import pytest

from chalicelib import operations
from chalicelib.csi.spec import csi_pb2
from chalicelib.domain.outcome import GO_NAMES, PROOF, Outcome, is_answer, outcome, proves

SERVICES: Final = csi_pb2.DESCRIPTOR.services_by_name
RPCS: Final = sorted(method.name for service in SERVICES.values() for method in service.methods)
CODES: Final = sorted(code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK)

R, D, G = Outcome.REJECTED, Outcome.IN_DOUBT, Outcome.GONE
EVERYWHERE: Final = {
    "ABORTED": D,
    "ALREADY_EXISTS": R,
    "CANCELLED": D,
    "DATA_LOSS": R,
    "DEADLINE_EXCEEDED": D,
    "FAILED_PRECONDITION": R,
    "INTERNAL": R,
    "INVALID_ARGUMENT": R,
    "NOT_FOUND": R,
    "OUT_OF_RANGE": R,
    "PERMISSION_DENIED": R,
    "RESOURCE_EXHAUSTED": R,
    "UNAUTHENTICATED": R,
    "UNAVAILABLE": D,
    "UNIMPLEMENTED": R,
    "UNKNOWN": R,
}
BUT: Final = {
    ("ControllerPublishVolume", "RESOURCE_EXHAUSTED"): D,
    ("ControllerUnpublishVolume", "RESOURCE_EXHAUSTED"): D,
    ("ControllerUnpublishVolume", "NOT_FOUND"): G,
    ("DeleteSnapshot", "NOT_FOUND"): G,
    ("DeleteVolume", "NOT_FOUND"): G,
    ("NodeUnpublishVolume", "NOT_FOUND"): G,
    ("NodeUnstageVolume", "NOT_FOUND"): G,
}


def test_grpc_has_these_codes() -> None:
    assert sorted(EVERYWHERE) == CODES
    assert sorted(GO_NAMES) == sorted([*CODES, "OK"])
    assert {rpc for rpc, _ in BUT} | set(PROOF) <= set(RPCS)


@pytest.mark.parametrize("rpc", RPCS)
@pytest.mark.parametrize("code", CODES)
def test_every_rpc_and_code_has_an_outcome(rpc: str, code: str) -> None:
    assert outcome(rpc, code) is BUT.get((rpc, code), EVERYWHERE[code])


@pytest.mark.parametrize("rpc", RPCS)
@pytest.mark.parametrize("code", ["", "16", "SOMETHING_NEW"])
def test_a_code_that_nobody_knows_is_in_doubt(rpc: str, code: str) -> None:
    assert outcome(rpc, code) is D
    assert not proves(rpc, code)


@pytest.mark.parametrize("rpc", RPCS)
def test_only_a_final_answer_of_the_plugin_proves_something(rpc: str) -> None:
    """What may have come from a transport, or from somebody who may not look, proves nothing."""
    for code in CODES:
        if proves(rpc, code):
            assert outcome(rpc, code) is R
            assert is_answer(code)
            assert code not in ("PERMISSION_DENIED", "UNAUTHENTICATED", "ALREADY_EXISTS", "INTERNAL", "UNKNOWN")


@pytest.mark.parametrize("rpc", ["CreateVolume", "DeleteVolume"])
@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "OUT_OF_RANGE", "UNIMPLEMENTED"])
def test_what_the_protocols_name_as_proof_is_one(rpc: str, code: str) -> None:
    assert proves(rpc, code)


@pytest.mark.parametrize("module", sorted(Path(operations.__path__[0]).glob("*.py")), ids=lambda path: path.stem)
def test_no_operation_has_a_table_of_its_own(module: Path) -> None:
    words = {node.value for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Constant)}
    assert not words & (GO_NAMES.keys() - {"UNAVAILABLE"}), "ask chalicelib/domain/outcome.py"
