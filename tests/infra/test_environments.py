"""Environments: which are made, from what uv takes its index, and what is said when they cannot be made."""

import subprocess
import sys
from pathlib import Path

import pytest

from infra.local import environments, say, uv
from infra.local.settings import ROOT

FAILS = "#!/bin/sh\necho 'error: No solution found'\nexit 2\n"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree with the locks' names, where uv is a script that writes down what it is asked."""
    for name in environments.LOCKS:
        (tmp_path / f"{name}.txt").write_text(f"# {name}\n")
    program = tmp_path / "uv"
    program.write_text(f"""#!/bin/sh
echo "$@" >> {tmp_path}/asked
if [ "$1" = venv ]; then mkdir -p "$4/bin"; ln -sf {sys.executable} "$4/bin/python"; fi
""")
    program.chmod(0o755)
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    monkeypatch.setattr(uv, "program", lambda: program)
    return tmp_path


def asked(tree: Path) -> list[str]:
    file = tree / "asked"
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return lines


def test_an_environment_is_made_once_for_each_lock(tree: Path) -> None:
    environments.ensure(environments.EMULATOR)
    made = asked(tree)
    assert made[0].startswith("venv --python")
    assert made[1] == f"pip sync --python {tree}/.venv-emulator/bin/python --require-hashes requirements-emulator.txt"
    environments.ensure(environments.EMULATOR)
    assert asked(tree) == []
    (tree / "requirements-emulator.txt").write_text("# another\n")
    environments.ensure(environments.EMULATOR)
    assert [line.split()[:2] for line in asked(tree)] == [["pip", "sync"]]


def test_a_developers_environment_serves_make_run_too(tree: Path) -> None:
    environments.ensure(environments.DEV)
    assert "requirements-dev.txt" in "\n".join(asked(tree))
    environments.ensure(environments.RUN)
    assert asked(tree) == []
    (tree / "requirements-dev.txt").write_text("# another\n")
    environments.ensure(environments.RUN)
    assert "requirements-dev.txt" in "\n".join(asked(tree))
    assert "requirements-run.txt" not in "\n".join(asked(tree))


def test_make_run_alone_does_not_serve_a_developer(tree: Path) -> None:
    environments.ensure(environments.RUN)
    asked(tree)
    environments.ensure(environments.DEV)
    assert "requirements-dev.txt" in "\n".join(asked(tree))


def test_what_fails_is_said_with_its_last_words_and_tried_again(tree: Path) -> None:
    works = (tree / "uv").read_text()
    (tree / "uv").write_text(FAILS)
    with pytest.raises(say.Trouble, match="No solution found"):
        environments.ensure(environments.FUNCTIONS)
    (tree / "uv").write_text(works)
    environments.ensure(environments.FUNCTIONS)
    assert "--compile-bytecode" in "\n".join(asked(tree))


def test_uv_is_told_what_pip_is_told() -> None:
    listing = """:env:.cert='/ca.pem'
global.cert='/old.pem'
global.index-url='https://mirror.example/simple'
global.extra-index-url='https://a.example/\\nhttps://b.example/'
install.index-url='https://nearer.example/simple'
global.timeout='60'
global.trusted-host='mirror.example'
"""
    assert uv.translate(listing) == {
        "UV_DEFAULT_INDEX": "https://nearer.example/simple",
        "UV_INDEX": "https://a.example/ https://b.example/",
        "SSL_CERT_FILE": "/ca.pem",
        "UV_INSECURE_HOST": "mirror.example",
    }


def test_uv_of_the_path_is_told_what_pip_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no .venv-uv then, whose pip could be asked."""
    monkeypatch.setattr(uv, "FOLDER", tmp_path / ".venv-uv")
    for name in (*uv.INDEXES, "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    assert uv.environment()["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    monkeypatch.setenv("UV_INDEX_URL", "https://own.example/simple")
    assert "UV_DEFAULT_INDEX" not in uv.environment()


def test_an_environment_whose_renewal_was_broken_off_is_renewed_again(tree: Path) -> None:
    """Also when its lock is the old one again, of which a part was replaced already."""
    environments.ensure(environments.FUNCTIONS)
    works, lock = (tree / "uv").read_text(), (tree / "requirements.txt").read_text()
    (tree / "requirements.txt").write_text("# another\n")
    (tree / "uv").write_text(FAILS)
    with pytest.raises(say.Trouble):
        environments.ensure(environments.FUNCTIONS)
    (tree / "requirements.txt").write_text(lock)
    (tree / "uv").write_text(works)
    asked(tree)
    environments.ensure(environments.FUNCTIONS)
    assert "pip sync" in "\n".join(asked(tree))


def test_a_uv_that_is_too_old_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "uv"
    for version, is_used in (("0.8.3", False), ("0.9.0", True), ("1.0.0", True)):
        old.write_text(f"#!/bin/sh\necho 'uv {version}'\n")
        old.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        assert (uv.program() == old) == is_used


def test_a_step_that_is_not_on_a_terminal_shows_that_it_goes_on(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(say, "SHOWN_EVERY", 0.05)
    with say.step("Waiting") as step:
        say.run(["sh", "-c", "echo first; sleep 0.3"], step, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"})
    assert "0 s, first ..." in capfd.readouterr().out


def test_a_reader_that_has_gone_keeps_nothing_from_going_on(tmp_path: Path) -> None:
    """`make run | head` must still stop all that it started."""
    program = """
import sys
from infra.local import say
sys.stdin.readline()
say.line("this has no reader")
with say.step("nor this"):
    pass
open(sys.argv[1], "w").close()
"""
    command = [sys.executable, "-c", program, str(tmp_path / "went-on")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.communicate(b"\n")
    assert (tmp_path / "went-on").exists()
