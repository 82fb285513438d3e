"""Who owns a storage: several volumes that name one, and what the undo of a create may remove."""

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.operation import Kind, Operation
from chalicelib.domain.storage import Storage
from chalicelib.domain.volume import VolumeState
from chalicelib.errors import PluginInDoubt, PluginRejected
from chalicelib.service import audit
from chalicelib.store import operations as operation_store
from chalicelib.store import volumes as volume_store
from chalicelib.store.commit import Change
from chalicelib.store.index import volume_scope
from chalicelib.sweeps import storages as storage_sweep
from tests.harness import CAPABILITIES, Reply, System, definition
from tests.operations.invariants import all_operations, violations
from tests.operations.script import Script, Strike, tell

WRITER = {"AccessMode": "single-node-writer", "AttachmentMode": "file-system"}
BROKEN = PluginRejected("the disk is broken", code="INTERNAL")


@pytest.fixture
def cluster(system: System) -> System:
    """Two nodes, with a plugin whose volumes need no controller to reach them."""
    for node in ("node-a", "node-b"):
        system.add_node(node)
    return system


def create(system: System, volume_id: str, **fields: Any) -> Reply:
    return system.call("PUT", f"/v1/volume/csi/{volume_id}/create", definition(volume_id, **fields))


def register(system: System, volume_id: str, external_id: str, **fields: Any) -> Reply:
    body = definition(volume_id, ExternalID=external_id, **fields)
    namespace = fields.get("Namespace", "default")
    return system.call("PUT", f"/v1/volume/csi/{volume_id}", body, query=f"namespace={namespace}")


def delete(system: System, volume_id: str, namespace: str = "default") -> Reply:
    return system.call("DELETE", f"/v1/volume/csi/{volume_id}/delete", query=f"namespace={namespace}")


def deregister(system: System, volume_id: str, **query: str) -> Reply:
    text = "&".join(f"{k}={v}" for k, v in query.items())
    return system.call("DELETE", f"/v1/volume/csi/{volume_id}", query=text)


def claim(system: System, volume_id: str, alloc: str, node: str, namespace: str = "default", **paths: str) -> Reply:
    body = {"AllocationID": alloc, "NodeID": node, "Mode": "write"} | paths
    return system.call("PUT", f"/v1/volume/csi/{volume_id}/claim", body, query=f"namespace={namespace}")


def release(system: System, volume_id: str, alloc: str) -> Reply:
    return system.call("DELETE", f"/v1/volume/csi/{volume_id}/claim/{alloc}")


def shown(system: System, volume_id: str) -> Any:
    return system.call("GET", f"/v1/volume/csi/{volume_id}").json


def fails_after_making(system: System) -> str:
    """Begin a create that fails after its effect, and return what the provider has by then."""
    Script({("CreateVolume", 1): Strike(tell(BROKEN), after=True)}).put_into(system.provider)
    system.pumping, answer = True, create(system, "data")
    assert (answer.status, "the disk is broken" in answer.body) == (500, True)
    return next(iter(system.provider.volumes))


# What an undo may remove (docs/protocols.md, 6.8)


def test_an_undo_leaves_what_was_registered_and_claimed_meanwhile(cluster: System) -> None:
    external_id = fails_after_making(cluster)
    assert register(cluster, "adopted", external_id).status == 200
    assert claim(cluster, "adopted", "a", "node-a").status == 200
    cluster.rest()
    assert list(cluster.provider.volumes) == [external_id]
    assert violations(cluster) == []


def test_an_undo_that_is_resumed_after_a_month_leaves_what_was_registered_since(cluster: System) -> None:
    broken = [("CreateVolume", n) for n in range(2, 60)]
    Script(
        {("CreateVolume", 1): Strike(tell(BROKEN), after=True)}
        | {call: Strike(tell(PluginInDoubt("no answer", code="UNAVAILABLE"))) for call in broken}
    ).put_into(cluster.provider)
    assert create(cluster, "data").status == 500
    external_id = next(iter(cluster.provider.volumes))
    for _ in range(600):
        cluster.clock.moment += 700
        cluster.sweep()
        cluster.pump()
    undo = next(o for o in all_operations(cluster) if o.open)
    assert undo.status == "in doubt"
    cluster.provider.before.clear()
    cluster.provider.after.clear()
    cluster.clock.moment += 30 * 24 * 3600
    assert register(cluster, "adopted", external_id).status == 200
    assert cluster.call("PUT", f"/v1/operation/{undo.id}/resume").status == 200
    cluster.rest()
    assert list(cluster.provider.volumes) == [external_id]
    assert violations(cluster) == []


def test_an_undo_leaves_what_was_deregistered_on_purpose(cluster: System) -> None:
    external_id = fails_after_making(cluster)
    assert register(cluster, "adopted", external_id).status == 200
    assert deregister(cluster, "adopted").status == 200
    cluster.rest()
    assert list(cluster.provider.volumes) == [external_id]
    assert violations(cluster) == []


def test_an_undo_leaves_the_share_that_an_earlier_create_made(cluster: System) -> None:
    assert create(cluster, "a", Parameters={"share": "export-1"}).status == 200
    assert claim(cluster, "a", "alloc", "node-a").status == 200
    Script({("CreateVolume", 1): Strike(tell(BROKEN), after=True)}).put_into(cluster.provider)
    assert create(cluster, "b", Parameters={"share": "export-1"}).status == 500
    cluster.rest()
    assert list(cluster.provider.volumes) == ["export-1"]
    assert violations(cluster) == []


def test_an_undo_removes_what_only_its_create_made(cluster: System) -> None:
    fails_after_making(cluster)
    cluster.rest()
    assert cluster.provider.volumes == {}
    assert violations(cluster) == []


# Several volumes that name one storage


def shared(system: System, namespace: str = "default") -> str:
    """Two volumes, `a` and `b`, that name one storage."""
    if namespace != "default":
        assert system.call("PUT", f"/v1/namespace/{namespace}", {"Name": namespace}).status == 200
    assert create(system, "a").status == 200
    external_id = str(shown(system, "a")["ExternalID"])
    assert register(system, "b", external_id, Namespace=namespace).status == 200
    return external_id


@pytest.mark.parametrize("namespace", ["default", "team"])
def test_claims_of_two_volumes_of_one_storage_are_judged_together(cluster: System, namespace: str) -> None:
    shared(cluster, namespace)
    assert claim(cluster, "a", "one", "node-a").status == 200
    refused = claim(cluster, "b", "two", "node-b", namespace=namespace)
    assert (refused.status, refused.body) == (500, "volume max claims reached")
    assert release(cluster, "a", "one").status == 200
    assert claim(cluster, "b", "two", "node-b", namespace=namespace).status == 200
    assert claim(cluster, "a", "one", "node-a").status == 500
    cluster.rest()
    assert violations(cluster) == []


def test_a_claim_from_before_the_second_volume_counts_for_both(cluster: System) -> None:
    assert create(cluster, "a").status == 200
    assert claim(cluster, "a", "one", "node-a").status == 200
    assert register(cluster, "b", shown(cluster, "a")["ExternalID"]).status == 200
    assert claim(cluster, "b", "two", "node-b").status == 500
    assert release(cluster, "a", "one").status == 200
    assert claim(cluster, "b", "two", "node-b").status == 200
    cluster.rest()
    assert violations(cluster) == []


def test_the_data_goes_with_the_last_volume(cluster: System) -> None:
    external_id = shared(cluster)
    assert claim(cluster, "b", "two", "node-b").status == 200
    assert delete(cluster, "a").status == 200
    assert list(cluster.provider.volumes) == [external_id]
    assert cluster.call("GET", "/v1/volume/csi/a").status == 404
    assert delete(cluster, "b").status == 500
    assert release(cluster, "b", "two").status == 200
    assert delete(cluster, "b").status == 200
    assert cluster.provider.volumes == {}
    cluster.rest()
    assert violations(cluster) == []


def test_two_deletes_at_once_leave_nothing(cluster: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """The delete of `b` ends between what the delete of `a` reads and what it writes."""
    shared(cluster)
    get, done = cluster.deps.storages.get, list[Reply]()

    def get_and_wait(*place: str) -> Storage:
        found = get(*place)
        if not done:
            done.append(Reply(0, {}, ""))
            done[0] = delete(cluster, "b")
        return found

    monkeypatch.setattr(cluster.deps.storages, "get", get_and_wait)
    assert delete(cluster, "a").status == 200
    assert [reply.status for reply in done] == [200]
    assert cluster.provider.volumes == {}
    cluster.rest()
    assert violations(cluster) == []


def test_two_creates_that_are_answered_with_one_id_share_it(cluster: System) -> None:
    for volume_id in ("a", "b"):
        assert create(cluster, volume_id, Parameters={"share": "export-1"}).status == 200
    assert claim(cluster, "a", "one", "node-a").status == 200
    assert claim(cluster, "b", "two", "node-b").status == 500
    assert delete(cluster, "b").status == 200
    assert list(cluster.provider.volumes) == ["export-1"]
    assert release(cluster, "a", "one").status == 200
    assert delete(cluster, "a").status == 200
    assert cluster.provider.volumes == {}
    cluster.rest()
    assert violations(cluster) == []


def test_a_read_shows_the_other_volumes_of_the_storage_to_a_client_that_asks(cluster: System) -> None:
    shared(cluster, "team")
    plain = cluster.call("GET", "/v1/volume/csi/a")
    asked = cluster.call("GET", "/v1/volume/csi/a", headers={"Moorage-Extended": "true"})
    assert "Moorage" not in plain.json
    assert asked.json == plain.json | {"Moorage": {"SharedWith": [{"ID": "b", "Namespace": "team"}]}}
    assert deregister(cluster, "a").status == 200
    other = cluster.call("GET", "/v1/volume/csi/b", query="namespace=team", headers={"Moorage-Extended": "true"})
    assert other.json["Moorage"] == {"SharedWith": []}


def test_a_storage_that_is_being_deleted_cannot_be_registered(cluster: System) -> None:
    assert create(cluster, "a").status == 200
    external_id = shown(cluster, "a")["ExternalID"]
    Script({("DeleteVolume", 1): Strike(tell(PluginInDoubt("no answer", code="UNAVAILABLE")))}).put_into(
        cluster.provider
    )
    cluster.pumping = False
    assert delete(cluster, "a").status == 504
    refused = register(cluster, "b", external_id)
    assert refused.status == 409
    assert f"storage {external_id} of plugin directory is being removed by operation" in refused.body
    cluster.pumping = True
    cluster.rest()
    assert cluster.provider.volumes == {}
    assert violations(cluster) == []


def test_what_was_validated_before_a_delete_is_not_registered_after_it(cluster: System) -> None:
    assert create(cluster, "a").status == 200
    external_id = shown(cluster, "a")["ExternalID"]
    answers: list[Reply] = []

    def meanwhile(**_: Any) -> None:
        if not answers:
            answers.append(delete(cluster, "a"))

    cluster.plugin_queries.answers["validate_volume"] = meanwhile
    refused = register(cluster, "b", external_id)
    assert [a.status for a in answers] == [200]
    assert refused.status == 409
    assert refused.body == f"storage {external_id} of plugin directory was removed a moment ago: try again"
    assert int(refused.headers["Retry-After"]) >= 1
    assert violations(cluster) == []


def test_a_create_that_is_answered_with_a_storage_that_leaves_is_made_anew(cluster: System) -> None:
    """The provider answers `b` with the share that the delete of `a` is about to remove."""
    assert create(cluster, "a", Parameters={"share": "export-1"}).status == 200
    script = Script({("CreateVolume", 1): Strike(lambda: answers.append(delete(cluster, "a")), after=True)})
    answers: list[Reply] = []
    script.put_into(cluster.provider)
    assert create(cluster, "b", Parameters={"share": "export-1"}).status in (200, 504)
    cluster.rest()
    assert list(cluster.provider.volumes) == ["export-1"]
    assert shown(cluster, "b")["ExternalID"] == "export-1"
    assert violations(cluster) == []


def test_a_delete_that_is_refused_keeps_the_storage(cluster: System) -> None:
    assert create(cluster, "a").status == 200
    refusal = PluginRejected("still attached", code="FAILED_PRECONDITION")
    Script({("DeleteVolume", 1): Strike(tell(refusal))}).put_into(cluster.provider)
    assert delete(cluster, "a").status == 500
    assert register(cluster, "b", shown(cluster, "a")["ExternalID"]).status == 200
    cluster.rest()
    assert violations(cluster) == []


def test_a_cancelled_delete_keeps_the_storage(cluster: System) -> None:
    assert create(cluster, "a").status == 200
    cluster.pumping = False
    assert delete(cluster, "a").status == 504
    (operation,) = [o for o in all_operations(cluster) if o.open]
    assert cluster.call("DELETE", f"/v1/operation/{operation.id}").status == 200
    assert violations(cluster) == []


def test_claims_of_a_volume_that_was_deregistered_by_force_count_until_they_are_free(cluster: System) -> None:
    external_id = shared(cluster)
    assert claim(cluster, "a", "one", "node-a").status == 200
    cluster.pumping = False
    assert release(cluster, "a", "one").status == 504
    assert deregister(cluster, "a", force="true").status == 200
    assert claim(cluster, "b", "two", "node-b").status == 500
    assert delete(cluster, "b").status == 500
    cluster.pumping = True
    cluster.rest()
    assert claim(cluster, "b", "two", "node-b").status == 200
    assert list(cluster.provider.volumes) == [external_id]
    cluster.rest()
    assert violations(cluster) == []


@pytest.mark.parametrize("attaches", [False, True])
def test_a_release_leaves_the_storage_to_a_claim_of_another_volume_on_the_node(system: System, attaches: bool) -> None:
    extra = frozenset({"PUBLISH_UNPUBLISH_VOLUME"}) if attaches else frozenset[str]()
    system.add_node("node-a", controller_capabilities=CAPABILITIES | extra)
    modes = [{"AccessMode": "multi-node-multi-writer", "AttachmentMode": "file-system"}]
    assert create(system, "a", RequestedCapabilities=modes).status == 200
    external_id = shown(system, "a")["ExternalID"]
    assert register(system, "b", external_id, RequestedCapabilities=modes).status == 200
    paths = {"StagingPath": "/stage", "TargetPath": "/mnt/one"}
    assert claim(system, "a", "one", "node-a", **paths).status == 200
    assert claim(system, "b", "two", "node-a", **paths | {"TargetPath": "/mnt/two"}).status == 200
    assert release(system, "a", "one").status == 200
    assert system.provider.mounted == {(external_id, "node-a", "/stage"), (external_id, "node-a", "/mnt/two")}
    assert system.provider.attached == ({(external_id, "ext-node-a")} if attaches else set())
    assert release(system, "b", "two").status == 200
    assert (system.provider.mounted, system.provider.attached) == (set(), set())
    system.rest()
    assert violations(system) == []


# Volumes of an older version


def of_an_older_version(system: System) -> None:
    """Remove what the older version did not write."""
    client = system.deps.dynamo.client
    for table, prefix in (("volumes", "storage#"), ("meta", "sweep")):
        name = f"moorage-test-{table}"
        for item in client.scan(TableName=name)["Items"]:
            if item["pk"]["S"].startswith(prefix):
                client.delete_item(TableName=name, Key={"pk": item["pk"], "sk": item["sk"]})
    for item in client.scan(TableName="moorage-test-volumes")["Items"]:
        if "shared" in item:
            key = {"pk": item["pk"], "sk": item["sk"]}
            client.update_item(
                TableName="moorage-test-volumes",
                Key=key,
                UpdateExpression="REMOVE #s",
                ExpressionAttributeNames={"#s": "shared"},
            )
    system.deps.storages._upgraded = False
    assert "storage" not in repr(client.scan(TableName="moorage-test-volumes")["Items"])


def upgrade(system: System) -> None:
    """Sweep until the older version cannot run any more, and then once."""
    assert storage_sweep.sweep(system.deps).left
    system.clock.moment += storage_sweep.OLD_CODE
    assert not storage_sweep.sweep(system.deps).left


def test_volumes_of_an_older_version_join_their_storages_at_the_upgrade(cluster: System) -> None:
    external_id = shared(cluster, "team")
    assert claim(cluster, "a", "one", "node-a").status == 200
    of_an_older_version(cluster)
    for refused in (create(cluster, "new"), register(cluster, "c", external_id), delete(cluster, "a")):
        assert (refused.status, refused.headers["Retry-After"]) == (503, "60")
        assert "this stage was upgraded" in refused.body
    upgrade(cluster)
    assert claim(cluster, "b", "two", "node-b", namespace="team").status == 500
    assert release(cluster, "a", "one").status == 200
    assert claim(cluster, "b", "two", "node-b", namespace="team").status == 200
    assert delete(cluster, "a").status == 200
    assert list(cluster.provider.volumes) == [external_id]
    cluster.rest()
    assert violations(cluster) == []


def test_claims_come_and_go_while_a_stage_is_upgraded(cluster: System) -> None:
    assert create(cluster, "a").status == 200
    of_an_older_version(cluster)
    assert claim(cluster, "a", "one", "node-a").status == 200
    upgrade(cluster)
    assert release(cluster, "a", "one").status == 200
    assert delete(cluster, "a").status == 200
    cluster.rest()
    assert violations(cluster) == []


def test_clashing_claims_of_an_older_version_are_counted_and_not_dropped(cluster: System) -> None:
    assert create(cluster, "a").status == 200
    assert create(cluster, "b").status == 200
    for volume_id, node in (("a", "node-a"), ("b", "node-b")):
        assert claim(cluster, volume_id, "alloc", node).status == 200
    name_one_storage(cluster, "a", "b")
    of_an_older_version(cluster)
    upgrade(cluster)
    cluster.use(cluster.context.calls)
    assert audit.run(cluster.deps, "directory", "run").counts["volume clash"] == 1
    assert release(cluster, "a", "alloc").status == 200
    assert claim(cluster, "a", "again", "node-a").status == 500
    assert release(cluster, "b", "alloc").status == 200
    assert claim(cluster, "a", "again", "node-a").status == 200


@pytest.mark.parametrize("shared_storage", [False, True])
def test_a_delete_of_an_older_version_goes_on_after_the_upgrade(cluster: System, shared_storage: bool) -> None:
    assert create(cluster, "a").status == 200
    external_id = shown(cluster, "a")["ExternalID"]
    if shared_storage:
        assert register(cluster, "b", external_id).status == 200
        of_an_older_version(cluster)
        begin_delete_as_the_older_version(cluster, "a")
    else:
        cluster.pumping = False
        assert delete(cluster, "a").status == 504
        of_an_older_version(cluster)
        cluster.pumping = True
    cluster.rest(2)
    assert list(cluster.provider.volumes) == [external_id], "a worker waits for the upgrade"
    upgrade(cluster)
    cluster.rest()
    assert list(cluster.provider.volumes) == ([external_id] if shared_storage else [])
    assert cluster.call("GET", "/v1/volume/csi/a").status == 404
    assert violations(cluster) == []


def test_a_delete_of_an_older_version_for_a_shared_storage_cannot_be_cancelled(cluster: System) -> None:
    """It would be a ready volume that its storage does not name, and so lose its data."""
    external_id = shared(cluster)
    of_an_older_version(cluster)
    begin_delete_as_the_older_version(cluster, "a")
    cluster.pumping = False
    assert cluster.call("DELETE", "/v1/operation/" + "z" * 22).status == 503
    upgrade(cluster)
    refused = cluster.call("DELETE", "/v1/operation/" + "z" * 22)
    assert (refused.status, "cannot be cancelled" in refused.body) == (409, True)
    cluster.pumping = True
    cluster.rest()
    assert list(cluster.provider.volumes) == [external_id]
    assert violations(cluster) == []


def test_the_last_of_two_deletes_removes_the_storage_though_an_older_version_began_the_first(cluster: System) -> None:
    shared(cluster)
    of_an_older_version(cluster)
    begin_delete_as_the_older_version(cluster, "a")
    upgrade(cluster)
    cluster.pumping = False
    assert delete(cluster, "b").status == 504
    cluster.pumping = True
    cluster.rest()
    assert cluster.provider.volumes == {}
    assert violations(cluster) == []


def test_a_claim_beside_clashing_ones_is_refused_at_once(cluster: System) -> None:
    modes = [
        {"AccessMode": m, "AttachmentMode": "file-system"} for m in ("single-node-writer", "multi-node-multi-writer")
    ]
    for volume_id, mode in (("a", modes[1]), ("b", modes[0])):
        assert create(cluster, volume_id, RequestedCapabilities=modes).status == 200
        assert claim(cluster, volume_id, "alloc", "node-a", **mode).status == 200
    name_one_storage(cluster, "a", "b")
    of_an_older_version(cluster)
    upgrade(cluster)
    refused = claim(cluster, "b", "two", "node-b", **modes[1])
    assert refused.status == 500
    assert "other modes must wait for its last claim" in refused.body


def name_one_storage(system: System, kept: str, other: str) -> None:
    """Let the other volume name the storage of the first, as two registers of an older version would."""
    first, second = (system.deps.volumes.get("default", volume_id) for volume_id in (kept, other))
    assert first is not None
    assert second is not None
    same = replace(second, definition=replace(second.definition, external_id=first.definition.external_id))
    change = Change(None, lambda index: [volume_store.replace_definition(same, index, read=second)])
    system.deps.committer.commit(volume_scope("default"), build=lambda _: change, what=other)
    claims = system.deps.dynamo.client.scan(TableName="moorage-test-claims")["Items"]
    for item in claims:
        if item["pk"]["S"] == f"vol#default#{other}":
            body = item["body"]["S"].replace(second.definition.external_id, first.definition.external_id)
            system.deps.dynamo.client.put_item(TableName="moorage-test-claims", Item=item | {"body": {"S": body}})


def begin_delete_as_the_older_version(system: System, volume_id: str) -> None:
    """Mark the volume, and open the operation, without a look at its storage."""
    volume = system.deps.volumes.get("default", volume_id)
    assert volume is not None
    mark = volume_store.mark(volume, operation_id="z" * 22, kind="delete", state=VolumeState.DELETING, unclaimed=True)
    operation = Operation(
        "z" * 22, Kind.DELETE_VOLUME, "default", volume_id, "directory", "", "delete",
        external_id=volume.definition.external_id, create_time=1.0, update_time=1.0,
    )  # fmt: skip
    system.deps.dynamo.transact([mark, operation_store.open_operation(operation, now=1.0)], token="old")
