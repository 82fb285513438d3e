"""The option --unit, which prints a systemd unit for the program that runs."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
UNIT_PROGRAM: Final = "/opt/moorage/bin/moorage"


def unit_option(name: str) -> Callable[[F], F]:
    """Return the option --unit, which prints moorage/systemd/`name` with the path of this program, and ends."""

    def show(context: click.Context, _: click.Parameter, wanted: bool) -> None:
        if not wanted or context.resilient_parsing:
            return
        from importlib import resources

        unit = resources.files("moorage").joinpath("systemd", name).read_text("utf-8")
        click.echo(unit.replace(UNIT_PROGRAM, str(Path(sys.argv[0]).absolute())), nl=False)
        context.exit()

    return click.option(
        "--unit",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help=f"Print a systemd unit for this program, {name}, and end.",
    )
