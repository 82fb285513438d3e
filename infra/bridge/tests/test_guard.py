"""The bridge guards its machine: which node calls reach the plugin, and what the bridge answers itself."""

import asyncio
import dataclasses
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from infra.bridge.tests.parts import FakePlugin, Pki, Worker, running, worker_at
from moorage.bridge.bounds import Bounds
from moorage.bridge.guard import Call, Guard
from moorage.bridge.refusal import Refusal
from moorage.bridge.settings import BadSetting, Settings, parse_mounts_below
from moorage.bridge.uses import UseJournal
from moorage.mounts import paths
from moorage.mounts.journal import Entry, Journal, Stage
from moorage.spec import csi_pb2 as csi

pytestmark = pytest.mark.enable_socket

NODE: dict[str, Any] = {"service": "Node"}


@dataclasses.dataclass
class Machine:
    """A bridge's machine, with a worker that calls the bridge, and a plugin that makes links as its mounts."""

    root: Path
    """Volumes may be mounted below it."""
    state: Path
    storage: Path
    plugin: FakePlugin
    worker: Worker

    def publish(self, target: object, volume: str = "v1", **metadata: str) -> None:
        request = csi.NodePublishVolumeRequest(volume_id=volume, target_path=str(target))
        self.worker.call("NodePublishVolume", request.SerializeToString(), **(NODE | metadata))

    def unpublish(self, target: object, volume: str = "v1", **metadata: str) -> None:
        request = csi.NodeUnpublishVolumeRequest(volume_id=volume, target_path=str(target))
        self.worker.call("NodeUnpublishVolume", request.SerializeToString(), **(NODE | metadata))

    def stage(self, staging: object, volume: str = "v1", **metadata: str) -> None:
        request = csi.NodeStageVolumeRequest(volume_id=volume, staging_target_path=str(staging))
        self.worker.call("NodeStageVolume", request.SerializeToString(), **(NODE | metadata))

    def unstage(self, staging: object, volume: str = "v1", **metadata: str) -> None:
        request = csi.NodeUnstageVolumeRequest(volume_id=volume, staging_target_path=str(staging))
        self.worker.call("NodeUnstageVolume", request.SerializeToString(), **(NODE | metadata))

    def targets(self, rpc: str) -> list[str]:
        """The paths that the plugin was given."""
        name = "staging_target_path" if "tage" in rpc else "target_path"
        request = getattr(csi, f"{rpc}Request")
        return [getattr(request.FromString(call.request), name) for call in self.plugin.called(rpc)]

    def uses(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in (self.state / "uses").glob("*.json")]


def refusal(call: Callable[[], object], code: str) -> str:
    """The text of a call that the bridge refuses without calling the plugin."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    assert error.code().name == code, error.details()
    assert dict(error.trailing_metadata())["moorage-refused"] == "1"
    return str(error.details())


def guard_of(settings: Settings) -> Guard:
    """The guard of a bridge that does not run."""
    state = settings.state.resolve()
    return Guard(Bounds(state, settings.mounts_below, Journal(state)), UseJournal(state, upgraded=False))


@pytest.fixture
def guarded(settings: Settings, tmp_path: Path) -> Settings:
    (tmp_path / "srv").mkdir(exist_ok=True)
    return dataclasses.replace(settings, mounts_below=(tmp_path / "srv",))


@pytest.fixture
def start(guarded: Settings, pki: Pki, plugin: FakePlugin, tmp_path: Path) -> Callable[[], Any]:
    """Run a bridge in a block. Its state outlives it."""
    storage = tmp_path / "storage"
    storage.mkdir()

    def publish(raw: bytes, _: grpc.ServicerContext) -> bytes:
        target = Path(csi.NodePublishVolumeRequest.FromString(raw).target_path)
        if not target.is_symlink():
            if target.is_dir():
                target.rmdir()
            target.symlink_to(storage)
        return b""

    def unpublish(raw: bytes, _: grpc.ServicerContext) -> bytes:
        Path(csi.NodeUnpublishVolumeRequest.FromString(raw).target_path).unlink(missing_ok=True)
        return b""

    plugin.handlers |= {"NodePublishVolume": publish, "NodeUnpublishVolume": unpublish}
    plugin.handlers |= dict.fromkeys(("NodeStageVolume", "NodeUnstageVolume"), lambda *_: b"")
    plugin.handlers |= dict.fromkeys(("NodeGetVolumeStats", "NodeExpandVolume"), lambda *_: b"")

    @contextmanager
    def started() -> Iterator[Machine]:
        with running(guarded) as bridge:
            worker = worker_at(bridge.address, pki.client())
            yield Machine(tmp_path.resolve() / "srv", guarded.state, storage, plugin, worker)
            worker.channel.close()

    return started


@pytest.fixture
def machine(start: Callable[[], Any]) -> Iterator[Machine]:
    with start() as found:
        yield found


def test_a_path_outside_is_refused_with_what_to_do_and_its_unpublish_touches_nothing(
    machine: Machine, tmp_path: Path
) -> None:
    outside = tmp_path / "etc" / "cron.d"
    outside.mkdir(parents=True)
    text = refusal(lambda: machine.publish(outside), "INVALID_ARGUMENT")
    assert f"target path {outside} is not below a folder that this bridge may mount in" in text
    assert f"--mounts-below {tmp_path / 'srv'}" in text
    refusal(lambda: machine.stage(outside), "INVALID_ARGUMENT")
    machine.unpublish(outside)
    machine.unstage(outside)
    for rpc in ("NodeStageVolume", "NodePublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume"):
        assert machine.plugin.called(rpc) == []
    assert outside.is_dir()
    assert machine.uses() == []


@pytest.mark.parametrize("path", ["relative", "/", "/srv/../etc/cron.d", "//", "/srv/\0x"])
def test_what_is_no_path_of_a_folder_is_refused(machine: Machine, path: str) -> None:
    # So that a bridge that lets it pass does no harm.
    machine.plugin.handlers |= dict.fromkeys(("NodePublishVolume", "NodeUnpublishVolume"), lambda *_: b"")
    refusal(lambda: machine.publish(path), "INVALID_ARGUMENT")
    machine.unpublish(path)
    assert machine.targets("NodePublishVolume") == machine.targets("NodeUnpublishVolume") == []


def test_a_request_without_volume_or_path_is_refused(machine: Machine) -> None:
    for call in (machine.publish, machine.unpublish, machine.stage, machine.unstage):
        assert "path is missing" in refusal(lambda call=call: call(""), "INVALID_ARGUMENT")  # type: ignore[misc]
        text = refusal(lambda call=call: call(machine.root / "x", volume=""), "INVALID_ARGUMENT")  # type: ignore[misc]
        assert "volume_id is missing" in text


def test_the_folder_itself_and_a_name_that_begins_like_it_are_outside(machine: Machine, tmp_path: Path) -> None:
    refusal(lambda: machine.publish(machine.root), "INVALID_ARGUMENT")
    refusal(lambda: machine.publish(f"{machine.root}-other"), "INVALID_ARGUMENT")


def test_dots_in_a_link_do_not_lead_out(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (machine.root / "link").symlink_to("../etc")
    text = refusal(lambda: machine.publish(machine.root / "link" / "cron.d"), "INVALID_ARGUMENT")
    assert "is not below" in text


def test_the_state_folder_is_one_but_for_the_bridges_own_files(machine: Machine) -> None:
    machine.publish(machine.state / "data")
    for name in ("mounts", "uses", "uses/x", "lock", "token", ".x"):
        refusal(lambda name=name: machine.publish(machine.state / name), "INVALID_ARGUMENT")  # type: ignore[misc]


def test_a_link_above_that_only_root_can_write_is_followed_once(machine: Machine) -> None:
    (machine.root / "run").mkdir()
    (machine.root / "var-run").symlink_to("run")
    asked, real = machine.root / "var-run" / "data", machine.root / "run" / "data"
    machine.publish(asked)
    (machine.root / "var-run").unlink()
    (machine.root / "var-run").symlink_to("/nowhere")
    machine.unpublish(asked)
    assert machine.targets("NodePublishVolume") == machine.targets("NodeUnpublishVolume") == [str(real)]


def test_a_link_at_the_target_is_refused(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = machine.root / "data"
    target.symlink_to(tmp_path / "elsewhere")
    assert "linked at" in refusal(lambda: machine.publish(target), "FAILED_PRECONDITION")
    machine.unpublish(target)
    assert target.is_symlink()
    assert machine.targets("NodeUnpublishVolume") == []


@pytest.mark.parametrize("above", ["writable", "sticky"])
@pytest.mark.parametrize("name", ["absent", "link/data"])
def test_what_others_can_redirect_is_refused(machine: Machine, above: str, name: str) -> None:
    shared = machine.root / "shared"
    shared.mkdir()
    (machine.root / "aim").mkdir()
    (shared / "link").symlink_to(machine.root / "aim")
    shared.chmod(0o777 if above == "writable" else 0o1777)
    if above == "sticky" and name == "link/data":
        machine.publish(shared / name)  # others cannot take this process's link away
        return
    text = refusal(lambda: machine.publish(shared / name), "FAILED_PRECONDITION")
    assert f"others can write to {shared}" in text
    assert machine.targets("NodePublishVolume") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="makes another user's folder")
def test_a_folder_of_another_user_in_the_way_is_refused(machine: Machine) -> None:
    home = machine.root / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    assert f"{home} belongs to" in refusal(lambda: machine.publish(home / "data"), "FAILED_PRECONDITION")


def test_a_target_that_is_not_free_is_refused(machine: Machine) -> None:
    (machine.root / "data").mkdir()
    (machine.root / "data" / "precious").touch()
    (machine.root / "file").write_text("x")
    assert "is not empty" in refusal(lambda: machine.publish(machine.root / "data"), "FAILED_PRECONDITION")
    assert "is a file" in refusal(lambda: machine.publish(machine.root / "file"), "FAILED_PRECONDITION")
    assert "is not empty" in refusal(lambda: machine.stage(machine.root / "data"), "FAILED_PRECONDITION")


def test_a_mount_of_the_machine_is_refused_and_stays(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    target = machine.root / "data"
    target.mkdir()
    monkeypatch.setattr(paths, "_mounts", lambda: [(str(target), "8:1 /")])
    assert "something is mounted" in refusal(lambda: machine.publish(target), "FAILED_PRECONDITION")
    machine.unpublish(target)
    assert machine.targets("NodeUnpublishVolume") == []


def test_a_repeated_publish_and_unpublish_succeed_also_after_restarts(start: Callable[[], Any]) -> None:
    with start() as machine:
        target = machine.root / "data"
        target.mkdir()
        machine.publish(target)
        machine.publish(target)
        assert [(use["kind"], use["volume"], use["resolved"]) for use in machine.uses()] == [
            ("published", "v1", str(target))
        ]
    with start() as machine:
        machine.publish(target)
        assert "is not free" in refusal(lambda: machine.publish(target, "v2"), "FAILED_PRECONDITION")
        machine.unpublish(target, "v2")
        assert target.is_symlink()
    with start() as machine:
        machine.unpublish(target)
        assert not target.is_symlink()
        assert machine.uses() == []
        machine.unpublish(target)
    with start() as machine:
        machine.unpublish(target)
        assert machine.targets("NodeUnpublishVolume") == [str(target)]


def test_a_bridge_that_dies_in_a_publish_knows_of_it(start: Callable[[], Any], plugin: FakePlugin) -> None:
    """The use is on the disk before the plugin is called."""
    seen: list[list[dict[str, Any]]] = []
    with start() as machine:
        works = plugin.handlers["NodePublishVolume"]

        def publish(raw: bytes, context: grpc.ServicerContext) -> Any:
            seen.append(machine.uses())
            works(raw, context)
            context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")

        plugin.handlers["NodePublishVolume"] = publish
        with pytest.raises(grpc.RpcError):
            machine.publish(machine.root / "data")
        plugin.handlers["NodePublishVolume"] = works
    assert [[use["volume"] for use in uses] for uses in seen] == [["v1"]]
    with start() as machine:
        machine.publish(machine.root / "data")
        machine.unpublish(machine.root / "data")
        assert not (machine.root / "data").is_symlink()


def test_an_answer_of_the_plugin_is_not_believed_while_something_is_there(machine: Machine, plugin: FakePlugin) -> None:
    target = machine.root / "data"
    machine.publish(target)
    works = plugin.handlers["NodeUnpublishVolume"]
    for code in (None, grpc.StatusCode.NOT_FOUND):

        def answer(_: bytes, context: grpc.ServicerContext, code: Any = code) -> bytes:
            if code:
                context.abort(code, "no such volume")
            return b""

        plugin.handlers["NodeUnpublishVolume"] = answer
        with pytest.raises(grpc.RpcError) as caught:
            machine.unpublish(target)
        error: Any = caught.value
        assert (error.code().name, "moorage-refused" in dict(error.trailing_metadata())) == ("INTERNAL", False)
        assert f"there is still a link at {target}" in error.details()
    plugin.handlers["NodeUnpublishVolume"] = works
    machine.unpublish(target)
    assert machine.uses() == []


def test_an_answer_that_cannot_be_written_down_is_internal_and_in_the_log(
    machine: Machine, plugin: FakePlugin, caplog: pytest.LogCaptureFixture
) -> None:
    uses, away = machine.state / "uses", machine.state / "away"
    works = plugin.handlers["NodeUnpublishVolume"]

    def unpublish(raw: bytes, context: grpc.ServicerContext) -> Any:
        uses.rename(away)
        uses.touch()
        return works(raw, context)

    machine.publish(machine.root / "data")
    plugin.handlers["NodeUnpublishVolume"] = unpublish
    with caplog.at_level(logging.INFO), pytest.raises(grpc.RpcError) as caught:
        machine.unpublish(machine.root / "data")
    error: Any = caught.value
    assert (error.code().name, "moorage-refused" in dict(error.trailing_metadata())) == ("INTERNAL", False)
    assert "the bridge's journal cannot be used: [Errno 20]" in error.details()
    assert [r.__dict__["code"] for r in caplog.records if r.getMessage() == "forwarded"] == ["INTERNAL"]
    uses.unlink()
    away.rename(uses)
    plugin.handlers["NodeUnpublishVolume"] = works
    machine.unpublish(machine.root / "data")
    assert machine.uses() == []


def test_a_volume_that_the_plugin_does_not_know_is_forgotten(machine: Machine, plugin: FakePlugin) -> None:
    machine.stage(machine.root / "staging")
    plugin.handlers["NodeUnstageVolume"] = lambda _, context: context.abort(grpc.StatusCode.NOT_FOUND, "gone")
    with pytest.raises(grpc.RpcError) as caught:
        machine.unstage(machine.root / "staging")
    error: Any = caught.value
    assert (error.code().name, error.details()) == ("NOT_FOUND", "gone")
    assert machine.uses() == []


def test_two_volumes_never_get_one_path_nor_one_below_the_other(machine: Machine) -> None:
    (machine.root / "a").mkdir()
    machine.stage(machine.root / "a")
    for path in (machine.root / "a", machine.root / "a" / "below"):
        text = refusal(lambda path=path: machine.publish(path, "v2"), "FAILED_PRECONDITION")  # type: ignore[misc]
        assert "volume v1 of plugin fake is staged at" in text
        assert "release its claim first" in text
        assert f"If that was freed by force, unmount {machine.root / 'a'} by hand" in text
        assert f"remove {machine.state / 'uses'}/" in text
    machine.publish(machine.root / "a" / "own")
    machine.unpublish(machine.root / "a" / "own")
    machine.unstage(machine.root / "a")
    machine.publish(machine.root / "a", "v2")


def test_what_a_reboot_ended_is_in_no_ones_way(start: Callable[[], Any]) -> None:
    with start() as machine:
        machine.stage(machine.root / "a")
    (file,) = (machine.state / "uses").glob("*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"boot": "the one before"}))
    with start() as machine:
        machine.publish(machine.root / "a", "v2")
        machine.unstage(machine.root / "a")
        assert machine.targets("NodeUnstageVolume") == []


def test_no_other_call_about_a_path_passes_while_one_runs(machine: Machine, plugin: FakePlugin) -> None:
    target, texts = machine.root / "data", []
    works = plugin.handlers["NodePublishVolume"]

    def publish(raw: bytes, context: grpc.ServicerContext) -> Any:
        texts.append(refusal(lambda: machine.unpublish(target), "ABORTED"))
        return works(raw, context)

    plugin.handlers["NodePublishVolume"] = publish
    machine.publish(target)
    assert ["is running" in text for text in texts] == [True]
    machine.unpublish(target)


def test_a_call_of_an_earlier_attempt_or_without_a_number_leaves_no_use(machine: Machine) -> None:
    target = machine.root / "data"
    machine.publish(target, moorage_operation="a", moorage_attempt="1")
    machine.unpublish(target, moorage_operation="a", moorage_attempt="2")
    refusal(lambda: machine.publish(target, moorage_operation="a", moorage_attempt="1"), "ABORTED")
    refusal(lambda: machine.publish(target, moorage_operation="b", moorage_attempt="x"), "UNAVAILABLE")
    assert machine.uses() == []
    machine.publish(target, "v2")


def test_a_call_that_is_refused_after_its_use_was_written_takes_back_only_its_own(
    start: Callable[[], Any], guarded: Settings
) -> None:
    """A later attempt can pass the fence while the guard looks at the paths."""
    with start() as machine:
        pass
    guard = guard_of(guarded)

    async def refused(target: Path) -> None:
        request = csi.NodePublishVolumeRequest(volume_id="v1", target_path=str(target)).SerializeToString()
        async with guard.passing(Call("fake", "/csi.v1.Node/NodePublishVolume", request)):
            assert [use["path"] for use in machine.uses()] == [str(target)]
            raise Refusal(grpc.StatusCode.ABORTED, "attempt 1 is over")

    with pytest.raises(Refusal, match="is over"):
        asyncio.run(refused(machine.root / "data"))
    assert machine.uses() == []
    with start() as machine:
        machine.publish(machine.root / "data")
    guard = guard_of(guarded)
    with pytest.raises(Refusal, match="is over"):
        asyncio.run(refused(machine.root / "data"))
    assert [use["path"] for use in machine.uses()] == [str(machine.root / "data")]


def test_calls_about_a_mounted_volume_get_the_path_that_was_resolved(machine: Machine) -> None:
    (machine.root / "link").symlink_to(machine.root)
    asked = str(machine.root / "link" / "data")
    expand = csi.NodeExpandVolumeRequest(volume_id="v1", volume_path=asked)
    refusal(lambda: machine.worker.call("NodeExpandVolume", expand.SerializeToString(), **NODE), "NOT_FOUND")
    machine.publish(asked)
    machine.worker.call("NodeExpandVolume", expand.SerializeToString(), **NODE)
    (passed,) = machine.plugin.called("NodeExpandVolume")
    assert csi.NodeExpandVolumeRequest.FromString(passed.request).volume_path == str(machine.root / "data")


def test_a_publish_names_the_staging_path_that_was_resolved(machine: Machine) -> None:
    (machine.root / "link").symlink_to(machine.root)
    machine.stage(machine.root / "link" / "staging")
    request = csi.NodePublishVolumeRequest(volume_id="v1", target_path=str(machine.root / "data"))
    request.staging_target_path = str(machine.root / "link" / "staging")
    machine.worker.call("NodePublishVolume", request.SerializeToString(), **NODE)
    (passed,) = machine.plugin.called("NodePublishVolume")
    got = csi.NodePublishVolumeRequest.FromString(passed.request)
    assert got.staging_target_path == str(machine.root / "staging")
    request.staging_target_path = "/etc"
    request.volume_id = "v2"
    request.target_path = str(machine.root / "other")
    text = refusal(
        lambda: machine.worker.call("NodePublishVolume", request.SerializeToString(), **NODE),
        "INVALID_ARGUMENT",
    )
    assert "staging path /etc is not below" in text


def test_a_request_without_anything_to_resolve_passes_byte_for_byte(machine: Machine) -> None:
    unknown = b"\xfa\x3f\x01x"  # a field of a later CSI
    request = csi.NodePublishVolumeRequest(volume_id="v1", target_path=str(machine.root / "data"))
    raw = unknown + request.SerializeToString()
    machine.worker.call("NodePublishVolume", raw, **NODE)
    assert machine.plugin.called("NodePublishVolume")[0].request == raw


def test_a_node_call_whose_paths_the_bridge_does_not_know_is_refused(machine: Machine) -> None:
    machine.plugin.handlers["NodeTeleportVolume"] = lambda *_: b""
    refusal(lambda: machine.worker.call("NodeTeleportVolume", b"", **NODE), "UNIMPLEMENTED")
    refusal(lambda: machine.worker.call("NodeStageVolume", b"\xff\xff", **NODE), "INVALID_ARGUMENT")
    machine.worker.call("NodeGetInfo", b"", **NODE)


ATTEMPT = {"moorage_attempt": "1"}


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Paths at which something is mounted when the bridge's journal begins: below a folder of the bridge, and not."""
    found = [tmp_path.resolve() / "srv" / "data", tmp_path.resolve() / "run"]
    for path in found:
        path.mkdir(parents=True)
    monkeypatch.setattr(paths, "_mounts", lambda: [(str(path), "8:1 /") for path in found])
    return found


def test_what_was_mounted_before_the_journal_began_is_not_taken_for_unmounted(
    older: list[Path], start: Callable[[], Any]
) -> None:
    with start() as machine:
        for target in older:
            text = refusal(lambda target=target: machine.unpublish(target), "FAILED_PRECONDITION")  # type: ignore[misc]
            assert f"findmnt {target}" in text
            assert "umount /" not in text  # it may be the machine's own
    with start() as machine:
        (inside, outside) = older
        refusal(lambda: machine.unpublish(inside), "FAILED_PRECONDITION")
        older.remove(inside)  # unmounted by hand
        machine.unpublish(inside)
        refusal(lambda: machine.unpublish(outside), "FAILED_PRECONDITION")
        assert machine.targets("NodeUnpublishVolume") == []


def test_an_operation_whose_publish_was_refused_can_undo_it(older: list[Path], start: Callable[[], Any]) -> None:
    with start() as machine:
        refusal(lambda: machine.publish(older[0], moorage_operation="a", **ATTEMPT), "FAILED_PRECONDITION")
        refusal(lambda: machine.publish(older[1], moorage_operation="a", **ATTEMPT), "INVALID_ARGUMENT")
    with start() as machine:
        for target in older:
            machine.unpublish(target, moorage_operation="a", **ATTEMPT)
            refusal(
                lambda target=target: machine.unpublish(target, moorage_operation="b", **ATTEMPT),  # type: ignore[misc]
                "FAILED_PRECONDITION",
            )
        assert machine.targets("NodeUnpublishVolume") == []


@pytest.mark.usefixtures("upgraded")
def test_after_an_upgrade_the_plugin_unmounts_what_the_older_bridge_mounted(
    older: list[Path], start: Callable[[], Any]
) -> None:
    inside, outside = older
    with start() as machine:
        machine.plugin.handlers["NodeUnpublishVolume"] = lambda *_: b""
        refusal(lambda: machine.unpublish(outside), "FAILED_PRECONDITION")
        with pytest.raises(grpc.RpcError) as caught:
            machine.unpublish(inside)  # the plugin does not unmount it
        error: Any = caught.value
        assert (error.code().name, "there is still a mount at" in error.details()) == ("INTERNAL", True)
        assert machine.targets("NodeUnpublishVolume") == [str(inside)]
        refusal(lambda: machine.publish(inside, moorage_operation="a", **ATTEMPT), "FAILED_PRECONDITION")
        refusal(lambda: machine.unpublish(inside), "FAILED_PRECONDITION")


@pytest.fixture
def upgraded(guarded: Settings) -> None:
    """A state folder that 0.1.0 used."""
    guarded.state.mkdir()
    (guarded.state / "node-id").write_text("n1\n")


@pytest.mark.usefixtures("upgraded")
def test_after_an_upgrade_the_plugin_unstages_also_where_nothing_is_mounted(
    start: Callable[[], Any], guarded: Settings, tmp_path: Path
) -> None:
    """A block volume, or a map of LUKS, leaves no mount at the staging path."""
    with start() as machine:
        staging = machine.root / "staging"
        staging.mkdir()
        (staging / "device").touch()
        machine.unstage(staging)
        machine.unstage(staging)
        assert machine.targets("NodeUnstageVolume") == [str(staging)] * 2
        outside = tmp_path.resolve() / "elsewhere"
        text = refusal(lambda: machine.unstage(outside), "FAILED_PRECONDITION")
        assert f"{outside} may be staged there since before this bridge kept a journal" in text
        assert "--mounts-below" in text
        assert machine.targets("NodeUnstageVolume") == [str(staging)] * 2
    beginning = guarded.state / "uses" / "beginning"
    beginning.write_text(json.dumps(json.loads(beginning.read_text()) | {"boot": "the one before"}))
    with start() as machine:
        machine.unstage(staging)
        machine.unstage(outside)
        assert machine.targets("NodeUnstageVolume") == [str(staging)] * 2


@pytest.mark.usefixtures("upgraded")
def test_after_an_upgrade_an_operation_whose_stage_was_refused_can_undo_it(
    start: Callable[[], Any], tmp_path: Path
) -> None:
    outside = tmp_path.resolve() / "elsewhere"
    with start() as machine:
        refusal(lambda: machine.stage(outside, moorage_operation="a", **ATTEMPT), "INVALID_ARGUMENT")
        machine.unstage(outside, moorage_operation="a", **ATTEMPT)
        assert machine.targets("NodeUnstageVolume") == []


@pytest.mark.usefixtures("upgraded")
def test_after_an_upgrade_an_unstage_does_not_reach_another_volume(
    start: Callable[[], Any], plugin: FakePlugin
) -> None:
    texts = []

    def unstage(*_: Any) -> bytes:
        texts.append(refusal(lambda: machine.stage(staging, "v2"), "ABORTED"))
        return b""

    plugin.handlers["NodeUnstageVolume"] = unstage
    with start() as machine:
        staging = machine.root / "staging"
        machine.unstage(staging)
        assert ["is running" in text for text in texts] == [True]
        assert machine.uses() == []
        machine.stage(staging, "v2")
        assert "volume v2" in refusal(lambda: machine.unstage(staging), "FAILED_PRECONDITION")
        assert machine.targets("NodeUnstageVolume") == [str(staging)]
        assert [use["volume"] for use in machine.uses()] == ["v2"]


@pytest.mark.usefixtures("upgraded")
def test_after_an_upgrade_the_plugin_takes_a_device_node_away(
    start: Callable[[], Any], guarded: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = guarded.mounts_below[0].resolve() / "data"
    monkeypatch.setattr(paths, "mount_at", lambda path: "device 7" if path == str(target) else "")
    with start() as machine, pytest.raises(grpc.RpcError, match="there is still a device at"):
        machine.unpublish(target)
    assert machine.targets("NodeUnpublishVolume") == [str(target)]


def test_a_reboot_unmounted_what_was_mounted_before_the_journal_began(
    older: list[Path], start: Callable[[], Any], guarded: Settings
) -> None:
    with start():
        pass
    beginning = guarded.state / "uses" / "beginning"
    beginning.write_text(json.dumps(json.loads(beginning.read_text()) | {"boot": "the one before"}))
    with start() as machine:
        for target in older:
            machine.unpublish(target)
        assert machine.targets("NodeUnpublishVolume") == []


@pytest.mark.parametrize("name", ["beginning", "x.json"])
def test_a_journal_that_cannot_be_read_stops_the_bridge_with_what_to_do(
    start: Callable[[], Any], guarded: Settings, name: str
) -> None:
    with start():
        pass
    (guarded.state / "uses" / name).write_text("{}")
    with pytest.raises(BadSetting, match="release all claims on this node"), start():
        pass


def test_what_moorage_mount_was_asked_for_is_in_bounds_for_its_volume_only(machine: Machine, tmp_path: Path) -> None:
    target = tmp_path.resolve() / "anywhere"
    journal = Journal(machine.state)
    staging = journal.staging_of("default", "data")
    journal.put(
        Entry(
            target=str(target),
            namespace="default",
            volume="data",
            allocation="a1",
            node="n1",
            mode="write",
            access_mode="",
            attachment_mode="",
            staging=str(staging),
            lease=0,
            plugin="fake",
            external_id="v1",
            stage=Stage.WANTED,
        )
    )
    refusal(lambda: machine.publish(target, "v2"), "INVALID_ARGUMENT")
    machine.stage(staging)
    machine.publish(target)
    machine.unpublish(target)
    machine.unstage(staging)
    assert machine.uses() == []
    assert machine.targets("NodeUnpublishVolume") == [str(target)]


@pytest.mark.parametrize("folder", ["relative", "/", "/srv/../etc"])
def test_a_folder_that_is_none_is_refused_at_the_start(folder: str) -> None:
    with pytest.raises(BadSetting, match="write the absolute path"):
        parse_mounts_below((Path(folder),))
