"""Writes the drawings in the docs that follow from tables in the code: `python -m infra.diagrams`."""

import re
import sys
from pathlib import Path
from typing import Final

from chalicelib.domain.operation import TRANSITIONS

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
_DRAWN: Final = re.compile(r"(?<=<!-- drawn -->\n).*?(?=<!-- /drawn -->)", re.DOTALL)


def operations() -> str:
    """The states of an operation as a Mermaid diagram."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> pending"]
    names = {status: status.value.replace(" ", "_") for pair in TRANSITIONS for status in (pair[0], TRANSITIONS[pair])}
    lines += [f"    {names[status]} --> {names[to]}: {event}" for (status, event), to in TRANSITIONS.items()]
    lines += ["    succeeded --> [*]", "    failed --> [*]", "```"]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write them into docs/operations.md."""
    page = DOCS / "operations.md"
    text = page.read_text()
    if not _DRAWN.search(text):
        sys.stderr.write(f"{page} has no place for the drawing\n")
        return 1
    page.write_text(_DRAWN.sub(lambda _: operations(), text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
