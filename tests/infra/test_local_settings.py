"""How the local system reads its environment, and what it says when it cannot."""

from pathlib import Path

import pytest

from infra.local.rootkey import Key
from infra.local.say import Trouble
from infra.local.settings import ROOT, Plugin, Settings


def test_everything_has_a_default() -> None:
    settings = Settings.from_env({})
    assert settings.api_url == "http://127.0.0.1:4646"
    assert settings.endpoint == "http://127.0.0.1:4566"
    assert settings.stage == "dev"
    assert settings.plugins == (Plugin(plugin_id="directory"),)
    assert settings.state.name == ".moorage"


@pytest.mark.parametrize("state", [".", "/", "infra/..", "/home/me", "/home"])
def test_a_folder_that_holds_more_than_state_is_refused(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rights are changed, and make forget removes it."""
    monkeypatch.chdir(ROOT)
    with pytest.raises(Trouble, match=r"MOORAGE_STATE is /.*holds more than state"):
        Settings.from_env({"MOORAGE_STATE": state, "HOME": "/home/me"})
    assert Settings.from_env({"MOORAGE_STATE": "/home/me/state", "HOME": "/home/me"}).state == Path("/home/me/state")


def test_a_second_plugin_has_its_own_flags_and_hostpath_is_like_hostpath() -> None:
    env = {"MOORAGE_PLUGINS": "directory hostpath", "PLUGIN_ARGS": "--a 'b c'", "PLUGIN_ARGS_HOSTPATH": "--d"}
    directory, hostpath = Settings.from_env(env).plugins
    assert directory == Plugin(plugin_id="directory", arguments=("--a", "b c"))
    assert hostpath == Plugin(plugin_id="hostpath", arguments=("--like", "hostpath", "--a", "b c", "--d"))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MOORAGE_PORT", "0"),
        ("MOORAGE_PORT", "65536"),
        ("MOORAGE_EMULATOR_PORT", "x"),
        ("MOORAGE_BRIDGE_PORT", "-1"),
        ("MOORAGE_STAGE", "Dev"),
        ("MOORAGE_STAGE", "1st"),
        ("MOORAGE_STAGE", "a" * 21),
        ("MOORAGE_PLUGINS", " "),
        ("MOORAGE_PLUGINS", "a a"),
        ("MOORAGE_PLUGINS", "../x"),
        ("MOORAGE_PLUGINS", "emulator"),
        ("PLUGIN_ARGS", "'"),
        ("BRIDGE_ARGS", '"'),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_name(variable: str, value: str) -> None:
    with pytest.raises(Trouble, match=variable):
        Settings.from_env({variable: value})


def test_nothing_of_the_terminal_reaches_a_function_but_what_is_meant_to(tmp_path: Path) -> None:
    env = {"PATH": "/bin", "AWS_PROFILE": "production", "MOORAGE_WAIT_SECONDS": "5", "SECRET": "s"}
    env |= {"AWS_ACCESS_KEY_ID": "AKIAMINE", "MOORAGE_STATE": str(tmp_path)}
    settings = Settings.from_env(env)
    assert settings.function_variables == {"MOORAGE_WAIT_SECONDS": "5"}
    assert set(settings.aws_environment()) >= {"PATH", "AWS_ENDPOINT_URL"}
    assert {"AWS_PROFILE", "SECRET"}.isdisjoint(settings.aws_environment())
    assert settings.aws_environment()["AWS_ACCESS_KEY_ID"] not in ("AKIAMINE", "test")


def test_an_emulator_that_was_started_by_hand_has_its_own_key() -> None:
    given = {"AWS_ENDPOINT_URL": "http://127.0.0.1:5000/", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    assert Settings.from_env(given).endpoint == "http://127.0.0.1:5000"
    assert Settings.from_env(given).key() == Key("k", "s")
    assert Settings.from_env({"AWS_ENDPOINT_URL": "http://127.0.0.1:5000"}).key() == Key("test", "test")


def test_sockets_move_where_their_path_fits(tmp_path: Path) -> None:
    near = Settings.from_env({"MOORAGE_STATE": "/tmp/m"})
    far = Settings.from_env({"MOORAGE_STATE": f"/tmp/{'x' * 90}"})
    assert near.sockets == near.run
    assert far.sockets != far.run
    assert len(str(far.sockets / "directory.sock")) < 100


def test_an_emulator_that_runs_already_is_used_as_it_is() -> None:
    assert Settings.from_env({"AWS_ENDPOINT_URL": "http://127.0.0.1:4510/"}).endpoint == "http://127.0.0.1:4510"
