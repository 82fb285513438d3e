"""Fixtures: certificates, a plugin, a control plane, a bridge between them, a worker that calls it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.bridge.tests.parts import (
    ControlPlane,
    FakePlugin,
    Pki,
    Worker,
    control_plane_at,
    make_pki,
    running,
    worker_at,
)
from moorage.bridge.run import Bridge
from moorage.bridge.settings import PluginSettings, Settings


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return make_pki(tmp_path / "pki")


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[FakePlugin]:
    running = FakePlugin(tmp_path / "p.sock").start()
    yield running
    running.stop()


@pytest.fixture
def control_plane() -> Iterator[ControlPlane]:
    with control_plane_at() as plane:
        yield plane


@pytest.fixture
def settings(tmp_path: Path, pki: Pki, plugin: FakePlugin, control_plane: ControlPlane) -> Settings:
    return Settings(
        api=control_plane.url,
        state=tmp_path / "state",
        certs=pki.bridge,
        listen="127.0.0.1:0",
        advertise=None,
        plugins=(PluginSettings("fake", plugin.target),),
        probe_seconds=5.0,
        drain_seconds=5.0,
    )


@pytest.fixture
def bridge(settings: Settings) -> Iterator[Bridge]:
    with running(settings) as found:
        yield found


@pytest.fixture
def worker(bridge: Bridge, pki: Pki) -> Iterator[Worker]:
    found = worker_at(bridge.address, pki.client())
    yield found
    found.channel.close()
