"""Real processes killed (SIGKILL) in the middle of real calls, for every kind of operation that changes storage.

The five kinds run at the same time on things of their own. Whoever dies takes all five calls along; then the requests
that wait, or the sweeper, must bring each to its end, exactly once, in the plugin's own folder.

The plugin holds the calls until the test has killed what it wants to kill: no test hopes to be in time.
"""

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.local import clock, private
from tests.e2e.api import Reply, answered, create, kill_workers, request, stored, wait_for
from tests.e2e.test_audit import audit

pytestmark = [pytest.mark.e2e, pytest.mark.enable_socket, pytest.mark.timeout(400)]

RPCS = ("CreateVolume", "DeleteVolume", "ControllerExpandVolume", "CreateSnapshot", "DeleteSnapshot")
CALL_SECONDS = 15
"""The calls' deadline; within it warm workers begin all five, and the test kills."""
ANSWERED_WITHIN = 100
NUMBERS = itertools.count(1)
SMALL, LARGE = 1 << 20, 2 << 20


@dataclass
class Site:
    """A system whose plugin can be slowed down at run time."""

    system: private.System
    faults: Path

    def slow(self, *rules: str) -> None:
        """The plugin's faults from now on."""
        unfinished = self.faults.with_suffix(".unfinished")
        unfinished.write_text("\n".join(rules))
        unfinished.replace(self.faults)

    def capacity(self, external_id: str) -> int:
        """As the plugin's own list has it."""
        listed = request(self.system, "GET", "/v1/volumes/external?plugin_id=directory").json["Volumes"] or ()
        return next(int(v["CapacityBytes"]) for v in listed if v["ExternalID"] == external_id)

    def running(self) -> int:
        """Operations that a worker has begun and not ended."""
        found = request(self.system, "GET", "/v1/operations?status=running&per_page=100").json["Operations"]
        return len(found)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("kills")
    faults = folder / "faults"
    faults.write_text("")
    deadlines = " ".join(f"--deadline directory:{rpc}={CALL_SECONDS}" for rpc in RPCS)
    arguments = {
        "BRIDGE_ARGS": f"{deadlines} --grace directory=2",
        "PLUGIN_ARGS": f"--faults {faults}",
    }
    with private.running(folder / "system", **arguments) as system:
        yield Site(system, faults)


@dataclass
class Round:
    """One operation of each kind at the same time, on what was prepared for it."""

    site: Site
    name: str
    replies: dict[str, Reply] = field(default_factory=dict)
    _threads: list[threading.Thread] = field(default_factory=list)
    _ids: dict[str, str] = field(default_factory=dict)
    _old: str = ""

    def prepare(self) -> None:
        uses = ("delete", "expand", "source")
        warming = ("warm-1", "warm-2")
        with ThreadPoolExecutor(len(RPCS)) as pool:  # as many workers are warm when five are to begin together
            names = [f"{self.name}-{use}" for use in (*uses, *warming)]
            made = list(pool.map(lambda n: create(self.site.system, n, RequestedCapacityMin=SMALL), names))
        assert [reply.status for reply in made] == [200] * len(names), made
        for use in warming:
            assert request(self.site.system, "DELETE", f"/v1/volume/csi/{self.name}-{use}/delete").status == 200
        made = made[: len(uses)]
        self._ids = {use: m.json["Volumes"][0]["ExternalID"] for use, m in zip(uses, made, strict=True)}
        self._old = self._take("old").json["Snapshots"][0]["ID"]

    def start(self) -> None:
        system = self.site.system
        gone = f"/v1/volumes/snapshot?plugin_id=directory&snapshot_id={self._old}"

        def delete() -> Reply:
            """Delete the volume. A request that is repeated may find that the first one has done it."""
            reply = request(system, "DELETE", f"/v1/volume/csi/{self.name}-delete/delete")
            return replace(reply, status=200) if reply.text == f"volume not found: {self.name}-delete" else reply

        kinds: dict[str, Callable[[], Reply]] = {
            "create": lambda: create(system, f"{self.name}-create", RequestedCapacityMin=SMALL),
            "delete": delete,
            "expand": lambda: create(system, f"{self.name}-expand", RequestedCapacityMin=LARGE),
            "create snapshot": lambda: self._take("new"),
            "delete snapshot": lambda: request(system, "DELETE", gone),
        }

        def run(kind: str, action: Callable[[], Reply]) -> None:
            self.replies[kind] = answered(action, tries=5)

        self._threads = [threading.Thread(target=run, args=item, daemon=True) for item in kinds.items()]
        for thread in self._threads:
            thread.start()

    def volumes(self) -> list[str]:
        """The folders of this round's volumes; their names begin like the volumes'."""
        return [p.name for p in stored(self.site.system) if p.name.startswith(f"{self.name}-")]

    def snapshots(self) -> list[str]:
        folder = self.site.system.plugin_root() / "snapshots"
        return [p.name for p in folder.iterdir() if p.name.startswith(f"{self.name}-")]

    def all_had_their_effect(self) -> bool:
        volumes, snapshots = self.volumes(), self.snapshots()
        return (
            len(volumes) == len(self._ids)
            and self._ids["delete"] not in volumes
            and len(snapshots) == 1
            and self._old not in snapshots
            and self.site.capacity(self._ids["expand"]) == LARGE
        )

    def end(self) -> None:
        """Everything is answered, done exactly once, and nothing is left over."""
        for thread in self._threads:
            thread.join(ANSWERED_WITHIN)
        answers = {kind: (reply.status, reply.text) for kind, reply in self.replies.items()}
        assert {kind: status for kind, (status, _) in answers.items()} == dict.fromkeys(self._kinds(), 200), answers
        system = self.site.system
        shown = {use: request(system, "GET", f"/v1/volume/csi/{self.name}-{use}") for use in ("create", "expand")}
        assert request(system, "GET", f"/v1/volume/csi/{self.name}-delete").status == 404
        assert shown["expand"].json["Capacity"] == LARGE
        kept = {self._ids["expand"], self._ids["source"], shown["create"].json["ExternalID"]}
        assert set(self.volumes()) == kept
        taken = self.replies["create snapshot"].json["Snapshots"][0]["ID"]
        assert self.snapshots() == [taken]
        assert self.all_had_their_effect()
        done = audit(system)
        assert done.returncode == 0, done.stdout + done.stderr

    def clean(self) -> None:
        for use in ("create", "expand", "source"):
            gone = request(self.site.system, "DELETE", f"/v1/volume/csi/{self.name}-{use}/delete")
            assert gone.status == 200, gone.text
        for snapshot_id in self.snapshots():
            target = f"/v1/volumes/snapshot?plugin_id=directory&snapshot_id={snapshot_id}"
            assert request(self.site.system, "DELETE", target).status == 200
        assert (self.volumes(), self.snapshots()) == ([], [])

    def _take(self, name: str) -> Reply:
        body = {"Snapshots": [{"SourceVolumeID": f"{self.name}-source", "Name": f"{self.name}-{name}"}]}
        return request(self.site.system, "PUT", "/v1/volumes/snapshot", body)

    @staticmethod
    def _kinds() -> tuple[str, ...]:
        return ("create", "delete", "expand", "create snapshot", "delete snapshot")


@pytest.fixture
def round_(site: Site) -> Round:
    made = Round(site, f"round{next(NUMBERS)}")
    site.slow()
    made.prepare()
    return made


def test_workers_killed_before_their_calls_reach_the_plugin(site: Site, round_: Round) -> None:
    """The bridge stands still while they connect to it, and goes on when they are dead."""
    bridge = site.system.pid_of("bridge")
    os.kill(bridge, signal.SIGSTOP)
    try:
        round_.start()
        wait_for(lambda: site.running() == len(RPCS))
        assert kill_workers(site.system, "run_operation") >= len(RPCS)
    finally:
        os.kill(bridge, signal.SIGCONT)
    round_.end()
    round_.clean()


def test_workers_killed_during_their_calls(site: Site, round_: Round) -> None:
    """The calls have their effect when nobody waits for them any more."""
    site.slow(*(f"{rpc}=hold*1" for rpc in RPCS))
    round_.start()
    wait_for(lambda: site.running() == len(RPCS))
    assert not round_.all_had_their_effect()
    assert kill_workers(site.system, "run_operation") >= len(RPCS)
    site.slow()
    round_.end()
    round_.clean()


def test_workers_killed_after_the_effect_and_before_its_record(site: Site, round_: Round) -> None:
    site.slow(*(f"{rpc}=hold@after*1" for rpc in RPCS))
    round_.start()
    wait_for(round_.all_had_their_effect)
    assert kill_workers(site.system, "run_operation") >= len(RPCS)
    site.slow()
    round_.end()
    round_.clean()


@pytest.mark.parametrize("who", ["plugin-directory", "bridge"])
def test_the_other_side_killed_during_the_calls(site: Site, round_: Round, who: str) -> None:
    """UNAVAILABLE for whoever waits; the process is started again, and the calls are repeated."""
    site.slow(*(f"{rpc}=hold" for rpc in RPCS))
    round_.start()
    wait_for(lambda: site.running() == len(RPCS))
    old = site.system.pid_of(who)
    psutil.Process(old).kill()
    site.slow()
    round_.end()
    round_.clean()


def test_calls_that_outlive_their_deadline(site: Site, round_: Round) -> None:
    """The worker hears that the deadline passed, the next call does the work, and the first one lands after that."""
    began = clock.monotonic()
    site.slow(*(f"{rpc}={1.5 * CALL_SECONDS}s*1" for rpc in RPCS))
    round_.start()
    round_.end()
    wait_for(lambda: clock.monotonic() > began + 1.5 * CALL_SECONDS + 2)
    round_.end()
    round_.clean()


def test_nothing_waits_in_the_end(site: Site) -> None:
    operations: list[dict[str, Any]] = request(site.system, "GET", "/v1/operations?per_page=1000").json["Operations"]
    assert {o["Status"] for o in operations} == {"succeeded"}
    assert max(o["Attempt"] for o in operations) > 1
