"""The table of outcomes: every RPC with every gRPC code, and the operations' own sets of what proves something."""

import importlib
import pkgutil
from typing import Any, Final

import grpc
import pytest

from chalicelib import operations
from chalicelib.csi.outcome import GO_NAMES, PROOF, Outcome, is_answer, outcome, proves
from chalicelib.csi.spec import csi_pb2

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
RPC_OF: Final = {
    "create_volume": "CreateVolume",
    "delete_volume": "DeleteVolume",
    "publish_volume": "ControllerPublishVolume",
}
"""Whose codes the sets in the modules of chalicelib/operations speak of."""


def own_sets() -> dict[str, frozenset[str]]:
    """Every `_PROVES_…` of the operations, by module; they keep their own since grpc is none of their business."""
    found: dict[str, frozenset[str]] = {}
    for module in pkgutil.iter_modules(operations.__path__):
        loaded: Any = importlib.import_module(f"{operations.__name__}.{module.name}")
        sets = [value for name, value in vars(loaded).items() if name.startswith("_PROVES")]
        assert len(sets) < 2, f"{module.name} has more than one set: say in this test what each is about"
        if sets:
            found[module.name] = sets[0]
    return found


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


def test_the_operations_go_by_the_same_table() -> None:
    found = own_sets()
    assert {"create_volume", "delete_volume"} <= set(found)
    assert found == {module: PROOF[RPC_OF[module]] for module in found}
