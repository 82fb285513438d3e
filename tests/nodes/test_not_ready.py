"""What a request is told while a plugin's controller has not registered yet: that it is not there now, never that the
plugin has none. Terraform and its like repeat the one and give up at the other.
"""

from typing import Any

import pytest

from tests.clients.terraform import gives_up_at
from tests.harness import System, definition
from tests.nodes.bridges import Authority, Bridge, plugin

UNHEARD: dict[str, Any] = {
    "Healthy": False,
    "HealthDescription": "has not answered yet",
    "Provider": "",
    "ProviderVersion": "",
    "ControllerCapabilities": [],
    "NodeCapabilities": [],
    "PluginCapabilities": [],
    "Controller": False,
    "Node": False,
}
"""What a bridge says of a plugin that it started before: nothing is known of it."""
NODE_HALF: dict[str, Any] = {"Controller": False, "ControllerCapabilities": []}
"""The plugin says that it has a controller; that is a process elsewhere."""
NODE_ONLY = NODE_HALF | {"PluginCapabilities": []}


def create(system: System, **fields: Any) -> str:
    """The text of a create's refusal."""
    reply = system.call("PUT", "/v1/volume/csi/data/create", definition(**fields))
    assert reply.status == 500
    return reply.body


@pytest.mark.parametrize("said", [UNHEARD, NODE_HALF], ids=["not answered yet", "the node's half"])
def test_a_create_before_the_controller_registered_is_refused_for_now(
    empty: System, authority: Authority, said: dict[str, Any]
) -> None:
    bridge = authority.bridge("n1", plugin("directory", **said))
    assert bridge.beat().status == 200
    text = create(empty)
    assert text == "no healthy controllers for CSI plugin: directory"
    assert not gives_up_at(text)

    assert authority.bridge("c1").beat().status == 200
    assert empty.call("PUT", "/v1/volume/csi/data/create", definition()).status == 200


def test_a_plugin_that_answered_without_a_controller_has_none(empty: System, authority: Authority) -> None:
    """As recorded; a bridge that was restarted and has not heard the plugin yet does not change it."""
    bridge = authority.bridge("n1", plugin("directory", **NODE_ONLY))
    bridge.beat()
    assert create(empty) == "plugin has no controller"
    authority.bridge("n2", plugin("directory", **UNHEARD)).beat()
    assert create(empty) == "plugin has no controller"


@pytest.fixture
def restarted(empty: System, authority: Authority) -> Bridge:
    """A volume, and a bridge that was restarted before its plugin was."""
    empty.add_plugin("other")
    bridge = authority.bridge("n1")
    bridge.beat()
    made = empty.call("PUT", "/v1/volume/csi/data/create", definition(RequestedCapacityMin=1024))
    assert made.status == 200, made.body
    bridge.restart()
    bridge.plugins = [plugin("directory", **UNHEARD)]
    assert bridge.beat().status == 200
    return bridge


def test_a_plugin_is_still_what_it_was_while_a_restarted_bridge_has_not_heard_it(
    empty: System, restarted: Bridge
) -> None:
    shown = empty.call("GET", "/v1/plugin/csi/directory").json
    assert (shown["Provider"], shown["ControllerRequired"], shown["ControllersHealthy"]) == (
        "directory.csi.moorage", True, 0,
    )  # fmt: skip
    assert create(empty, ID="new", Name="new") == "no healthy controllers for CSI plugin: directory"
    gone = empty.call("DELETE", "/v1/volume/csi/data/delete")
    assert gone.body == 'controller delete volume: failed to find instances of controller plugin "directory"'


def test_a_delete_before_the_controller_registered_is_refused_for_now(empty: System, authority: Authority) -> None:
    capability = {"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}
    known = {"ID": "data", "Name": "data", "PluginID": "directory", "ExternalID": "vol"}
    authority.bridge("n1", plugin("directory", **UNHEARD)).beat()
    body = {"Volumes": [known | {"RequestedCapabilities": [capability]}]}
    assert empty.call("PUT", "/v1/volume/csi/data", body).status == 200
    gone = empty.call("DELETE", "/v1/volume/csi/data/delete")
    assert gone.body == 'controller delete volume: failed to find instances of controller plugin "directory"'


@pytest.mark.parametrize("said", [UNHEARD, NODE_HALF], ids=["not answered yet", "the node's half"])
def test_an_expansion_before_the_controller_registered_is_refused_for_now(
    empty: System, authority: Authority, said: dict[str, Any]
) -> None:
    capability = {"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}
    volume = {"ID": "data", "Name": "data", "PluginID": "directory", "ExternalID": "vol"}
    volume["RequestedCapabilities"] = [capability]  # type: ignore[assignment]
    authority.bridge("n1", plugin("directory", **UNHEARD)).beat()
    assert empty.call("PUT", "/v1/volume/csi/data", {"Volumes": [volume]}).status == 200
    authority.bridge("n2", plugin("directory", **said)).beat()
    larger = {"Volumes": [volume | {"RequestedCapacityMin": 2048}]}
    for path in ("/v1/volume/csi/data/create", "/v1/volume/csi/data"):
        reply = empty.call("PUT", path, larger)
        assert (reply.status, "no healthy controllers for CSI plugin: directory" in reply.body) == (500, True)
        assert not gives_up_at(reply.body)
