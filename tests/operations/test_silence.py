"""The fault table of nodes: one falls silent, and is heard again, between any two looks of a worker at it.

A claim that excludes others is published or released meanwhile, and another claim asks for the volume on another node
all the time. At no moment may the volume be usable on two nodes. What is left at the end must be what the records say.

Silence is one of two things: heartbeats are lost and calls get through, or no call gets through either. A worker looks
at a node when it reads or checks its rows and when it makes a call. Changes between two looks are one.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from chalicelib.errors import PluginInDoubt
from chalicelib.service.liveness import release_lost_claims
from chalicelib.sweeps import claims, liveness
from tests.emulated import aws
from tests.harness import CAPABILITIES, NODE_CAPABILITIES, Reply, System, definition, forget, make_system
from tests.operations.invariants import at_rest, violations
from tests.operations.test_faults import Tap, Tapped
from tests.reporting import FAULTS

PATH: Final = "/v1/volume/csi/data"
ROUNDS: Final = 30
MOST_LOOKS: Final = 40
FEWEST_LOOKS: Final = 5
SAMPLED: Final = 31
"""One of so many pairs of looks is tried without --many."""


@dataclass(frozen=True)
class PluginKind:
    """What the plugin can do."""

    attaches: bool
    stages: bool

    def __str__(self) -> str:
        return f"{'attaches' if self.attaches else 'no-controller'}-{'stages' if self.stages else 'no-stage'}"


PLUGINS: Final = tuple(PluginKind(*can) for can in itertools.product((True, False), repeat=2))


@dataclass
class Flaps(Tap):
    """Counts the worker's looks, and lets something happen before some of them."""

    acts: Mapping[int, Callable[[], None]] = field(default_factory=dict)

    def before(self, name: str) -> None:
        if not self.on:
            return
        self.names.append(name)
        number, self.count = self.count, self.count + 1
        if number in self.acts:
            self.on = False  # what happens makes calls of its own
            self.acts[number]()
            self.on = True

    def done(self) -> None:
        """Do nothing: what happens after a call happens before the next."""


class Looking(Tapped):
    """A system whose worker is watched when it looks at nodes."""

    def _before(self, model: Any, **given: Any) -> None:
        if b"moorage-test-plugins" in given["params"]["body"]:
            self.tap.before(model.name)


@dataclass
class Cluster:
    """Two nodes, a volume for one claim at a time, and a claim on the second node that is asked for all the time."""

    tapped: Tapped
    deaf: bool
    """Whether a silent node does not hear calls either."""
    seen: list[str] = field(default_factory=list)
    """Moments at which the volume could be used on two nodes."""

    def __post_init__(self) -> None:
        self.system.provider.before.append(self._reach)
        self.system.provider.after.append(self._look)

    @property
    def system(self) -> System:
        return self.tapped.system

    def prepare(self, kind: PluginKind, *, mode: str) -> None:
        self.system.provider.stages = kind.stages
        for node_id in ("node-a", "node-b"):
            self.system.add_node(
                node_id,
                controller_capabilities=CAPABILITIES | ({"PUBLISH_UNPUBLISH_VOLUME"} if kind.attaches else set()),
                node_capabilities=NODE_CAPABILITIES if kind.stages else frozenset(),
            )
        capabilities = [{"AccessMode": mode, "AttachmentMode": "file-system"}]
        body = definition(RequestedCapabilities=capabilities)
        assert self.system.call("PUT", f"{PATH}/create", body).status == 200

    def claim(self, alloc: str, node_id: str, **headers: str) -> Reply:
        mode = (
            "read"
            if self.system.call("GET", PATH).json["RequestedCapabilities"][0]["AccessMode"].endswith("reader-only")
            else "write"
        )
        body = {
            "AllocationID": alloc,
            "NodeID": node_id,
            "Mode": mode,
            "StagingPath": "/stage",
            "TargetPath": f"/mnt-{alloc}",
        }
        return self.system.call("PUT", f"{PATH}/claim", body, headers=headers)

    def release(self, alloc: str, **headers: str) -> Reply:
        return self.system.call("DELETE", f"{PATH}/claim/{alloc}", headers=headers)

    def fall_silent(self) -> None:
        self.system.set_healthy("node-a", healthy=False)

    def come_back(self) -> None:
        self.system.set_healthy("node-a", healthy=True)
        release_lost_claims(self.system.deps, "node-a")
        self.ask()

    def ask(self) -> None:
        """Ask for the volume on the other node, and do not wait for it."""
        self.claim("rival", "node-b", Prefer="respond-async")

    def rest(self) -> None:
        """Run sweeps and workers until nothing is due, and let the rival ask again and again."""
        self.tapped.sides["worker"].on = False
        for _ in range(ROUNDS):
            self.system.clock.moment += 90
            down = tuple(node.id for node in self.system.deps.plugins.nodes() if not node.healthy)
            claims.sweep(self.system.deps, liveness.Report(down=down))
            self.system.sweep()
            self.tapped.pump()
            self.ask()
            self.tapped.pump()
            if at_rest(self.system):
                return

    def end(self) -> list[str]:
        """Let the volume go back to the first node and be released there. Return what is left then."""
        self.system.clock.on_sleep[:] = [self.tapped.pump]
        replies = [self.release("rival"), self.claim("again", "node-a")]
        places = {(node_id, path) for _, node_id, path in self.system.provider.mounted}
        replies.append(self.release("again"))
        wrong = [reply.body for reply in replies if reply.status != 200]
        if not places <= {("node-a", "/stage"), ("node-a", "/mnt-again")} or self.system.provider.mounted:
            wrong.append(f"mounted at {sorted(places)}, and then at {self.system.provider.mounted}")
        return wrong

    def _silent(self) -> bool:
        node = self.system.deps.plugins.node("node-a")
        return node is None or not node.healthy

    def _reach(self, rpc: str, _: object) -> None:
        on_it = self.system.provider.calling == "node-a"
        if self.deaf and on_it and self._silent():
            raise PluginInDoubt("the node does not answer", code="UNAVAILABLE")

    def _look(self, rpc: str, _: object) -> None:
        """See on which nodes the volume can be used: mounted or staged, and attached if the plugin attaches."""
        provider, deps = self.system.provider, self.system.deps
        plugin = deps.plugins.get("directory")
        attaches = plugin is not None and plugin.can("PUBLISH_UNPUBLISH_VOLUME")
        usable = {n for v, n, _ in provider.mounted if not attaches or (v, f"ext-{n}") in provider.attached}
        if len(usable) > 1:
            self.seen.append(f"usable on {sorted(usable)} after {rpc}")


@contextmanager
def a_cluster(*, deaf: bool) -> Iterator[Cluster]:
    with aws() as place, pytest.MonkeyPatch.context() as monkeypatch:
        system = make_system(monkeypatch, place, wait_seconds=1.0)
        yield Cluster(Looking(system), deaf)
        forget()


def flap(
    kind: PluginKind, what: str, *, first: int, second: int, silent_first: bool, deaf: bool, mode: str
) -> tuple[list[str], int]:
    """Let the node change twice while the operation runs. Return what is wrong, and how many looks there were."""
    with a_cluster(deaf=deaf) as cluster:
        cluster.prepare(kind, mode=mode)
        if what == "unpublish":
            assert cluster.claim("a", "node-a").status == 200
        changes = (cluster.come_back, cluster.fall_silent) if silent_first else (cluster.fall_silent, cluster.come_back)
        tap = cluster.tapped.sides["worker"] = Flaps(acts=dict(zip((first, second), changes, strict=True)))
        cluster.system.pumping, cluster.system.clock.on_sleep[:] = False, []
        begun = cluster.claim if what == "publish" else cluster.release
        assert begun(*("a", "node-a")[: 2 if what == "publish" else 1], Prefer="respond-async").status == 202
        if silent_first:
            cluster.fall_silent()
        tap.on = True
        cluster.tapped.pump()
        cluster.rest()
        wrong = list(cluster.seen)
        cluster.come_back()
        cluster.rest()
        cluster.release("a", Prefer="respond-async")
        cluster.rest()
        wrong += cluster.seen + violations(cluster.system)
        held = [(c["AllocationID"], c["Published"]) for c in cluster.system.call("GET", f"{PATH}/claims").json]
        if held != [("rival", True)]:
            wrong.append(f"the volume is held by {held}")
        # What a silent node has left mounted is taken away when the volume is published there again.
        left = any(node_id == "node-a" for _, node_id, _ in cluster.system.provider.mounted)
        return wrong + (cluster.end() if left else []), tap.count


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("silent_first", [False, True], ids=["silent-then-back", "back-then-silent"])
@pytest.mark.parametrize("what", ["publish", "unpublish"])
@pytest.mark.parametrize("kind", PLUGINS, ids=str)
def test_a_node_that_flaps_lets_no_second_node_in(
    kind: PluginKind, what: str, silent_first: bool, many: bool, record_property: Callable[[str, object], None]
) -> None:
    _, looks = flap(kind, what, first=-2, second=-1, silent_first=False, deaf=False, mode="single-node-writer")
    assert FEWEST_LOOKS <= looks < MOST_LOOKS, f"the worker looks {looks} times: were all of them tapped?"
    pairs = list(itertools.combinations(range(looks + 1), 2))
    for number, (first, second) in enumerate(pairs):
        if not many and number % SAMPLED:
            continue
        deaf = bool((first + second) % 2)
        mode = ("single-node-writer", "single-node-reader-only")[number % 5 == 0]
        wrong, _ = flap(kind, what, first=first, second=second, silent_first=silent_first, deaf=deaf, mode=mode)
        record_property(FAULTS, [f"{what}, silence", str(kind), 1, len(wrong)])
        assert wrong == [], (
            f"changes before the looks {first} and {second}, {'deaf' if deaf else 'hears calls'}, {mode}"
        )
