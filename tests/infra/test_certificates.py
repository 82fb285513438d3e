"""Certificates of a local system: made once, made again after a kill in between, and what is wrong in one line."""

from pathlib import Path

import pytest

from infra.local import certificates
from infra.local.say import Trouble
from infra.local.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_env({"MOORAGE_STATE": str(tmp_path)})


def test_they_are_made_once(settings: Settings) -> None:
    certificates.ensure(settings)
    made = {path: path.read_bytes() for path in settings.certs.glob("*/*.pem")}
    assert {path.name for path in made} >= {"ca.pem", "ca-key.pem", "bridge.pem", "worker.pem"}
    certificates.ensure(settings)
    assert {path: path.read_bytes() for path in settings.certs.glob("*/*.pem")} == made


def test_a_kill_between_the_files_of_a_ca_does_not_stop_the_next_start(settings: Settings) -> None:
    certificates.ensure(settings)
    for path in settings.certs.glob("*/*.pem"):
        if path.name != "ca-key.pem":
            path.unlink()
    for path in (settings.certs / "bridge", settings.certs / "worker"):
        for file in path.iterdir():
            file.unlink()
    certificates.ensure(settings)
    assert (settings.certs / "worker" / "worker.pem").is_file()


def test_a_ca_that_is_gone_is_not_replaced_under_what_it_signed(settings: Settings) -> None:
    certificates.ensure(settings)
    (settings.certs / "ca" / "ca.pem").unlink()
    with pytest.raises(Trouble, match="holds a CA already"):
        certificates.ensure(settings)


@pytest.mark.parametrize("name", ["bridge/bridge.pem", "worker/worker.pem"])
def test_a_certificate_that_cannot_be_read_is_told_in_a_line(settings: Settings, name: str) -> None:
    certificates.ensure(settings)
    (settings.certs / name).write_text("half of")
    with pytest.raises(Trouble, match=r"\.pem cannot be read as a certificate"):
        certificates.ensure(settings)
