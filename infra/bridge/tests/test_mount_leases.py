"""The bridge renews the leases of what is mounted here, and unmounts by itself what is no longer ours, in time."""

import dataclasses
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from infra.bridge.tests.mount_parts import BUSY, Machine, Played, played
from infra.bridge.tests.parts import FakePlugin, Pki, eventually, running
from moorage.bridge import leases
from moorage.bridge.settings import PluginSettings, Settings
from moorage.bridge.uses import Use
from moorage.mounts.journal import Entry, Stage
from moorage.spec import csi_pb2 as csi

pytestmark = pytest.mark.enable_socket

LEASE = 5
LONG = 20
"""A lease that does not end while a test waits for what must not take so long."""


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Played]:
    with played(tmp_path / "storage") as found:
        yield found


@pytest.fixture
def machine(tmp_path: Path, plane: Played) -> Machine:
    return Machine.make(tmp_path, plane)


@pytest.fixture
def run(machine: Machine, pki: Pki, plugin: FakePlugin) -> Callable[[], Any]:
    """A bridge with the plugin, whose node calls take links away as a plugin without mounts does."""

    def unpublish(raw: bytes, _: grpc.ServicerContext) -> bytes:
        Path(csi.NodeUnpublishVolumeRequest.FromString(raw).target_path).unlink(missing_ok=True)
        return b""

    plugin.handlers["NodeUnpublishVolume"] = unpublish
    plugin.handlers["NodeUnstageVolume"] = lambda *_: b""
    settings = Settings(
        api=machine.plane.url,
        state=machine.state,
        certs=pki.bridge,
        listen="127.0.0.1:0",
        advertise=None,
        plugins=(PluginSettings("fake", plugin.target),),
        drain_seconds=1.0,
    )

    @contextmanager
    def bridge() -> Iterator[None]:
        with running(settings):
            yield

    return bridge


def mounted(machine: Machine, lease: int = LEASE) -> Entry:
    done = machine.mount("--alloc", "a1", "--lease", lease)
    assert done.exit_code == 0, done.output
    return machine.entry()


def test_a_lease_is_renewed_a_few_times_in_its_life_and_the_mount_stays(
    machine: Machine, plane: Played, plugin: FakePlugin, run: Callable[[], Any]
) -> None:
    before = mounted(machine)
    with run():
        eventually(lambda: len(plane.times("PUT renew")) >= 6)
    renewals = plane.times("PUT renew")
    assert (renewals[-1] - renewals[0]) / (len(renewals) - 1) > LEASE / 8, "more often than it helps"
    assert max(b - a for a, b in itertools.pairwise(renewals)) < LEASE
    assert {body["LeaseSeconds"] for body in plane.requests("PUT renew")} == {LEASE}
    assert machine.target.is_symlink()
    assert not plugin.called("NodeUnpublishVolume")
    assert machine.entry().renewed_at > before.renewed_at
    assert machine.entry().stage is Stage.MOUNTED


def test_what_is_no_longer_ours_is_unmounted_and_the_log_says_so(
    machine: Machine, plane: Played, plugin: FakePlugin, run: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    entry = mounted(machine)
    plane.claims.clear()
    with caplog.at_level(logging.INFO), run():
        eventually(lambda: machine.stages() == {"data": Stage.LOST})
    assert not machine.target.is_symlink()
    (unpublish,) = plugin.called("NodeUnpublishVolume")
    asked = csi.NodeUnpublishVolumeRequest.FromString(unpublish.request)
    assert (asked.volume_id, asked.target_path) == ("ext-data", entry.target)
    (unstage,) = plugin.called("NodeUnstageVolume")
    assert csi.NodeUnstageVolumeRequest.FromString(unstage.request).staging_target_path == entry.staging
    said = [record.getMessage() for record in caplog.records if getattr(record, "target", "") == entry.target]
    assert said == ["unmounting what is no longer ours", "unmounted; moorage reconcile mounts it again"]
    assert "its claim is no longer ours" in machine.run("ls").stdout
    assert machine.run("reconcile").exit_code == 0
    assert machine.stages() == {"data": Stage.MOUNTED}


def test_a_claim_on_its_way_out_is_not_ours(machine: Machine, plane: Played, run: Callable[[], Any]) -> None:
    mounted(machine)
    plane.claims["a1"]["State"] = "unpublishing"
    plane.next["PUT renew"] = [(409, "run out")] * 100
    with run():
        eventually(lambda: machine.stages() == {"data": Stage.LOST})


def test_a_claim_without_a_lease_is_looked_at_too(
    machine: Machine, plane: Played, run: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "UNLEASED_SECONDS", 0.3)
    assert machine.mount("--lease", "0", "--alloc", "a1").exit_code == 0
    with run():
        eventually(lambda: len(plane.requests("GET claims")) > 3)
        assert machine.stages() == {"data": Stage.MOUNTED}
        plane.claims.clear()
        eventually(lambda: machine.stages() == {"data": Stage.LOST})
    assert not plane.requests("PUT renew")


@pytest.mark.parametrize("away", [BUSY, (403, "Permission denied"), (404, "no such page"), (200, "<html>")])
def test_when_a_lease_cannot_be_renewed_the_unmount_is_over_before_it_ends(
    machine: Machine, plane: Played, plugin: FakePlugin, run: Callable[[], Any], away: tuple[int, str]
) -> None:
    mounted(machine)
    with run():
        eventually(lambda: plane.requests("PUT renew"))
        eventually(lambda: machine.entry().renewed_at > time.time() - 1)
        renewed = machine.entry().renewed_at
        plane.always = away
        eventually(lambda: not machine.target.is_symlink())
        took = time.time() - renewed
        assert took < LEASE
        assert took > LEASE / 2, "as long as there is time, it goes on trying"
        eventually(lambda: machine.stages() == {"data": Stage.LOST})


def test_a_volume_that_is_gone_is_unmounted_at_once(machine: Machine, plane: Played, run: Callable[[], Any]) -> None:
    mounted(machine, LONG)
    with run():
        eventually(lambda: plane.requests("PUT renew"))
        plane.always = (404, "volume not found")
        eventually(lambda: machine.stages() == {"data": Stage.LOST}, within=LONG / 2)


def test_a_refused_renewal_of_a_claim_that_stands_is_not_believed(
    machine: Machine, plane: Played, plugin: FakePlugin, run: Callable[[], Any]
) -> None:
    mounted(machine)
    plane.next["PUT renew"] = [(404, "no claim"), (409, "run out")]
    with run():
        eventually(lambda: len(plane.requests("PUT renew")) >= 4)
    assert machine.stages() == {"data": Stage.MOUNTED}
    assert not plugin.called("NodeUnpublishVolume")


def test_a_bridge_that_starts_after_the_lease_ended_unmounts_at_once(
    machine: Machine, plane: Played, run: Callable[[], Any]
) -> None:
    entry = mounted(machine, 4 * LONG)
    machine.journal.put(dataclasses.replace(entry, renewed_at=entry.renewed_at - 5 * LONG))
    plane.always = BUSY
    with run():
        eventually(lambda: machine.stages() == {"data": Stage.LOST}, within=LONG)


@pytest.mark.parametrize("ago", [100, -100])
def test_a_bridge_that_starts_late_keeps_what_is_still_ours(
    machine: Machine, plane: Played, run: Callable[[], Any], ago: int
) -> None:
    entry = mounted(machine)
    machine.journal.put(dataclasses.replace(entry, renewed_at=time.time() - ago))
    with run():
        eventually(lambda: len(plane.requests("PUT renew")) >= 3)
    assert machine.stages() == {"data": Stage.MOUNTED}


def test_an_unmount_that_cannot_be_written_down_is_repeated(
    machine: Machine, plane: Played, plugin: FakePlugin, run: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    entry = mounted(machine)
    uses, away = machine.state / "uses", machine.state / "away"
    works = plugin.handlers["NodeUnpublishVolume"]

    def unpublish(raw: bytes, context: grpc.ServicerContext) -> Any:
        if not away.exists():
            uses.rename(away)
            uses.touch()
        return works(raw, context)

    with run():
        use = Use(
            "published",
            entry.plugin,
            entry.external_id,
            entry.target,
            entry.target,
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        )
        (uses / use.file).write_text(json.dumps(dataclasses.asdict(use)))
    plugin.handlers["NodeUnpublishVolume"] = unpublish
    with caplog.at_level(logging.ERROR), run():
        plane.claims.clear()
        eventually(lambda: bool(reasons(caplog)))
        uses.unlink()
        away.rename(uses)
        plugin.handlers["NodeUnpublishVolume"] = works
        eventually(lambda: machine.stages() == {"data": Stage.LOST})
    assert any("NodeUnpublishVolume: the plugin answered OK" in reason for reason in reasons(caplog))
    assert not list(uses.glob("*.json"))


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.__dict__["reason"] for record in caplog.records if record.getMessage() == "not unmounted yet"]


def test_an_unmount_that_fails_is_repeated_until_it_is_done(
    machine: Machine, plane: Played, plugin: FakePlugin, run: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    mounted(machine)
    plane.claims.clear()
    works, failures = plugin.handlers["NodeUnpublishVolume"], [1, 2]

    def busy(raw: bytes, context: grpc.ServicerContext) -> Any:
        if failures:
            failures.pop()
            context.abort(grpc.StatusCode.INTERNAL, "target is busy")
        return works(raw, context)

    plugin.handlers["NodeUnpublishVolume"] = busy
    with caplog.at_level(logging.ERROR), run():
        eventually(lambda: machine.stages() == {"data": Stage.LOST})
    assert len(plugin.called("NodeUnpublishVolume")) == 3
    errors = [record for record in caplog.records if record.getMessage() == "not unmounted yet"]
    assert [record.reason for record in errors] == ["NodeUnpublishVolume: INTERNAL: target is busy"]  # type: ignore[attr-defined]


def test_a_volume_that_is_mounted_elsewhere_here_stays_staged(
    machine: Machine, plane: Played, plugin: FakePlugin, run: Callable[[], Any]
) -> None:
    mounted(machine)
    second = machine.run("mount", "data", machine.root / "second", "--alloc", "a2", "--lease", LEASE)
    assert second.exit_code == 0, second.output
    plane.claims.pop("a1")
    with run():
        eventually(lambda: machine.stages() == {"data": Stage.LOST, "second": Stage.MOUNTED})
        assert not plugin.called("NodeUnstageVolume")
        plane.claims.clear()
        eventually(lambda: machine.stages() == {"data": Stage.LOST, "second": Stage.LOST})
        assert len(plugin.called("NodeUnstageVolume")) == 1


def test_nothing_is_done_under_a_command_that_is_at_work_but_its_lease_is_renewed(
    machine: Machine, plane: Played, plugin: FakePlugin, run: Callable[[], Any]
) -> None:
    entry = machine.journal.put(mounted(machine).at(Stage.WANTED))
    plane.next["GET claims"] = [(200, "[]")] * 100
    with machine.journal.try_lock(entry.key) as ours, run():
        assert ours
        eventually(lambda: len(plane.requests("PUT renew")) >= 3)
        assert machine.target.is_symlink()
    assert not plugin.called("NodeUnpublishVolume")


@pytest.mark.parametrize("stage", [Stage.WANTED, Stage.UNMOUNTING])
def test_what_a_dead_command_left_without_a_claim_does_not_stay_mounted(
    machine: Machine, plane: Played, run: Callable[[], Any], stage: Stage
) -> None:
    machine.journal.put(mounted(machine).at(stage))
    with run():
        looked = len(plane.asked)
        eventually(lambda: len(plane.asked) > looked)
        assert machine.target.is_symlink(), "while there is a claim, it is for the command, or a reconcile"
        plane.claims.clear()
        eventually(lambda: not machine.target.is_symlink())
        assert machine.stages() == {"data": stage}
        assert machine.run("reconcile").exit_code == 0
    assert machine.stages() == ({"data": Stage.MOUNTED} if stage is Stage.WANTED else {})


def test_an_unmount_without_a_claim_is_done_by_the_bridge(
    machine: Machine, plane: Played, plugin: FakePlugin, run: Callable[[], Any]
) -> None:
    entry = mounted(machine)
    plane.claims.clear()
    alone = machine.run("umount", "data", "--wait", "0.5")
    assert (alone.exit_code, "the bridge unmounts it" in alone.stderr) == (3, True)
    assert entry.target == machine.entry().target
    with run():
        assert machine.run("umount", "data").exit_code == 0
    assert machine.is_clean()
    assert len(plugin.called("NodeUnstageVolume")) == 1


def test_a_mount_that_lost_its_claim_to_another_is_unmounted_even_if_it_was_interrupted(
    machine: Machine, plane: Played, run: Callable[[], Any]
) -> None:
    machine.journal.put(mounted(machine).at(Stage.WANTED))
    plane.claims.clear()
    plane.next["PUT claim"] = [(500, "volume max claims reached")]
    assert machine.mount().exit_code == 1
    with run():
        eventually(lambda: machine.stages() == {"data": Stage.LOST})
    assert not machine.target.is_symlink()


def test_a_volume_that_grew_is_expanded_on_the_node(
    machine: Machine, plane: Played, plugin: FakePlugin, run: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "EXPAND_SECONDS", 0.1)
    rpc = csi.NodeServiceCapability.RPC
    types = (rpc.STAGE_UNSTAGE_VOLUME, rpc.EXPAND_VOLUME)
    able = csi.NodeGetCapabilitiesResponse(
        capabilities=[csi.NodeServiceCapability(rpc=rpc(type=type_)) for type_ in types]
    )
    plugin.handlers["NodeGetCapabilities"] = lambda *_: able.SerializeToString()
    plugin.handlers["NodeExpandVolume"] = lambda *_: b""
    entry = mounted(machine)
    with run():
        eventually(lambda: len(plane.requests("GET volume")) > 2)
        assert not plugin.called("NodeExpandVolume")
        plane.capacity = 2 << 20
        eventually(lambda: machine.entry().capacity == 2 << 20)
        seen = len(plane.requests("GET volume"))
        eventually(lambda: len(plane.requests("GET volume")) > seen)
    (call,) = plugin.called("NodeExpandVolume")
    asked = csi.NodeExpandVolumeRequest.FromString(call.request)
    assert (asked.volume_id, asked.volume_path, asked.staging_target_path) == ("ext-data", entry.target, entry.staging)
    assert asked.capacity_range.required_bytes == 2 << 20


def test_the_bridge_leaves_its_address_for_the_commands(machine: Machine, run: Callable[[], Any]) -> None:
    (machine.state / "api").unlink()
    with run():
        assert (machine.state / "api").read_text().strip() == machine.plane.url
        assert json.loads(machine.run("ls", "--json").stdout) == []
