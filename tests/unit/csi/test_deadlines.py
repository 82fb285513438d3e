"""Every RPC of CSI has one deadline; an operator sets each at the bridge, no further than the worker goes."""

from typing import Final

import pytest

from chalicelib.csi.spec import csi_pb2
from chalicelib.domain import deadlines
from moorage.bridge import settings as bridge

RPCS: Final = sorted(
    method.name for service in csi_pb2.DESCRIPTOR.services_by_name.values() for method in service.methods
)
TWO_MINUTES: Final = {"CreateVolume", "CreateSnapshot"}


@pytest.mark.parametrize("rpc", RPCS)
def test_every_rpc_has_a_deadline_and_a_plugin_may_have_its_own(rpc: str) -> None:
    assert deadlines.call_seconds(rpc, {}) == (120 if rpc in TWO_MINUTES else 60)
    assert deadlines.call_seconds(rpc, {rpc: 7}) == 7
    assert deadlines.call_seconds(rpc, {"Another": 7}) == deadlines.call_seconds(rpc, {})
    assert deadlines.call_seconds(rpc, {rpc: 10**6}) == deadlines.LONGEST_CALL


def test_the_bridge_knows_the_same_rpcs_and_limit() -> None:
    assert sorted(bridge.RPCS) == RPCS
    assert bridge.LONGEST_DEADLINE == deadlines.LONGEST_CALL


def test_the_bridge_s_option_ends_up_as_the_plugin_s_deadline() -> None:
    found = bridge.parse_plugins(("p=unix:///s",), (), ("p:CreateVolume=300", "p:NodeStageVolume=1"), ())
    assert found[0].deadlines == {"CreateVolume": 300, "NodeStageVolume": 1}
    assert deadlines.call_seconds("CreateVolume", found[0].deadlines) == 300
    with pytest.raises(bridge.BadSetting, match="is no RPC of CSI"):
        bridge.parse_plugins(("p=unix:///s",), (), ("p:MakeVolume=3",), ())
    with pytest.raises(bridge.BadSetting, match="1 to 300"):
        bridge.parse_plugins(("p=unix:///s",), (), ("p:CreateVolume=301",), ())
