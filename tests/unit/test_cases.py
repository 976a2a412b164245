"""docs/evidence/cases.md: one sorted table, whose cases have files and whose tests are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs/evidence/cases.md").read_text().splitlines()
    if re.match(r"\| [a-z0-9]+(-[a-z0-9]+)+ \|", line)
]


def test_the_table_is_sorted_and_whole() -> None:
    assert [row[0] for row in ROWS] == sorted({row[0] for row in ROWS})
    assert {len(row) for row in ROWS} == {5}


def test_every_case_has_its_files_and_the_right_answer() -> None:
    missing = [row[0] for row in ROWS if not (ROOT / "tests/unit/fixtures/cases" / row[0] / "expected.md").is_file()]
    assert missing == []


def test_every_case_that_is_a_fixture_has_a_row() -> None:
    cases = {folder.name for folder in (ROOT / "tests/unit/fixtures/cases").iterdir()}
    assert sorted(cases - {row[0] for row in ROWS}) == []


def test_every_test_that_is_named_is_there() -> None:
    files = list((ROOT / "tests").rglob("test_*.py"))
    for row in ROWS:
        named = re.findall(r"`([\w/.-]*\.py)?::(\w+)`", row[2])
        assert named, row[0]
        file = ""
        for name, function in named:
            file = name or file
            found = [path for path in files if str(path).endswith(f"/{file}")]
            assert any(re.search(rf"^def {function}\(", path.read_text(), re.MULTILINE) for path in found), (
                row[0],
                function,
            )
