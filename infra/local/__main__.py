"""`python -m infra.local run|stop|status|logs|plugin|forget|clean`: the local system's commands, as `make` calls them.

All begin on the Python of the system. `run` makes the environments first. All but `clean` continue in .venv, as the
same process.
"""

import os
import sys
from collections.abc import Callable
from typing import Final

from infra.local import environments, say


def main(arguments: list[str]) -> int:
    """Run one command, and return the exit code."""
    command = arguments[0] if arguments else ""
    try:
        if command == "clean":
            from infra.local.clean import clean
            from infra.local.settings import Settings

            return clean(Settings.from_env())
        if command == "run":
            environments.ensure(environments.RUN, environments.EMULATOR, environments.FUNCTIONS)
        elif command not in COMMANDS:
            raise say.Trouble(f"name one command of {', '.join([*COMMANDS, 'clean'])}")
        if not _inside():
            if not environments.RUN.python.exists() and not _make_again(command):
                return 0
            os.chdir(environments.ROOT)
            os.execv(environments.RUN.python, [str(environments.RUN.python), "-m", "infra.local", *arguments])  # noqa: S606
        return COMMANDS[command](arguments[1:])
    except say.Trouble as exc:
        say.trouble(str(exc))
        return 1
    except KeyboardInterrupt:
        say.trouble("interrupted")
        return say.INTERRUPTED


def _make_again(command: str) -> bool:
    """Make the environment that `make clean` removed, if there is state, and return whether there is."""
    from infra.local.settings import Settings

    if Settings.from_env().state.exists():
        environments.ensure(environments.RUN)
        return True
    if command == "plugin":
        raise say.Trouble("the local system was never started here: start it with make run, in another terminal")
    say.line("Nothing was ever started here.")
    return False


def _inside() -> bool:
    return os.path.realpath(sys.prefix) == os.path.realpath(environments.RUN.path)


def _run(_: list[str]) -> int:
    from infra.local.settings import Settings
    from infra.local.system import System

    return System(Settings.from_env()).run()


def _stop(_: list[str]) -> int:
    from infra.local import control
    from infra.local.settings import Settings

    return control.stop(Settings.from_env())


def _status(_: list[str]) -> int:
    from infra.local import control
    from infra.local.settings import Settings

    return control.status(Settings.from_env())


def _forget(_: list[str]) -> int:
    from infra.local import control
    from infra.local.settings import Answers, Settings

    return control.forget(Settings.from_env(), sure=Answers.from_env().yes)


def _logs(_: list[str]) -> int:
    from infra.local import logs
    from infra.local.settings import Answers, Settings

    answers = Answers.from_env()
    return logs.show(Settings.from_env(), lines=answers.lines, follow=answers.follow)


def _plugin(arguments: list[str]) -> int:
    from infra.local import attach
    from infra.local.settings import Settings

    return attach.attach(Settings.from_env(), arguments)


COMMANDS: Final[dict[str, Callable[[list[str]], int]]] = {
    "run": _run,
    "stop": _stop,
    "status": _status,
    "logs": _logs,
    "plugin": _plugin,
    "forget": _forget,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
