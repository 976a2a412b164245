"""docs/reference/refusals.md: each row's test exists, and is one that holds the row against what it saw."""

from __future__ import annotations

import re

import pytest

from tests.unit import documented


@pytest.mark.parametrize("row", documented.rows(), ids=lambda row: row.case)
def test_a_row_names_a_test_that_holds_it(row: documented.Row) -> None:
    file, _, function = row.test.partition("::")
    text = (documented.ROOT / "tests" / file).read_text(encoding="utf-8")
    found = re.search(rf"^def {function}\(.*?(?=^def |^@pytest|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{file} has no {function}"
    assert "documented(" in found[0]


def test_no_case_is_there_twice() -> None:
    cases = [row.case for row in documented.rows()]
    assert len(cases) == len(set(cases)) > 50
