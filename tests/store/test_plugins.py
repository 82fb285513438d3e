"""Plugins: counts equal the instances after whatever changed them, however many nodes register at once."""

from dataclasses import replace

import pytest

from chalicelib.domain.plugin import Instance, Node
from chalicelib.errors import WriteConflict
from chalicelib.store import plugins
from chalicelib.store.index import PLUGINS
from chalicelib.store.stores import Stores
from tests.store.conftest import together

NOW = 1_800_000_000.0
SOME = Instance(
    plugin_id="directory",
    node_id="node-a",
    address="127.0.0.1:1",
    healthy=True,
    provider="csi",
    provider_version="1",
    controller=True,
    node=True,
    controller_capabilities=frozenset({"CREATE_DELETE_VOLUME", "LIST_VOLUMES"}),
    topology={"zone": "a"},
    deadlines={"CreateVolume": 30.0},
    grace=2.5,
    update_time=7,
)
NODE = Node(
    id="node-a",
    name="a",
    address="127.0.0.1:1",
    key="k",
    instance_id="i-1",
    sequence=3,
    seen_at=NOW,
    plugin_ids=("directory",),
    bridge_version="1",
    certificate_pem="pem",
    create_index=2,
    modify_index=2,
)


def change(stores: Stores, node_id: str, instance: Instance | None) -> int:
    return stores.plugins.change("directory", node_id, instance, now=NOW)


def counts(stores: Stores) -> tuple[int, ...]:
    """What the record says, after a comparison with the instances themselves."""
    plugin = stores.plugins.get("directory")
    instances = stores.plugins.instances("directory")
    assert plugin is not None
    said = (
        plugin.instances,
        plugin.controllers_expected,
        plugin.controllers_healthy,
        plugin.nodes_expected,
        plugin.nodes_healthy,
    )
    assert said == (
        len(instances),
        sum(i.controller for i in instances),
        sum(i.controller and i.healthy for i in instances),
        sum(i.node for i in instances),
        sum(i.node and i.healthy for i in instances),
    )
    return said


def test_counts_follow_every_change_of_an_instance(stores: Stores) -> None:
    change(stores, "node-a", SOME)
    assert counts(stores) == (1, 1, 1, 1, 1)
    change(stores, "node-b", replace(SOME, node_id="node-b", controller=False))
    assert counts(stores) == (2, 1, 1, 2, 2)
    change(stores, "node-a", replace(SOME, healthy=False))
    assert counts(stores) == (2, 1, 0, 2, 1)
    change(stores, "node-b", replace(SOME, node_id="node-b", node=False))
    assert counts(stores) == (2, 2, 1, 1, 0)
    change(stores, "node-a", None)
    change(stores, "node-b", None)
    assert counts(stores) == (0, 0, 0, 0, 0)


def test_an_instance_comes_back_as_it_went_and_the_plugin_says_what_it_says(stores: Stores) -> None:
    change(stores, "node-a", SOME)

    assert stores.plugins.instance("directory", "node-a") == SOME
    assert stores.plugins.instance("directory", "node-b") is None
    plugin = stores.plugins.get("directory")
    assert plugin is not None
    assert (plugin.provider, plugin.grace, dict(plugin.deadlines)) == ("csi", 2.5, {"CreateVolume": 30.0})
    assert plugin.can("LIST_VOLUMES")


def test_a_change_has_an_index_wakes_the_readers_of_plugins_and_says_nothing_when_nothing_changed(
    stores: Stores,
) -> None:
    index = change(stores, "node-a", SOME)
    published = stores.index.watch().of(PLUGINS)
    again = change(stores, "node-a", replace(SOME, update_time=99))
    gone = change(stores, "node-b", None)

    plugin = stores.plugins.get("directory")
    assert plugin is not None
    assert (plugin.create_index, plugin.modify_index) == (index, index)
    assert published > index
    assert (again, gone) == (0, 0)
    assert stores.index.watch().of(PLUGINS) == published
    assert stores.index.watch().writing == []


def test_counts_equal_the_instances_when_nodes_come_change_and_go_at_once(stores: Stores) -> None:
    def node(number: int) -> int:
        """Come, fail, recover, and, every second one, go; a conflict is tried again, as a bridge does."""
        done = 0
        name = f"node-{number}"
        mine = replace(SOME, node_id=name, controller=number % 3 == 0)
        for wanted in (mine, replace(mine, healthy=False), mine, *([None] if number % 2 else [])):
            for _ in range(50):
                try:
                    change(stores, name, wanted)
                except WriteConflict:
                    continue
                done += 1
                break
        return done

    results = together(*(lambda n=n: node(n) for n in range(6)))

    assert results == [3, 4, 3, 4, 3, 4]
    assert counts(stores) == (3, 1, 1, 3, 3)
    assert stores.index.watch().writing == []


def test_counts_equal_the_instances_when_one_node_is_registered_twice_at_once(stores: Stores) -> None:
    results = together(*(lambda n=n: change(stores, "node-a", replace(SOME, healthy=bool(n % 2))) for n in range(6)))

    assert all(isinstance(result, int | WriteConflict) for result in results), results
    assert counts(stores)[0] == 1


def test_plugins_are_found_by_id_and_prefix_in_order(stores: Stores) -> None:
    for plugin_id in ("nfs", "ebs-2", "ebs-1"):
        instance = replace(SOME, plugin_id=plugin_id)
        stores.plugins.change(plugin_id, "node-a", instance, now=NOW)

    assert [p.id for p in stores.plugins.all()] == ["ebs-1", "ebs-2", "nfs"]
    assert [p.id for p in stores.plugins.all(prefix="ebs")] == ["ebs-1", "ebs-2"]
    assert sorted(stores.plugins.get_many({"nfs", "ebs-1", "nobody"})) == ["ebs-1", "nfs"]
    assert sorted(stores.plugins.get_many({"nfs"})) == ["nfs"]
    assert stores.plugins.get_many({"nobody"}) == {}
    assert stores.plugins.get("nobody") is None


def test_a_node_is_written_by_who_read_it_last(stores: Stores) -> None:
    assert stores.plugins.put_node(NODE, digest="d", read=None)
    assert not stores.plugins.put_node(NODE, digest="d", read=None)
    newer = replace(NODE, sequence=4)
    assert stores.plugins.put_node(newer, digest="e", read=NODE)
    assert not stores.plugins.put_node(replace(NODE, sequence=5), digest="f", read=NODE)

    assert list(stores.plugins.nodes()) == [newer]
    assert stores.plugins.digest("node-a") == "e"
    assert stores.plugins.digest("nobody") == ""


@pytest.mark.parametrize("why", ["older", "another bridge", "marked down", "gone"])
def test_a_heartbeat_of_what_is_not_stored_any_more_changes_nothing(stores: Stores, why: str) -> None:
    stored = {
        "older": replace(NODE, sequence=9),
        "another bridge": replace(NODE, instance_id="i-2"),
        "marked down": replace(NODE, healthy=False),
    }.get(why)
    if stored is not None:
        stores.plugins.put_node(stored, digest="d", read=None)

    assert not stores.plugins.heartbeat(NODE, sequence=4, seen_at=NOW + 30)

    assert stores.plugins.node("node-a") == stored


def test_of_two_heartbeats_at_once_one_counts(stores: Stores) -> None:
    stores.plugins.put_node(NODE, digest="d", read=None)

    results = together(*(lambda: stores.plugins.heartbeat(NODE, sequence=4, seen_at=NOW + 30) for _ in range(5)))

    assert sorted(results) == [False] * 4 + [True]
    assert stores.plugins.node("node-a") == replace(NODE, sequence=4, seen_at=NOW + 30)


def test_a_node_that_registered_anew_is_not_forgotten(stores: Stores) -> None:
    stores.plugins.put_node(replace(NODE, sequence=4), digest="d", read=None)

    assert not stores.dynamo.try_write(plugins.delete_node(NODE))
    assert stores.plugins.node("node-a") is not None
    assert stores.dynamo.try_write(plugins.delete_node(replace(NODE, sequence=4)))
    assert stores.plugins.node("node-a") is None
