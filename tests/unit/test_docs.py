"""What the docs say about the tree is true: paths, links, sections, decisions and drawings; and they keep one style."""

import fnmatch
import itertools
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from chalicelib.domain.claim import TRANSITIONS, ClaimState
from chalicelib.domain.operation import Kind
from chalicelib.operations.kinds import KINDS
from chalicelib.operations.spec import KindSpec
from infra import diagrams
from tests.docs import steps

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
MAP: Final = ROOT / "docs" / "map.md"
ADDING: Final = sorted((ROOT / "docs").glob("adding-*.md"))
"""Pages whose steps make files (tests/docs carries them out)."""
DECISIONS: Final = ROOT / "docs" / "decisions"
WIDTH: Final = 120
BANNED: Final = re.compile(
    r"\b(nobody|somebody|anybody|whoever|whatever|whichever|for\s+ever|forever|surely|likewise|lies|lie)\b",
    re.IGNORECASE,
)
FENCE: Final = re.compile(r"^\s*```", re.MULTILINE)
LINK: Final = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
CODE: Final = re.compile(r"`([^`\n]+)`")
CITED: Final = re.compile(r"(?<![\w/])docs/[\w./*-]+\w")
SECTION: Final = re.compile(r"docs/(interfaces)\.md,\s+section (\d+)")
PROTOCOL: Final = re.compile(r"protocols, (?:sections? )?(\d)(?:\.(\d+))?(?: and (\d))?|protocols, operations (\d+)")
DECISION: Final = re.compile(r"decisions?/(\d{3})[\w.-]*|decision (\d{3})")
TOLD_ONCE: Final = {r"\b90[ -]?s(?:econds?)?\b": "docs/claims.md"}
"""Rules that have one home, to which the other pages link."""

Problems = list[str]


def prose(text: str) -> str:
    """Return the text with every fenced block emptied, so that line numbers stay."""
    parts = FENCE.split(text)
    return "".join(part if i % 2 == 0 else "\n" * part.count("\n") for i, part in enumerate(parts))


def numbered(text: str) -> Iterator[tuple[int, str]]:
    return enumerate(text.splitlines(), start=1)


def too_long(text: str) -> Problems:
    """Name the lines beyond 120 columns; tables, fenced blocks and indented commands may be longer."""
    lines = ((n, line) for n, line in numbered(prose(text)) if not line.startswith(("|", "    ")))
    return [f"line {n}: {len(line)} columns" for n, line in lines if len(line) > WIDTH]


def banned(text: str) -> Problems:
    """Name the words that stand where a subject should."""
    return [f"line {n}: {m[0]}" for n, line in numbered(prose(text)) for m in BANNED.finditer(CODE.sub("", line))]


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> Problems:
    """Name the relative links that lead to no file, or to no heading of it."""
    found = []
    for target in LINK.findall(prose(text)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if path and not file.exists():
            found.append(target)
            continue
        if anchor and anchor not in anchors(file.read_text() if path else text):
            found.append(target)
    return found


def expanded(pattern: str) -> list[str]:
    """Spell out `{a,b}`; a placeholder such as `<kind>` becomes `*`."""
    parts = re.split(r"\{([^{}]*)\}", re.sub(r"<[^<>]*>", "*", pattern))
    choices = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(choice) for choice in itertools.product(*choices)]


IGNORED: Final = (
    ".chalice/deployed/",
    "docs/decisions/NNN",
    "build/",
    "vendor/",
    ".moorage/",
    "app/",
    "emulator/",
    "certs/",
    "bridge/",
    "mounts/",
)
"""Paths that are made when something runs, and forms of a path."""
BASES: Final = (ROOT, ROOT / "chalicelib", ROOT / "infra/bridge/src", ROOT / "infra/bridge", ROOT / "docs")
"""Where a path may begin."""
TOPS: Final = tuple(
    f"{p.name}/"
    for p in (*ROOT.iterdir(), *(ROOT / "chalicelib").iterdir())
    if p.is_dir() and not p.name.startswith("_")
)


def missing_paths(text: str, *, everything: bool = False) -> Problems:
    """Name the paths in the text that do not exist, from the root or from chalicelib."""
    named = set(CODE.findall(text)) | set(re.findall(r"(?<![\w/.`(-])(?:tests|infra|docs)/[\w./*{},-]*\w", text))
    found = []
    for name in sorted(named):
        path, _, _ = name.partition(":")
        looks = path.startswith(TOPS) or path.endswith((".py", ".in", ".toml")) or (everything and "/" in path)
        if not looks or path.startswith(IGNORED) or not re.fullmatch(r"[\w./*{},<>-]+", path):
            continue
        found += [one for one in expanded(path) if not (_cited(one) or _anywhere(one))]
    return found


def _anywhere(pattern: str) -> bool:
    return any(any(base.glob(pattern.rstrip("/"))) for base in BASES)


NAMES_IN: Final = re.compile(r"((?:`[\w.]+`(?:, | and | or )?)+) (?:in|of)\s+`([\w/.-]+\.py)`")


def missing_names(text: str) -> Problems:
    """Name what "`name` in `module.py`" says is in a module and is not."""
    found = []
    for names, path in NAMES_IN.findall(text):
        file = next((base / path for base in BASES if (base / path).exists()), None)
        words = set(re.findall(r"\w+", file.read_text())) if file else set()
        found += [f"{name} in {path}" for name in CODE.findall(names) if not set(name.split(".")) <= words]
    return found


NAMED_IN_CODE: Final = re.compile(
    r"(?<![\w/.<])(?:chalicelib|infra|tests|service|store|operations|wire|domain|csi|routes)/[\w/]+\.py\b"
)


def missing_in_code(text: str) -> Problems:
    """Name the modules that comments and docstrings of the code name and that do not exist."""
    named = sorted(set(NAMED_IN_CODE.findall(text)))
    return [name for name in named if not ((ROOT / name).exists() or (ROOT / "chalicelib" / name).exists())]


def rooms() -> set[str]:
    """Return what the map must have a row for: packages of chalicelib, and the folders of infra and tests."""
    packages = {f"chalicelib/{p.parent.name}" for p in (ROOT / "chalicelib").glob("*/__init__.py")}
    folders = {
        f"{top}/{p.name}"
        for top in ("infra", "tests")
        for p in (ROOT / top).iterdir()
        if p.is_dir() and not p.name.startswith(("_", "."))
    }
    return packages | folders


def unmapped(text: str) -> Problems:
    """Name the rooms that no row of the map names."""
    rows = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    named = {one for name in re.findall(r"[\w./*{},<>-]+/[\w./*{},<>-]+", rows) for one in expanded(name.rstrip(",."))}
    names = named | {f"chalicelib/{one}" for one in named}
    return sorted(room for room in rooms() if not any(name == room or name.startswith(room + "/") for name in names))


def sources() -> list[Path]:
    """Return the files that cite pages: code, templates and the pages themselves."""
    generated = ROOT / "chalicelib" / "csi" / "spec"
    tops = [ROOT / name for name in ("chalicelib", "infra", "tests", "docs")]
    found = [p for top in tops for p in top.rglob("*") if p.suffix in {".py", ".md", ".yaml", ".toml"}]
    found += [
        ROOT / name for name in ("app.py", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "pyproject.toml")
    ]
    return [p for p in found if generated not in p.parents and "data" not in p.parts and p != Path(__file__)]


def section_numbers(page: str) -> dict[str, str]:
    """Return the text of each numbered section of a page."""
    parts = re.split(r"^## (\d+)\. .*$", (ROOT / "docs" / page).read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def items(text: str) -> set[str]:
    return set(re.findall(r"^(\d+)\. ", text, re.MULTILINE))


def bad_citations(text: str) -> Problems:
    """Name the pages, sections and decisions that a text cites and that do not exist."""
    found = [path for path in CITED.findall(text) if not (path == "docs/decisions/NNN" or _cited(path))]
    interfaces, protocols = section_numbers("interfaces.md"), section_numbers("protocols.md")
    found += [m[0] for m in SECTION.finditer(text) if m[2] not in interfaces]
    for match in PROTOCOL.finditer(text):
        number, item, second, operation = match.groups()
        if operation is not None:
            number, item = "3", operation
        known = all(one in protocols for one in (number, second) if one)
        if not known or (item and item not in items(protocols[number])):
            found.append(match[0])
    numbers = {path.name[:3] for path in DECISIONS.glob("[0-9]*.md")}
    return found + [m[0] for m in DECISION.finditer(text) if (m[1] or m[2]) not in numbers]


def _cited(path: str) -> bool:
    return any(ROOT.glob(path)) or (path.startswith("docs/decisions/") and any(ROOT.glob(f"{path}-*.md")))


def misnumbered(names: list[str], index: str) -> Problems:
    """Name the decisions that break the row of numbers, or that the index does not link to under their number."""
    found = [name for number, name in enumerate(sorted(names), start=1) if not name.startswith(f"{number:03}-")]
    return found + [name for name in names if f"[{name[:3]}]({name})" not in index]


def is_decision(name: str, text: str) -> bool:
    """Return whether a decision has its number, a date, and the three parts in order."""
    head = re.match(r"# (\d{3}): [A-Z].*\n\nAccepted on \d{4}-\d\d-\d\d\.\n", text)
    parts = re.findall(r"^## (.*)$", text, re.MULTILINE)
    return head is not None and head[1] == name[:3] and parts == ["Context", "Decision", "Consequences"]


def telling(rule: str, pages: Mapping[str, str]) -> set[str]:
    """Return the pages that tell a rule."""
    return {name for name, text in pages.items() if re.search(rule, text)}


def bad_kinds(text: str) -> Problems:
    """Name the kinds of operation whose row in docs/operations.md is missing, or names other RPCs than theirs."""
    rows = dict(re.findall(r"^\| ([a-z ]+) \| ([A-Z]\w+(?:, [A-Z]\w+)*) \|", text, re.MULTILINE))
    specs = {kind.value: spec for kind, spec in KINDS.items()}
    wrong = {kind for kind in rows.keys() & specs.keys() if not _is_way(rows[kind].split(", "), specs[kind])}
    return sorted(wrong | (rows.keys() ^ specs.keys()))


def _is_way(rpcs: list[str], spec: KindSpec) -> bool:
    """Return whether an operation of this kind begins with the first RPC, and makes no call of another."""
    return rpcs[0] == spec.steps[spec.first].rpc and set(rpcs) <= {step.rpc for step in spec.steps.values()}


def kinds_of_openapi(text: str) -> list[str]:
    """Return the kinds of operation that docs/openapi.yaml names."""
    found = re.search(r"^ +Kind:\n +type: string\n +enum: \[(.*)\]$", text, re.MULTILINE)
    return found[1].split(", ") if found else []


def unmatched(patterns: Iterable[str]) -> Problems:
    """Name the patterns of a tool's settings that no file matches."""
    paths = [page_id(path) for path in sources()]
    return [one for name in patterns for one in expanded(name) if not fnmatch.filter(paths, one.replace("/**/", "/*/"))]


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_a_page_is_wrapped(page: Path) -> None:
    assert too_long(page.read_text()) == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "docs" / "openapi.yaml"], ids=page_id)
def test_a_page_names_its_subjects(page: Path) -> None:
    assert banned(page.read_text()) == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    assert broken_links(page, page.read_text()) == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=page_id)
def test_paths_that_a_page_names_exist(page: Path) -> None:
    made = steps.made(page) if page in ADDING else set()
    assert set(missing_paths(page.read_text(), everything=page == MAP)) <= made


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ADDING], ids=page_id)
def test_names_that_a_page_places_are_there(page: Path) -> None:
    assert missing_names(page.read_text()) == []


def test_the_map_has_a_row_for_every_room() -> None:
    assert unmapped(MAP.read_text()) == []


@pytest.mark.parametrize("rule", TOLD_ONCE)
def test_a_rule_is_told_in_one_place(rule: str) -> None:
    assert telling(rule, {page_id(page): page.read_text() for page in PAGES}) == {TOLD_ONCE[rule]}


def test_pages_sections_and_decisions_that_are_cited_exist() -> None:
    assert {page_id(path): bad for path in sources() if (bad := bad_citations(path.read_text()))} == {}


def test_modules_that_the_code_names_exist() -> None:
    code = [path for path in sources() if path.suffix != ".md"]
    assert {page_id(path): bad for path in code if (bad := missing_in_code(path.read_text()))} == {}


def test_decisions_are_numbered_in_order_and_indexed() -> None:
    names = [path.name for path in DECISIONS.glob("[0-9]*.md")]
    assert misnumbered(names, (DECISIONS / "README.md").read_text()) == []


@pytest.mark.parametrize("page", sorted(DECISIONS.glob("[0-9]*.md")), ids=lambda p: p.name[:3])
def test_a_decision_has_a_date_and_three_parts(page: Path) -> None:
    assert is_decision(page.name, page.read_text())


@pytest.mark.parametrize("page", diagrams.DRAWINGS)
def test_drawings_follow_from_the_tables(page: str) -> None:
    assert diagrams.DRAWINGS[page]() in (ROOT / "docs" / page).read_text(), "run: python -m infra.diagrams"


def test_the_pages_name_every_kind_of_operation() -> None:
    assert bad_kinds((ROOT / "docs" / "operations.md").read_text()) == []
    assert kinds_of_openapi((ROOT / "docs" / "openapi.yaml").read_text()) == [kind.value for kind in Kind]


def test_the_settings_of_tools_name_files_that_exist() -> None:
    ignores = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["per-file-ignores"]
    assert unmatched(ignores) == []


# Each check sees what it is there for.


def test_a_long_line_is_seen() -> None:
    long = "word " * 30
    assert too_long(f"{long}\n| {long} |\n```\n{long}\n```\n    {long}\n") == ["line 1: 150 columns"]


def test_a_banned_word_is_seen() -> None:
    assert banned("It is kept for ever.\n```\nnobody\n```\n`lies`, flies, Whoever\n") == [
        "line 1: for ever",
        "line 5: Whoever",
    ]


@pytest.mark.parametrize(
    "target", ["claim.md", "claims.md#no-such-heading", "#no-such-heading", "decisions/999-none.md"]
)
def test_a_broken_link_is_seen(target: str) -> None:
    text = "# Here\n[a](https://example.com) [b](#here) [c](claims.md) " + f"[d]({target})"
    assert broken_links(ROOT / "docs" / "x.md", text) == [target]


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("`chalicelib/domain/{claim,nothing}.py`", "chalicelib/domain/nothing.py"),
        ("`store/nothing.py` and `store/index.py`", "store/nothing.py"),
        ("see tests/nothing, tests/store", "tests/nothing"),
        ("`tests/data/<version>/*.nothing`", "tests/data/*/*.nothing"),
    ],
)
def test_a_path_that_is_gone_is_seen(text: str, missing: str) -> None:
    assert missing_paths(text) == [missing]


def test_a_name_that_is_gone_is_seen() -> None:
    text = "`Committer` in `store/commit.py`, `commit` and `Committer.undo` of\n`store/commit.py`, `x` in `no.py`"
    assert missing_names(text) == ["Committer.undo in store/commit.py", "x in no.py"]


def test_a_module_that_is_gone_is_seen_in_the_code() -> None:
    assert missing_in_code('"""See store/index.py and (store/nothing.py)."""') == ["store/nothing.py"]


def test_a_room_without_a_row_is_seen() -> None:
    rows = [line for line in MAP.read_text().splitlines() if "emulator" not in line]
    assert unmapped("\n".join(rows)) == ["infra/emulator", "tests/emulator"]


@pytest.mark.parametrize(
    "text",
    [
        "docs/nothing.md",
        "docs/interfaces.md,\nsection 9",
        "protocols, section 8",
        "protocols, 2.99",
        "protocols, operations 99",
        "protocols, sections 2 and 9",
        "docs/decisions/999",
        "decision 998",
    ],
)
def test_a_citation_of_nothing_is_seen(text: str) -> None:
    good = "docs/claims.md, docs/interfaces.md, section 4, protocols, 2.5, docs/decisions/001"
    assert bad_citations(good) == []
    assert bad_citations(f"{good} and {text}.") != []


def test_a_gap_in_the_numbers_is_seen() -> None:
    index = "[001](001-a.md) [003](003-c.md)"
    assert misnumbered(["001-a.md", "003-c.md"], index) == ["003-c.md"]
    assert misnumbered(["001-a.md", "002-b.md"], index) == ["002-b.md"]


def test_a_rule_that_is_told_twice_is_seen() -> None:
    rule = next(iter(TOLD_ONCE))
    assert telling(rule, {"a": "after 90 s", "b": "[down](a)", "c": "90 seconds", "d": "190 s"}) == {"a", "c"}


@pytest.mark.parametrize(
    ("old", "wrong"),
    [("# 001: A", "# 002: A"), ("Accepted on 2026-11-25.", "Accepted once."), ("## Context", "## Why")],
)
def test_a_decision_of_another_form_is_seen(old: str, wrong: str) -> None:
    good = "# 001: A\n\nAccepted on 2026-11-25.\n\n## Context\n\n## Decision\n\n## Consequences\n"
    assert is_decision("001-a.md", good)
    assert not is_decision("001-a.md", good.replace(old, wrong))


@pytest.mark.parametrize(
    ("old", "wrong"),
    [
        ("| expand |", "| grow |"),
        ("| ControllerExpandVolume |", "| NodeExpandVolume |"),
        ("| NodeUnpublishVolume, ", "| "),
    ],
)
def test_a_wrong_row_of_a_kind_is_seen(old: str, wrong: str) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    assert old in text
    assert bad_kinds(text.replace(old, wrong)) != []


def test_a_pattern_that_nothing_matches_is_seen() -> None:
    assert unmatched(["tests/**", "infra/{deploy,nothing}/**", "chalicelib/nothing.py"]) == [
        "infra/nothing/**",
        "chalicelib/nothing.py",
    ]


def test_a_drawing_of_another_table_is_seen() -> None:
    last = {ClaimState.TAKEN: "free"}
    other = diagrams.drawn(TRANSITIONS, ClaimState.TAKEN, last)
    assert other not in (ROOT / "docs" / "claims.md").read_text()
