"""The table of reported cases: every case that is a fixture has a row, and the tests that a row names exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = {
    row.split("|")[1].strip(): row
    for row in (ROOT / "docs/evidence/cases.md").read_text(encoding="utf-8").splitlines()
    if row.startswith("| ") and not row.startswith("| case |")
}


def test_every_case_has_a_row_and_the_rows_are_sorted() -> None:
    cases = sorted(folder.name for folder in (ROOT / "tests/unit/fixtures/cases").iterdir())
    assert sorted(set(cases) - set(ROWS)) == []
    assert list(ROWS) == sorted(ROWS)


def test_the_tests_of_a_row_exist() -> None:
    for case, row in ROWS.items():
        file, named = "", re.findall(r"`([\w/]*\.py)?::(test_\w+)`", row)
        assert named, case
        for given, test in named:
            file = given or file
            text = (ROOT / "tests/unit/module_utils" / file).read_text(encoding="utf-8")
            assert f"def {test}(" in text, f"{case}: {file}::{test}"
