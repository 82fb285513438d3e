"""Write the drawings in the docs that follow from tables in the code: `python -m infra.diagrams`."""

import re
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from chalicelib.domain import claim, operation

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)
_DRAWN: Final = re.compile(r"(?<=<!-- drawn -->\n).*?(?=<!-- /drawn -->)", re.DOTALL)


def drawn(transitions: Mapping[tuple[S, E], S], first: S, last: Mapping[S, str]) -> str:
    """Return the table as a Mermaid diagram. `last` maps each state that may be the end to the words for it."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {_name(first)}"]
    lines += [f"    {_name(status)} --> {_name(to)}: {event}" for (status, event), to in transitions.items()]
    lines += [f"    {_name(status)} --> [*]" + (f": {words}" if words else "") for status, words in last.items()]
    return "\n".join([*lines, "```"]) + "\n"


def operations() -> str:
    """Return the states of an operation."""
    last = {status: "" for status in operation.Status if status in operation.CLOSED}
    return drawn(operation.TRANSITIONS, operation.Status.PENDING, last)


def claims() -> str:
    """Return the states of a claim. Each of them may be its last (store/claims.py, `free`)."""
    return drawn(claim.TRANSITIONS, claim.ClaimState.TAKEN, dict.fromkeys(claim.ClaimState, "free"))


DRAWINGS: Final[Mapping[str, Callable[[], str]]] = {"operations.md": operations, "claims.md": claims}
"""The pages with a drawing, and what draws it."""


def _name(state: StrEnum) -> str:
    return state.value.replace(" ", "_").replace("-", "_")


def main() -> int:
    """Write each drawing into its page. Return 1 if a page has no place for it."""
    for name, draw in DRAWINGS.items():
        page = DOCS / name
        text = page.read_text()
        place = _DRAWN.search(text)
        if place is None:
            sys.stderr.write(f"{page} has no place for the drawing\n")
            return 1
        page.write_text(text[: place.start()] + draw() + text[place.end() :])
    return 0


if __name__ == "__main__":
    sys.exit(main())
