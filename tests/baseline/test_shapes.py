"""The newest baseline has every shape of row that today's code writes. A failure names those that are missing."""

import re
from pathlib import Path

import pytest

import chalicelib
from chalicelib.store import tables
from tests.baseline import files, shapes
from tests.baseline.files import Baseline
from tests.baseline.rows import KEYS

SOURCES = sorted(Path(chalicelib.__path__[0]).rglob("*.py"))


@pytest.fixture(scope="module")
def newest() -> Baseline:
    return files.read(files.versions()[-1])


def test_every_shape_is_there(newest: Baseline) -> None:
    """A shape that came after the baseline is named in shapes.NEWER, and its readers must work without it."""
    wanted, seen = shapes.wanted(), shapes.seen(newest)
    assert sorted(wanted - seen - shapes.NEWER) == []
    assert sorted(shapes.NEWER - wanted) == [], "nothing writes these any more"
    assert sorted(shapes.NEWER & seen) == [], "these are there"


def test_every_row_and_every_part_of_a_key_has_its_form() -> None:
    assert {key.row for key in KEYS} == set(tables.ROWS)
    assert {name for key in KEYS for name in key.parts} == shapes.key_names()


def test_the_stores_own_table_names_the_same_rows() -> None:
    lines = re.findall(r"^\| (\w+) \| .*? \| .*? \| (\w+)", tables.__doc__ or "", re.MULTILINE)
    said = {(table, "IndexRow" if row == "the" else row) for table, row in lines if table != "table"}
    assert said == {(key.table, key.row.__name__) for key in KEYS}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_keys_that_are_written_out_in_the_code_have_a_form(path: Path) -> None:
    for row, parts in shapes.literal_keys(path.read_text()):
        forms = [(key.pk, key.sk) for key in KEYS if key.row.__name__ == row]
        for position, part in enumerate(parts):
            assert part is None or any(re.fullmatch(form[position], part) for form in forms), f"{row}: {part}"


def test_literal_keys_are_found() -> None:
    found = list(shapes.literal_keys('store.get(SweepRow, "sweep", "nodes")\nSweepRow("sweep", "more", at=1)\n'))
    assert found == [("SweepRow", ("sweep", "nodes")), ("SweepRow", ("sweep", "more"))]


def test_every_enum_is_stored_or_is_said_not_to_be() -> None:
    assert shapes.enums() == shapes.STORED.keys() | shapes.NOT_IN_ROWS
