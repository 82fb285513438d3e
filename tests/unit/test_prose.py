"""The English of the code: first lines of docstrings are one sentence, and each sentence names its subject."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.unit.test_docs import BANNED

ROOT: Final = Path(__file__).parents[2]
QUOTED: Final = re.compile(r"``?[^`]*``?|\"[^\"\n]*\"")
NEWLINE: Final = "\n"
GENERATED: Final = (ROOT / "chalicelib" / "csi" / "spec", ROOT / "infra" / "bridge" / "src" / "moorage" / "spec")

Text = tuple[int, str]
"""A docstring or a comment, and the number of its first line."""


def sources() -> list[Path]:
    """Return the modules of the product and of infra, without tests and generated code."""
    found = [ROOT / "app.py", *(p for top in ("chalicelib", "infra") for p in sorted((ROOT / top).rglob("*.py")))]
    return [p for p in found if "tests" not in p.relative_to(ROOT).parts and not set(GENERATED) & set(p.parents)]


def docstrings(source: str) -> Iterator[Text]:
    """Yield the docstrings of a module, its classes, functions, attributes and constants."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def comments(source: str) -> Iterator[Text]:
    """Yield the comments. Those that follow each other are one, since a sentence may go on."""
    first, last, lines = 0, 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if token.start[0] != last + 1:
            if lines:
                yield first, "\n".join(lines)
            first, lines = token.start[0], []
        last = token.start[0]
        lines.append(token.string.lstrip("#").strip())
    if lines:
        yield first, "\n".join(lines)


def two_sentences(source: str) -> list[str]:
    """Name the docstrings whose first line joins two clauses by a semicolon."""
    firsts = ((number, text.strip().partition("\n")[0]) for number, text in docstrings(source))
    return [f"line {number}: {first}" for number, first in firsts if ";" in QUOTED.sub("", first)]


def banned(source: str) -> list[str]:
    """Name the words in docstrings and comments that stand where a subject or a fact should."""
    found = []
    for number, text in (*docstrings(source), *comments(source)):
        bare = QUOTED.sub("", text)
        found += [
            f"line {number + bare[: m.start()].count(NEWLINE)}: {' '.join(m[0].split())}" for m in BANNED.finditer(bare)
        ]
    return found


def module_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", sources(), ids=module_id)
def test_a_module_is_in_plain_english(path: Path) -> None:
    source = path.read_text()
    assert two_sentences(source) + banned(source) == []


def test_every_part_of_the_product_is_read() -> None:
    names = {module_id(path) for path in sources()}
    assert {"app.py", "chalicelib/functions.py", "infra/local/system.py", "infra/bridge/src/moorage/cli.py"} <= names
    assert not any("/tests/" in name or "_pb2" in name for name in names)


PLANTED: Final = '''"""Keep it; drop it."""

LIMIT = 3  # nobody asks
"""Bytes; whatever
they are.
"""


class Kept:
    """Keep `a; b`, or "c; d"."""

    def drop(self):
        """Drop it.

        The rest stays; a second line may say so.
        """
        # It is kept for
        # ever. The word is `surely`.
        return "somebody; likewise"
'''


def test_a_first_line_of_two_clauses_is_seen() -> None:
    assert sorted(two_sentences(PLANTED)) == ["line 1: Keep it; drop it.", "line 4: Bytes; whatever"]


def test_a_banned_word_is_seen() -> None:
    assert banned(PLANTED) == ["line 4: whatever", "line 3: nobody", "line 17: for ever"]
